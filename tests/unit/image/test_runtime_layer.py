from __future__ import annotations

from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest

from packager.errors import DependenciesError, PackagerError
from packager.image.planner import SERVER_LABEL, make_plan
from packager.image.runtime_layer import check_python, runtime_contents
from tests.unit.builders import prepared, request

FOLDER = PurePosixPath("/opt/odahu/runtime")


def test_the_runtime_comes_with_its_own_server_and_nothing_compiled() -> None:
    contents = runtime_contents(FOLDER)
    names = [str(content.destination.relative_to(FOLDER)) for content in contents]
    assert names == sorted(names, key=PurePosixPath)
    assert {"__main__.py", "odahu_runtime/server.py", "vendor/gunicorn/__init__.py"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith("RECORD")]
    assert all(isinstance(content.source, Path) and content.source.is_file() for content in contents)


def test_a_server_of_the_images_python_lies_beside_ours(tmp_path: Path) -> None:
    core = tmp_path / "granian" / "_granian.so"
    core.parent.mkdir()
    core.write_bytes(b"")
    before, after = runtime_contents(FOLDER), runtime_contents(FOLDER, tmp_path)
    [added] = [content for content in after if content not in before]
    assert (added.source, added.destination) == (core, FOLDER / "vendor" / "granian" / "_granian.so")


def test_a_damaged_installation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(PackagerError, match="gunicorn is not installed beside the packager"):
        runtime_contents(FOLDER)


@pytest.mark.parametrize("version", ["3.8", "3.11", "3.13", "4.0"])
def test_a_python_that_the_runtime_knows_is_taken(version: str) -> None:
    check_python(version)


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_an_older_python_is_refused(version: str) -> None:
    with pytest.raises(DependenciesError, match=r"the serving runtime needs 3\.8 or later") as caught:
        check_python(version)
    assert caught.value.exit_code == 20


@pytest.mark.parametrize(("server", "label"), [("granian 1.2", "granian 1.2"), ("", None)])
def test_the_server_is_a_label_of_images_that_serve(server: str, label: str | None) -> None:
    assert dict(make_plan(request(), prepared(server=server)).config.labels).get(SERVER_LABEL) == label
