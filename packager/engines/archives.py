"""A finished OCI layout as one file: an OCI archive, or docker's.

Formats: the layout's, tarred; and docker's image specification v1.2, "Combined Image JSON + Filesystem Changeset
Format". An OCI archive gets docker's `manifest.json` besides, as in what `docker save` writes since Docker 25: Docker's
classic image store reads no other file (moby/moby, image/tarexport/load.go).
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any, BinaryIO

from packager.errors import BuildError
from packager.models.image import blob_path

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from packager.models.reference import Reference

_FILE_MODE = 0o644


def write_oci_archive(layout: Path, file: Path, timestamp: datetime) -> None:
    """Write a layout into one tar; equal layouts give equal bytes."""
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(path for path in layout.rglob("*") if path.is_file()):
            with path.open("rb") as content:
                _add(archive, str(path.relative_to(layout)), content, timestamp)


def add_docker_manifest(file: Path, reference: Reference, timestamp: datetime) -> None:
    """Add docker's `manifest.json` to an OCI archive of one image; it names the blobs that are there."""
    with tarfile.open(file, "r:") as archive:
        (entry,) = _read_json(archive, "index.json")["manifests"]
        manifest = _read_json(archive, blob_path(entry["digest"]))
    config, layers = blob_path(manifest["config"]["digest"]), [blob_path(each["digest"]) for each in manifest["layers"]]
    with tarfile.open(file, "a:", format=tarfile.PAX_FORMAT) as archive:
        _add_manifest(archive, config, layers, reference, timestamp)


def _read_json(archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    content = archive.extractfile(name)
    if content is None:
        raise BuildError(f"the archive {archive.name!r} has no file {name}")
    return dict(json.load(content))


def _add_manifest(
    archive: tarfile.TarFile, config: str, layers: list[str], reference: Reference, timestamp: datetime
) -> None:
    content = json.dumps([{"Config": config, "RepoTags": [reference.tagged], "Layers": layers}]).encode()
    _add(archive, "manifest.json", io.BytesIO(content), timestamp)


def write_docker_archive(layout: Path, file: Path, reference: Reference, timestamp: datetime) -> None:
    """Write the layout's one image as `docker save` does: the config, the unpacked layers, and what names them.

    Raises:
        BuildError: A layer is packed in a way that docker's archives don't know.
    """
    entry = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    manifest: dict[str, Any] = json.loads((layout / blob_path(entry["digest"])).read_bytes())
    config = layout / blob_path(manifest["config"]["digest"])
    diff_ids = json.loads(config.read_bytes())["rootfs"]["diff_ids"]
    names = [f"{diff_id.removeprefix('sha256:')}.tar" for diff_id in diff_ids]
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        written: set[str] = set()
        for name, layer in zip(names, manifest["layers"], strict=True):
            if name not in written:  # an image may have the same layer twice
                written.add(name)
                _add_unpacked(archive, name, layout / blob_path(layer["digest"]), layer["mediaType"], timestamp)
        _add(archive, f"{config.name}.json", io.BytesIO(config.read_bytes()), timestamp)
        _add_manifest(archive, f"{config.name}.json", names, reference, timestamp)


def _add_unpacked(archive: tarfile.TarFile, name: str, layer: Path, media_type: str, timestamp: datetime) -> None:
    if media_type.endswith("gzip"):
        with gzip.open(layer) as content:
            size = sum(len(chunk) for chunk in iter(lambda: content.read(1 << 20), b""))
        with gzip.open(layer) as content:
            _add(archive, name, content, timestamp, size=size)
    elif media_type.endswith("tar"):
        with layer.open("rb") as plain:
            _add(archive, name, plain, timestamp)
    else:
        raise BuildError(
            f"docker's archives have no layers of the type {media_type}", hint="write an oci-archive: output instead"
        )


def _add(
    archive: tarfile.TarFile,
    name: str,
    content: BinaryIO | gzip.GzipFile,
    timestamp: datetime,
    *,
    size: int | None = None,
) -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.mtime = _FILE_MODE, int(timestamp.timestamp())
    member.size = content.seek(0, os.SEEK_END) if size is None else size
    content.seek(0)
    archive.addfile(member, content)
