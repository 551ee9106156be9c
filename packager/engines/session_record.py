"""Records of Buildah sessions, so that the next session with the same storage can clean up after a killed one.

A record is a file in the container storage with the mark of the session's working containers. It is locked while the
session lives, and gets its name only after it is locked, so the record of a living session is never unlocked.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

_FOLDER = "packager-sessions"
_MAX_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class KilledSession:
    """A killed session, with the mark of its working containers."""

    file: Path
    mark: str

    def forget(self) -> None:
        """Remove the record, after the session's containers."""
        self.file.unlink(missing_ok=True)
        log.info("removed the working containers of a killed run")


@contextmanager
def recorded(storage: Path, mark: str) -> Iterator[None]:
    """Keep a session's record during the block; without a record if the storage can't store or lock it."""
    file = storage / _FOLDER / secrets.token_hex(8)
    handle = None
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = file.with_suffix(".new")
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.write(handle, mark.encode())
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fresh.rename(file)
    try:
        yield
    finally:
        if handle is not None:
            file.unlink(missing_ok=True)
            os.close(handle)


def killed_sessions(storage: Path) -> Iterator[KilledSession]:
    """Yield the killed sessions of a storage, each while its record is locked."""
    for file in sorted((storage / _FOLDER).glob("[0-9a-f]" * 16)):
        handle = None
        try:
            handle = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield KilledSession(file=file, mark=os.read(handle, _MAX_BYTES).decode())
        except (OSError, UnicodeDecodeError) as error:
            log.debug("skipping %s: %s", file, error)  # mostly the record of a living session
        finally:
            if handle is not None:
                os.close(handle)
