"""What is needed and where we run -> the engine."""

from __future__ import annotations

import pytest

from packager.engines.selection import EngineName, Needs, Place, choose_engine

CLUSTER, JOB, ELSEWHERE = Place(cluster=True), Place(cluster=True, job_image=True), Place()


@pytest.mark.parametrize(
    ("needs", "place", "engine", "reason"),
    [
        (Needs(), ELSEWHERE, "oci", "no command needs to run"),
        (Needs(), CLUSTER, "oci", "no command needs to run"),
        (Needs(), JOB, "oci", "no command needs to run"),
        (Needs(run_steps=True), ELSEWHERE, "buildah", "needs a command to run"),
        (Needs(run_steps=True), CLUSTER, "kaniko", "a command to run during the build, in a cluster"),
        (Needs(run_steps=True), Place(job_image=True), "kaniko", "in a cluster"),
        (Needs(local_base=True), ELSEWHERE, "buildah", "local container storage"),
        (Needs(local_base=True), JOB, "buildah", "local container storage"),
        (Needs(run_steps=True, local_base=True), CLUSTER, "buildah", "needs a command to run"),
        (Needs(run_steps=True, local_output=True), CLUSTER, "buildah", "needs a command to run"),
    ],
)
def test_auto(needs: Needs, place: Place, engine: str, reason: str) -> None:
    name, why = choose_engine(EngineName.auto, needs, place)
    assert name.value == engine
    assert reason in why


@pytest.mark.parametrize("asked", [EngineName.oci, EngineName.buildah, EngineName.kaniko])
def test_what_is_asked_for_is_taken(asked: EngineName) -> None:
    for needs in (Needs(), Needs(run_steps=True, local_base=True)):
        assert choose_engine(asked, needs, JOB) == (asked, "it was asked for")
