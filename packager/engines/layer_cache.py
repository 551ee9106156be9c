"""Which of the images that we built stay in the local storage, so that the next build finds their layers.

Each image that was built keeps a name `localhost/packager-cache/<repository's hash>:<time>`. The newest of a repository
stays, and the newest ten of all repositories; the others go, with the layers that no other image has.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

PREFIX = "localhost/packager-cache/"
_MAX_IMAGES = 10


def cache_name(repository: str, nanoseconds: int) -> str:
    """Return the name that an image keeps; `nanoseconds` since 1970 is when it was built."""
    return f"{PREFIX}{hashlib.sha256(repository.encode()).hexdigest()[:16]}:{nanoseconds:020d}"


def stale_names(names: Iterable[str]) -> list[str]:
    """Return those of the names whose images may go."""
    ours = [name.rpartition(":") for name in names if name.startswith(PREFIX)]
    newest: dict[str, str] = {}
    for repository, _, time in ours:
        newest[repository] = max(time, newest.get(repository, ""))
    kept = sorted(newest.items(), key=lambda item: item[1], reverse=True)[:_MAX_IMAGES]
    return sorted(f"{repository}:{time}" for repository, _, time in ours if (repository, time) not in kept)


class UseLock:
    """Keeps images from being removed while any build with the same storage may be using their layers."""

    def __init__(self, folder: Path) -> None:
        """Name the folder in which the lock's file lies, the storage's own; it is made when it's first needed."""
        self._path = folder / "packager-buildah.lock"

    @contextmanager
    def using(self) -> Iterator[None]:
        """Hold the lock together with other builds."""
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
        """Hold the lock alone; gives False, at once, where a build is running or there can be no lock."""
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
            log.debug("no lock at %s, so no built image is removed: %s", self._path, error)
            return None


def _try_alone(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
