"""Buildah's local storage: images kept as a layer cache, and free space.

Each built image keeps a name `localhost/packager-cache/<repository's hash>:<time>`. The newest image of a repository
stays, up to ten repositories; other images are removed, with the layers that no other image has.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

CACHE_IMAGE_PREFIX = "localhost/packager-cache/"
_MAX_IMAGES = 10


def cache_name(repository: str, nanoseconds: int) -> str:
    """Return the cache name of an image that was built at `nanoseconds` since 1970."""
    return f"{CACHE_IMAGE_PREFIX}{hashlib.sha256(repository.encode()).hexdigest()[:16]}:{nanoseconds:020d}"


def stale_names(names: Iterable[str]) -> list[str]:
    """Return the names of images to remove."""
    ours = [name.rpartition(":") for name in names if name.startswith(CACHE_IMAGE_PREFIX)]
    newest: dict[str, str] = {}
    for repository, _, time in ours:
        newest[repository] = max(time, newest.get(repository, ""))
    kept = sorted(newest.items(), key=lambda item: item[1], reverse=True)[:_MAX_IMAGES]
    return sorted(f"{repository}:{time}" for repository, _, time in ours if (repository, time) not in kept)


class UseLock:
    """A lock that prevents the removal of images while a build may use their layers."""

    def __init__(self, folder: Path) -> None:
        """Use a lock file in `folder`, that of the storage; it is created when needed."""
        self._path = folder / "packager-buildah.lock"

    @contextmanager
    def using(self) -> Iterator[None]:
        """Hold the shared lock."""
        handle = self._open()
        try:
            if handle is not None:
                fcntl.flock(handle, fcntl.LOCK_SH)
            yield
        finally:
            if handle is not None:
                os.close(handle)

    @contextmanager
    def removing(self) -> Iterator[bool]:
        """Hold the exclusive lock; yields False immediately if a build is running or locking is impossible."""
        handle = self._open()
        try:
            yield handle is not None and _try_alone(handle)
        finally:
            if handle is not None:
                os.close(handle)

    def _open(self) -> int | None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.debug("cannot lock %s, so no images are removed: %s", self._path, error)
            return None


def _try_alone(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


NEARLY_FULL = 16 << 20  # bytes
_HEADER = 1024  # bytes; a file's tar header, and its padding to 512 byte blocks


def full_folders(folders: Iterable[Path], *, needed: int = 0) -> tuple[str, ...]:
    """Return the folders with less than 16 MB free, or less than `needed` bytes.

    `needed` is for commands that remove their temporary files on failure, so that the space is free again.
    """
    return tuple(str(folder) for folder in dict.fromkeys(folders) if _free(folder) < max(NEARLY_FULL, needed))


def layer_size(context: Path) -> int:
    """Return the maximum size of a layer made from a context, in bytes."""
    size = 0
    for folder, _, names in os.walk(context):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(folder, name)).st_size + _HEADER  # noqa: PTH118  (it can be 100,000)
    return size


def _free(folder: Path) -> float:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return float("inf")
