"""Engine requirements and host -> the chosen engine."""

from __future__ import annotations

import pytest

from packager.engines.selection import EngineName, EngineRequirements, Platform, choose_engine

CLUSTER, JOB, ELSEWHERE = Platform(cluster=True), Platform(cluster=True, job_image=True), Platform()


@pytest.mark.parametrize(
    ("requirements", "platform", "engine", "reason"),
    [
        (EngineRequirements(), ELSEWHERE, "oci", "no command needs to run"),
        (EngineRequirements(), CLUSTER, "oci", "no command needs to run"),
        (EngineRequirements(), JOB, "oci", "no command needs to run"),
        (EngineRequirements(run_steps=True), ELSEWHERE, "buildah", "needs a command to run"),
        (EngineRequirements(run_steps=True), CLUSTER, "kaniko", "a command to run during the build, in a cluster"),
        (EngineRequirements(run_steps=True), Platform(job_image=True), "kaniko", "in a cluster"),
        (EngineRequirements(local_base=True), ELSEWHERE, "buildah", "local container storage"),
        (EngineRequirements(local_base=True), JOB, "buildah", "local container storage"),
        (EngineRequirements(run_steps=True, local_base=True), CLUSTER, "buildah", "needs a command to run"),
        (EngineRequirements(run_steps=True, local_output=True), CLUSTER, "buildah", "needs a command to run"),
    ],
)
def test_auto_chooses_the_engine_by_requirements_and_host(
    requirements: EngineRequirements, platform: Platform, engine: str, reason: str
) -> None:
    name, why = choose_engine(EngineName.auto, requirements, platform)
    assert name.value == engine
    assert reason in why


@pytest.mark.parametrize("requested", [EngineName.oci, EngineName.buildah, EngineName.kaniko])
def test_requested_engine_is_chosen_whatever_the_requirements(requested: EngineName) -> None:
    for requirements in (EngineRequirements(), EngineRequirements(run_steps=True, local_base=True)):
        assert choose_engine(requested, requirements, JOB) == (requested, "it was requested")
