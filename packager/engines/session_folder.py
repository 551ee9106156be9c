"""A session's private folder: locked while the session lives, so that one that was killed can be told from it.

The lock's file says what the session would have removed. It is locked before it gets its name, so that there is no
moment at which a living session's lock is there and free; a folder without one is always left alone.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

PREFIX = "packager-buildah-"
_LOCK = "lock"
_MAX_BYTES = 65536
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPES = {ord(character): f"\\{ord(character):03o}" for character in " \t\n\\"}  # proc_pid_mountinfo(5)


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """What a killed session left: its folder, and what its working containers carry."""

    folder: Path
    mark: str

    def remove(self) -> None:
        """Remove the folder, unless something is mounted in it: what is below a mount isn't ours."""
        path = str(self.folder.resolve()).translate(_ESCAPES)
        try:
            mounts = _MOUNTS.read_text("utf-8", "surrogateescape")
            has_mounts = f" {path}/" in mounts or f" {path} " in mounts
        except OSError:
            has_mounts = True
        if has_mounts:
            log.warning("%s of a run that was killed has mounts in it, and stays", self.folder)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        log.info("removed what a run that was killed had left: %s", self.folder)


@contextmanager
def locked(folder: Path, *, mark: str, storage: Path) -> Iterator[None]:
    """Hold the lock of a session's folder. Without locks on its file system nothing is written, and all goes on."""
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
    """Give what our user's killed sessions with the same storage left, each while its lock is held."""
    for folder in sorted(below.glob(f"{PREFIX}*")):
        handle = None
        try:
            status = folder.lstat()
            if status.st_uid != os.geteuid():
                continue
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            note = json.loads(os.read(handle, _MAX_BYTES))
            if note["storage"] == str(storage):
                yield Leftover(folder=folder, mark=str(note["mark"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.debug("%s is left alone: %s", folder, error)  # a living session's, most often
        finally:
            if handle is not None:
                os.close(handle)
