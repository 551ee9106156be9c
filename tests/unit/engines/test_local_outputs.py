"""Putting an OCI layout in its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from packager.engines.local_outputs import check_layout_target, publish_layout, staging_beside
from packager.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

REF = "org.opencontainers.image.ref.name"


def write_layout(folder: Path, images: dict[str, str]) -> Path:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for content in images.values():
        (blobs / content).write_text(content)
    manifests = [{"digest": f"sha256:{content}", "annotations": {REF: name}} for name, content in images.items()]
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def images(folder: Path) -> dict[str, str]:
    index = json.loads((folder / "index.json").read_text())
    return {entry["annotations"][REF]: entry["digest"] for entry in index["manifests"]}


@pytest.mark.parametrize("exists", [True, False])
def test_a_new_layout(tmp_path: Path, *, exists: bool) -> None:
    target = tmp_path / "out"
    if exists:
        target.mkdir()
    publish_layout(write_layout(tmp_path / "staged", {"1": "aa"}), target)
    assert images(target) == {"1": "sha256:aa"}
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_layout_is_extended_and_a_name_replaced(tmp_path: Path) -> None:
    target = write_layout(tmp_path / "out", {"1": "aa", "2": "bb"})
    publish_layout(write_layout(tmp_path / "staged", {"2": "cc", "3": "aa"}), target)
    assert images(target) == {"1": "sha256:aa", "2": "sha256:cc", "3": "sha256:aa"}
    assert sorted(path.name for path in (target / "blobs/sha256").iterdir()) == ["aa", "bb", "cc"]
    assert sorted(path.name for path in target.iterdir()) == ["blobs", "index.json", "oci-layout"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_layout_is_left_alone(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("x")
    else:
        target.mkdir()
        (target / "x").touch()
    with pytest.raises(BuildError, match="not an OCI layout"):
        check_layout_target(target)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "can't be read: No such file"),
        (b'{"manifests": [', "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not an image index"),
        (b'{"manifests": {}}', "is not an image index"),
        (b'{"manifests": null}', "is not an image index"),
        (b'{"manifests": ["a"]}', "is not an image index"),
        (b'{"manifests": [{"annotations": "a"}]}', "is not an image index"),
    ],
)
def test_a_broken_layout_is_refused_and_its_file_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    target = write_layout(tmp_path / "out", {"1": "aa"})
    (target / "index.json").unlink()
    if content is not None:
        (target / "index.json").write_bytes(content)
    with pytest.raises(BuildError) as caught:
        check_layout_target(target)
    assert caught.value.message.startswith(f"{target}/index.json of the OCI layout {says}")
    assert caught.value.hint


def test_a_layout_without_its_mark_is_told_so(tmp_path: Path) -> None:
    target = write_layout(tmp_path / "out", {"1": "aa"})
    (target / "oci-layout").unlink()
    with pytest.raises(BuildError, match="has no file oci-layout"):
        check_layout_target(target)


def test_the_staging_folder_is_beside_the_target_and_removed(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with staging_beside(target) as staging:
        assert staging.parent == target.parent
        (staging / "x").touch()
    assert list(target.parent.iterdir()) == []
