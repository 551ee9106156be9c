"""What the integration tests share: registries, a container storage of their own, and a base image of 3 MB."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.front import serve_front
from tests.integration.registry import serve_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.front import FaultProxy
    from tests.integration.registry import Registry

TINY_BASE = "localhost/tiny-base:1"
# What takes minutes is begun first: with a file to a process, the last one to end would be alone for as long.
_LONGEST = (
    "test_tutorials",
    "test_packaging",
    "test_kaniko_job",
    "test_oci",
    "test_api_client",
    "test_secrets",
    "test_storage",
    "test_model_check",
    "test_oci_environment",
    "test_oci_images",
    "test_api_executors",
    "test_api_schema",
    "test_registry_table",
    "test_serving_pythons",
    "test_rendered_pod",
    "test_api_replicas",
    "test_api_logs",
    "test_labextension_build",
    "test_buildah",
    "test_ecr",
    "test_jupyterlab_panel",
    "test_api_image",
)
_PROGRAMS = ("dash", "cat", "sleep")
_DOCKERFILE = 'FROM scratch\nCOPY root /\nENV PATH=/usr/local/bin:/usr/bin:/bin\nCMD ["/bin/sh"]\n'


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    sizes = Counter(item.path for item in items)

    def turn(item: pytest.Item) -> tuple[int, int, str]:
        place = _LONGEST.index(item.path.stem) if item.path.stem in _LONGEST else len(_LONGEST)
        return place, -sizes[item.path], str(item.path)

    items.sort(key=turn)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that lets everyone in."""
    with serve_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def password_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that wants the password."""
    with serve_registry(tmp_path_factory.mktemp("password-registry"), with_password=True) as running:
        yield running


@pytest.fixture
def front(registry: Registry) -> Iterator[FaultProxy]:
    """What stands before that registry."""
    with serve_front(registry) as serving:
        yield serving


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment whose container storage is the tests' own."""
    folder = tmp_path_factory.mktemp("storage")
    driver = "overlay" if os.geteuid() == 0 else "vfs"
    with container_storage(folder, driver=driver) as environ:
        yield environ


def container_storage(folder: Path, *, driver: str) -> _Storage:
    return _Storage(folder, driver)


class _Storage:
    """A container storage below a folder, for a `with` block; gives the environment that selects it."""

    def __init__(self, folder: Path, driver: str) -> None:
        self._folder = folder
        config = folder / "storage.conf"
        places = {"driver": driver, "graphroot": str(folder / "graph"), "runroot": str(folder / "run")}
        config.write_text("[storage]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in places.items()))
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "CONTAINERS_STORAGE_CONF": str(config),
        }

    def __enter__(self) -> dict[str, str]:
        return self.environ

    def __exit__(self, *_error: object) -> None:
        for words in (["rm", "--all"], ["rmi", "--all", "--force"]):
            subprocess.run(["buildah", *words], env=self.environ, check=False, capture_output=True)
        overlay = self._folder / "graph" / "overlay"  # the driver mounts it on itself
        if overlay.is_mount():
            subprocess.run(["umount", str(overlay)], check=True)


@pytest.fixture(scope="session")
def tiny_base(storage: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base image in that storage: this machine's dash, cat and sleep with their glibc, and a `python3` to look at."""
    folder = tmp_path_factory.mktemp("tiny-base")
    write_root(folder / "root")
    (folder / "Dockerfile").write_text(_DOCKERFILE)
    words = ["build", "--layers=false", "--timestamp", "1700000000", "--identity-label=false", "--tag", TINY_BASE]
    subprocess.run(["buildah", *words, str(folder)], env=storage, check=True, capture_output=True)
    return TINY_BASE


def write_root(root: Path) -> None:
    """Fill a folder with the programs of the tiny base and every library that they need."""
    (root / "bin").mkdir(parents=True)
    (root / "tmp").mkdir()
    for name in _PROGRAMS:
        program = Path(str(shutil.which(name))).resolve()
        shutil.copy2(program, root / "bin" / name)
        listed = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
        for library in (word for word in listed.split() if word.startswith("/")):
            place = root / library.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(library, place)
    (root / "bin" / "sh").symlink_to("dash")
    (root / "usr" / "bin").mkdir(parents=True, exist_ok=True)
    (root / "usr" / "bin" / "python3.11").write_text("#!/bin/sh\necho never run > /proof\n")
    (root / "usr" / "bin" / "python3").symlink_to("/etc/alternatives/python3")
    (root / "etc" / "alternatives").mkdir(parents=True)
    (root / "etc" / "alternatives" / "python3").symlink_to("/usr/bin/python3.11")
