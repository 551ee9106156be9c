"""Putting a finished OCI layout where it was asked for: whole or not at all.

The layout's format: github.com/opencontainers/image-spec, image-layout.md.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from packager.errors import BuildError
from packager.models.image import REF_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

_ANOTHER_PLACE = "name a new folder, or a layout that is to be extended"
_BROKEN = "mend the layout, or name a new folder"


@contextmanager
def staging_beside(target: Path) -> Iterator[Path]:
    """Give a private folder on the file system of `target`, whose parents are made; it is removed at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name[:100]}-", dir=target.parent) as folder:
        yield Path(folder)


def check_layout_target(target: Path) -> None:
    """Refuse a target that is neither new, nor an empty folder, nor an OCI layout with an index.

    Raises:
        BuildError: It is something else, which must not be overwritten, or a layout that is broken.
    """
    if (target / "oci-layout").is_file():
        _read_index(target / "index.json")
    elif target.is_dir():
        if any(target.iterdir()):
            raise BuildError(
                f"{target} is no OCI layout: it isn't empty, and has no file oci-layout", hint=_ANOTHER_PLACE
            )
    elif target.exists():
        raise BuildError(f"{target} is no OCI layout, but a file", hint=_ANOTHER_PLACE)


def publish_layout(staged: Path, target: Path) -> None:
    """Move a layout to its place, or add its images to the layout that is there.

    In a layout that is extended, an image of the same name is replaced in the index; its blobs stay. The blobs come
    first and the index last, so that a reader never sees an image that isn't whole.

    Raises:
        BuildError: The target is no layout, or a broken one.
    """
    handle = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # against other packagers
        check_layout_target(target)
        staged.chmod(0o755)
        if not (target / "oci-layout").exists():
            staged.rename(target)  # onto an empty folder as well: rename(2)
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
    """Read a layout's list of images, and check what is used of it."""
    try:
        index = json.loads(path.read_bytes())
    except OSError as error:
        raise BuildError(f"{path} of the OCI layout can't be read: {error.strerror}", hint=_BROKEN) from error
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{path} of the OCI layout is no JSON: {str(error)[:200]}", hint=_BROKEN) from error
    entries = index.get("manifests", []) if isinstance(index, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("annotations") or {}, dict) for entry in entries
    ):
        raise BuildError(f"{path} of the OCI layout is no list of images", hint=_BROKEN)
    return dict(index)


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    names = {_name(entry) for entry in new["manifests"]}
    kept = [entry for entry in old.get("manifests", []) if _name(entry) not in names]
    return {**old, "manifests": [*kept, *new["manifests"]]}


def _name(entry: dict[str, Any]) -> str | None:
    name = (entry.get("annotations") or {}).get(REF_NAME)
    return None if name is None else str(name)
