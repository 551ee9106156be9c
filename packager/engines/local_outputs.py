"""Local outputs: OCI layouts, OCI archives and docker archives, written completely or not at all.

Formats: github.com/opencontainers/image-spec, image-layout.md; docker's image specification v1.2, "Combined Image JSON
+ Filesystem Changeset Format". An OCI archive also gets docker's `manifest.json`, as `docker save` has written it since
Docker 25: Docker's classic image store reads no other file (moby/moby, image/tarexport/load.go).
"""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import tarfile
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

from packager.errors import BuildError, DiskFullError, is_disk_full
from packager.models.image import REF_NAME, blob_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from packager.models.reference import Reference


@contextmanager
def convert_write_errors(path: Path) -> Iterator[None]:
    """Convert OSErrors of writing to `path` into our errors.

    Raises:
        DiskFullError: The disk is full.
        BuildError: Writing failed for another reason.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"no space left at {path}", hint="free disk space there, then run it again") from error
        raise BuildError(f"{path} can't be written: {error.strerror}", hint="use another path") from error


_ANOTHER_PLACE = "use a new folder, or an existing OCI layout to extend"
_BROKEN = "repair the layout, or use a new folder"


@contextmanager
def staging_beside(target: Path) -> Iterator[Path]:
    """Create a private folder beside `target` for the block; parents of `target` are created."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name[:100]}-", dir=target.parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def check_layout_target(target: Path) -> None:
    """Reject a target that is neither new, nor an empty folder, nor an OCI layout with an index.

    Raises:
        BuildError: It is something else, which must not be overwritten, or a damaged layout.
    """
    if (target / "oci-layout").is_file():
        _read_index(target / "index.json")
    elif target.is_dir():
        if any(target.iterdir()):
            raise BuildError(
                f"{target} is not an OCI layout: it is not empty and has no file oci-layout", hint=_ANOTHER_PLACE
            )
    elif target.exists():
        raise BuildError(f"{target} is a file, not an OCI layout", hint=_ANOTHER_PLACE)


def publish_layout(staged: Path, target: Path) -> None:
    """Move a staged layout to the target, or add its images to an existing layout.

    An image of the same name is replaced in the existing index; its blobs stay. Blobs are added before the index, so
    that a reader never sees an incomplete image.

    Raises:
        BuildError: The target is not a layout, or is damaged.
    """
    handle = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # excludes other packagers
        check_layout_target(target)
        staged.chmod(0o755)
        if not (target / "oci-layout").exists():
            staged.rename(target)  # also replaces an empty folder: rename(2)
            return
        for blob in sorted((staged / "blobs").glob("*/*")):
            place = target / blob.relative_to(staged)
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                blob.rename(place)
        index = _merged(_read_index(target / "index.json"), _read_index(staged / "index.json"))
        fresh = staged / "index.json.new"
        fresh.write_text(json.dumps(index))
        fresh.chmod(0o644)
        fresh.replace(target / "index.json")
    finally:
        os.close(handle)


def _read_index(path: Path) -> dict[str, Any]:
    """Read a layout's index, and validate the used parts."""
    try:
        index = json.loads(path.read_bytes())
    except OSError as error:
        raise BuildError(f"{path} of the OCI layout can't be read: {error.strerror}", hint=_BROKEN) from error
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{path} of the OCI layout is not JSON: {str(error)[:200]}", hint=_BROKEN) from error
    entries = index.get("manifests", []) if isinstance(index, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("annotations") or {}, dict) for entry in entries
    ):
        raise BuildError(f"{path} of the OCI layout is not an image index", hint=_BROKEN)
    return dict(index)


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    names = {_name(entry) for entry in new["manifests"]}
    kept = [entry for entry in old.get("manifests", []) if _name(entry) not in names]
    return {**old, "manifests": [*kept, *new["manifests"]]}


def _name(entry: dict[str, Any]) -> str | None:
    name = (entry.get("annotations") or {}).get(REF_NAME)
    return None if name is None else str(name)


_FILE_MODE = 0o644


def write_oci_archive(layout: Path, file: Path, timestamp: datetime) -> None:
    """Write a layout as a tar archive; equal layouts give equal bytes."""
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(path for path in layout.rglob("*") if path.is_file()):
            with path.open("rb") as content:
                _add(archive, str(path.relative_to(layout)), content, timestamp)


def add_docker_manifest(file: Path, reference: Reference, timestamp: datetime) -> None:
    """Add docker's `manifest.json`, which refers to the existing blobs, to an OCI archive of one image."""
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
    """Write the layout's one image as `docker save` does: config, uncompressed layers and manifest.

    Raises:
        BuildError: A layer has a compression that docker archives don't support.
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
            f"docker archives don't support layers of type {media_type}", hint="use an oci-archive: output"
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
