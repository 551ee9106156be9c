"""Which ECR repositories a run makes sure of, by its engine, its destination and its settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import pytest

from packager.engines import RegistryAccess
from packager.models.connection import Connection
from packager.models.reference import Destination, Reference
from packager.pipeline import Tools, _create_repositories
from packager.plan import BaseImage
from packager.progress import SilentReporter
from packager.registry import ecr_repositories
from packager.request import PackagingRequest
from packager.settings import Settings
from tests.unit.builders import request

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


class NoEngine:
    """An engine that must not be asked for anything."""

    def __init__(self, name: str) -> None:
        self.name = name

    def inspect_base(self, reference: Reference, access: RegistryAccess) -> BaseImage:
        raise AssertionError((reference, access))

    def build(self, *_words: object) -> NoReturn:
        raise AssertionError


def no_run(*words: object, **_others: object) -> NoReturn:
    raise AssertionError(words)


def asked(monkeypatch: pytest.MonkeyPatch, wanted: PackagingRequest, engine: str, **settings: Any) -> list[str]:
    made: list[str] = []

    def record(_push: Connection, image: Reference, cache: Reference | None, *_others: object) -> None:
        made.extend([str(image), *([str(cache)] if cache else [])])

    monkeypatch.setattr(ecr_repositories, "ensure_repositories", record)
    tools = Tools(
        settings=Settings.model_validate(settings),
        engine=NoEngine(engine),
        run=no_run,
        reporter=SilentReporter(),
        environ={},
        learn=lambda _secrets: None,
    )
    _create_repositories(wanted, tools)
    return made


def wanted(kind: str = "ecr", output: str = f"docker://{HOST}/team/wine:1") -> PackagingRequest:

    push = Connection.model_validate({"id": "c", "spec": {"type": kind, "uri": f"{HOST}/team"}})
    return replace(request(), push=push, destination=Destination.parse(output, Reference.parse("localhost/x:1")))


@pytest.mark.parametrize(
    ("engine", "settings", "expected"),
    [
        ("buildah", {}, [f"{HOST}/team/wine:1"]),
        ("kaniko", {}, [f"{HOST}/team/wine:1", f"{HOST}/team/wine/cache:latest"]),
        ("kaniko", {"kaniko_cache": False}, [f"{HOST}/team/wine:1"]),
        ("kaniko", {"kaniko_cache_repo": f"{HOST}/c"}, [f"{HOST}/team/wine:1", f"{HOST}/c:latest"]),
        ("kaniko", {"ecr_create_repositories": False}, []),
    ],
)
def test_by_engine_and_settings(
    monkeypatch: pytest.MonkeyPatch, engine: str, settings: dict[str, Any], expected: list[str]
) -> None:
    assert asked(monkeypatch, wanted(), engine, **settings) == expected


def test_nothing_is_made_for_other_destinations(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, wanted("docker"), "kaniko") == []
    assert asked(monkeypatch, wanted(output="oci:layout"), "buildah") == []
