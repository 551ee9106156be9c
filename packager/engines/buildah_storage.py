"""Buildah's local storage: images kept as a layer cache, the private folders of sessions, and free space.

Each built image keeps a name `localhost/packager-cache/<repository's hash>:<time>`. The newest image of a repository
stays, up to ten repositories; other images are removed, with the layers that no other image has.

A session's private folder is locked while the session lives, so that a killed session can be recognized. The lock file
says what the session would have removed. It is locked before it gets its name, so the lock of a living session is never
free; a folder without a lock is left alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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


SESSION_FOLDER_PREFIX = "packager-buildah-"
_LOCK = "lock"
_MAX_BYTES = 65536
MOUNTS = Path("/proc/self/mountinfo")
_ESCAPES = {ord(character): f"\\{ord(character):03o}" for character in " \t\n\\"}  # proc_pid_mountinfo(5)


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """The remains of a killed session: its folder, and the mark of its working containers."""

    folder: Path
    mark: str

    def remove(self) -> None:
        """Remove the folder, unless it contains mounts, whose content isn't ours."""
        path = str(self.folder.resolve()).translate(_ESCAPES)
        try:
            mounts = MOUNTS.read_text("utf-8", "surrogateescape")
            has_mounts = f" {path}/" in mounts or f" {path} " in mounts
        except OSError:
            has_mounts = True
        if has_mounts:
            log.warning("not removing %s of a killed run: it contains mounts", self.folder)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        log.info("removed the folder of a killed run: %s", self.folder)


@contextmanager
def locked(folder: Path, *, mark: str, storage: Path) -> Iterator[None]:
    """Hold the lock of a session's folder; do nothing if its file system doesn't support locks."""
    handle = None
    with suppress(OSError):
        fresh = folder / f"{_LOCK}.new"
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(handle, json.dumps({"mark": mark, "storage": str(storage)}).encode())
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fresh.rename(folder / _LOCK)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def leftovers(below: Path, *, storage: Path) -> Iterator[Leftover]:
    """Yield the remains of our user's killed sessions with the same storage, each while locked."""
    for folder in sorted(below.glob(f"{SESSION_FOLDER_PREFIX}*")):
        handle = None
        try:
            status = folder.lstat()
            if status.st_uid != os.geteuid():
                continue
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = json.loads(os.read(handle, _MAX_BYTES))
            if content["storage"] == str(storage):
                yield Leftover(folder=folder, mark=str(content["mark"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.debug("skipping %s: %s", folder, error)  # mostly the folder of a living session
        finally:
            if handle is not None:
                os.close(handle)


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
