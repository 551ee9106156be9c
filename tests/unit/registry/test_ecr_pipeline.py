"""Which ECR repositories a run makes sure of, by its engine, its destination and its settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from packager.engines.buildah import BuildahEngine
from packager.engines.kaniko import KanikoEngine
from packager.engines.oci import OciEngine
from packager.logs.progress import SilentReporter
from packager.models.connection import Connection
from packager.models.reference import Destination, Reference
from packager.pipeline import PipelineContext, create_repositories
from packager.registry import ecr_repositories
from packager.request import PackagingRequest
from packager.settings import Settings
from tests.unit.builders import request

if TYPE_CHECKING:
    from packager.engines import Engine

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


ENGINES = {"buildah": BuildahEngine, "kaniko": KanikoEngine, "oci": OciEngine}


def no_run(*words: object, **_others: object) -> NoReturn:
    raise AssertionError(words)


def asked(monkeypatch: pytest.MonkeyPatch, wanted: PackagingRequest, name: str, **values: Any) -> list[str]:
    made: list[str] = []

    def record(_push: Connection, image: Reference, cache: Reference | None, *_others: object) -> None:
        made.extend([image.repository, *([cache.repository] if cache else [])])

    monkeypatch.setattr(ecr_repositories, "ensure_repositories", record)
    settings = Settings.model_validate(values)
    context = PipelineContext(
        settings=settings,
        work=Path("work"),
        choose_engine=no_run,
        run=no_run,
        reporter=SilentReporter(),
        environ={},
        learn=lambda _secrets: None,
    )
    engine: Engine = ENGINES[name](settings, no_run, {})
    if repositories := engine.repositories(wanted.destination):
        create_repositories(wanted.push, repositories, context)
    return made


def wanted(kind: str = "ecr", output: str = f"docker://{HOST}/team/wine:1") -> PackagingRequest:

    push = Connection.model_validate({"id": "c", "spec": {"type": kind, "uri": f"{HOST}/team"}})
    return replace(request(), push=push, destination=Destination.parse(output, Reference.parse("localhost/x:1")))


@pytest.mark.parametrize(
    ("engine", "settings", "expected"),
    [
        ("buildah", {}, [f"{HOST}/team/wine"]),
        ("kaniko", {}, [f"{HOST}/team/wine", f"{HOST}/team/wine/cache"]),
        ("kaniko", {"kaniko_cache": False}, [f"{HOST}/team/wine"]),
        ("kaniko", {"kaniko_cache_repo": f"{HOST}/c"}, [f"{HOST}/team/wine", f"{HOST}/c"]),
        ("oci", {}, [f"{HOST}/team/wine", f"{HOST}/team/wine/cache"]),
        ("oci", {"environment_cache": False}, [f"{HOST}/team/wine"]),
        ("kaniko", {"ecr_create_repositories": False}, []),
    ],
)
def test_repositories_by_engine_and_settings(
    monkeypatch: pytest.MonkeyPatch, engine: str, settings: dict[str, Any], expected: list[str]
) -> None:
    assert asked(monkeypatch, wanted(), engine, **settings) == expected


def test_other_destinations_create_no_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, wanted("docker"), "kaniko") == []
    assert asked(monkeypatch, wanted(output="oci:layout"), "buildah") == []
