"""Blobs -> a layout on this machine, and a layout -> one file."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from packager.engines.local_outputs import add_docker_manifest, write_docker_archive, write_oci_archive
from packager.engines.oci.destinations import LayoutSink
from packager.engines.oci.image import Document
from packager.errors import BuildError
from packager.models.image import OCI_CONFIG, OCI_MANIFEST, Descriptor
from packager.models.reference import Reference
from packager.registry.blobs import BytesBlob

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHEN = datetime(2024, 1, 2, tzinfo=timezone.utc)
NAME = Reference.parse("r.io/models/wine:1")
TAR = "application/vnd.oci.image.layer.v1.tar"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob(data: bytes, media_type: str = TAR) -> BytesBlob:
    return BytesBlob(data=data, known=Descriptor(media_type=media_type, digest=digest_of(data), size=len(data)))


class BrokenBlob:
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def stream(self) -> Iterator[bytes]:
        yield b"x"
        if self.error:
            raise self.error

    def descriptor(self) -> None:
        return None


def make_layout(folder: Path, *layers: BytesBlob) -> LayoutSink:
    sink = LayoutSink(folder, NAME)
    for each in layers:
        sink.send(each)
    diff_ids = [
        digest_of(gzip.decompress(each.data) if "gzip" in each.known.media_type else each.data) for each in layers
    ]
    config = Document.of({"rootfs": {"diff_ids": diff_ids}}, OCI_CONFIG)
    content = {"config": config.descriptor.to_dict(), "layers": [each.known.to_dict() for each in layers]}
    sink.finish(config, Document.of(content, OCI_MANIFEST))
    return sink


def test_a_layout(tmp_path: Path) -> None:
    sink = make_layout(tmp_path / "layout", blob(b"one"), blob(b"two"))
    assert sink.has(digest_of(b"one"))
    assert not sink.has(digest_of(b"three"))
    (entry,) = json.loads((sink.folder / "index.json").read_text())["manifests"]
    assert entry["annotations"] == {
        "org.opencontainers.image.ref.name": "r.io/models/wine:1",
        "io.containerd.image.name": "r.io/models/wine:1",
    }
    assert entry["mediaType"] == OCI_MANIFEST
    assert json.loads((sink.folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    files = sorted((sink.folder / "blobs" / "sha256").iterdir())
    assert len(files) == 4
    assert all(
        digest_of(file.read_bytes()).endswith(file.name) and file.stat().st_mode & 0o777 == 0o644 for file in files
    )


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BuildError("gone"), None])
def test_a_blob_that_fails_leaves_nothing(tmp_path: Path, error: Exception | None) -> None:
    sink = LayoutSink(tmp_path / "layout", NAME)
    with pytest.raises(type(error) if error else BuildError):
        sink.send(BrokenBlob(error))
    assert not list((tmp_path / "layout/blobs/sha256").iterdir())


def test_an_oci_archive_is_the_layout_and_the_same_each_time(tmp_path: Path) -> None:
    archives = []
    for number in (1, 2):
        sink = make_layout(tmp_path / f"layout-{number}", blob(b"one"), blob(b"two"))
        file = tmp_path / f"archive-{number}"
        write_oci_archive(sink.folder, file, WHEN)
        add_docker_manifest(file, NAME, WHEN)
        archives.append(file.read_bytes())
    assert archives[0] == archives[1]
    with tarfile.open(fileobj=io.BytesIO(archives[0])) as archive:
        *names, last = archive.getnames()
        assert names == sorted(names)
        assert last == "manifest.json"
        assert {"index.json", "oci-layout", f"blobs/sha256/{digest_of(b'one')[7:]}"} <= set(names)
        assert {(member.mode, member.uid, member.mtime) for member in archive} == {(0o644, 0, int(WHEN.timestamp()))}


def test_an_oci_archive_has_docker_s_manifest_as_well(tmp_path: Path) -> None:
    sink = make_layout(tmp_path / "layout", blob(b"one"), blob(gzip.compress(b"two"), f"{TAR}+gzip"))
    write_oci_archive(sink.folder, tmp_path / "archive", WHEN)
    add_docker_manifest(tmp_path / "archive", NAME, WHEN)
    manifest, files = read_docker_archive(tmp_path / "archive")
    assert manifest["RepoTags"] == ["r.io/models/wine:1"]
    assert "rootfs" in json.loads(files[manifest["Config"]])
    assert [files[name][:2] for name in manifest["Layers"]] == [b"on", b"\x1f\x8b"]
    assert set(files) == {"index.json", "manifest.json", "oci-layout", *(n for n in files if n.startswith("blobs/"))}


def read_docker_archive(file: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    with tarfile.open(file) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    (manifest,) = json.loads(files["manifest.json"])
    return manifest, files


def test_a_docker_archive_has_the_layers_unpacked(tmp_path: Path) -> None:
    packed = blob(gzip.compress(b"two" * 1000, mtime=0), f"{TAR}+gzip")
    sink = make_layout(tmp_path / "layout", blob(b"one"), packed, blob(b"one"))  # the same layer twice
    for name in ("first", "second"):
        write_docker_archive(sink.folder, tmp_path / name, NAME, WHEN)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    manifest, files = read_docker_archive(tmp_path / "first")
    assert manifest["RepoTags"] == ["r.io/models/wine:1"]
    assert [digest_of(files[name]) for name in manifest["Layers"]] == [
        digest_of(b"one"),
        digest_of(b"two" * 1000),
        digest_of(b"one"),
    ]
    assert digest_of(files[manifest["Config"]]) == f"sha256:{manifest['Config'].removesuffix('.json')}"
    assert len(files) == 4


def test_a_docker_archive_knows_no_zstd(tmp_path: Path) -> None:
    sink = make_layout(tmp_path / "layout", blob(b"one", f"{TAR}+zstd"))
    with pytest.raises(BuildError, match=r"no layers of the type .*zstd") as caught:
        write_docker_archive(sink.folder, tmp_path / "file", NAME, WHEN)
    assert "oci-archive" in caught.value.hint
