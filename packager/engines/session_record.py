"""What a session leaves for the next one with the same storage to remove, if it is killed: its working containers.

A file in the container storage says what they carry. It is locked as long as the session lives, and gets its name only
once it is locked: there is no moment at which a living session's file is there and free.
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
_MOST_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class KilledSession:
    """A session that did not get to its end, and what its working containers carry."""

    file: Path
    mark: str

    def forget(self) -> None:
        """Remove the record: nothing of the session is left."""
        self.file.unlink(missing_ok=True)
        log.info("removed the working containers that a killed run left")


@contextmanager
def recorded(storage: Path, mark: str) -> Iterator[None]:
    """Keep a session's record for the block. Where the storage can't hold or lock it, there is no record."""
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
    """Give the sessions with this storage that were killed, each while its record is locked."""
    for file in sorted((storage / _FOLDER).glob("[0-9a-f]" * 16)):
        handle = None
        try:
            handle = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield KilledSession(file=file, mark=os.read(handle, _MOST_BYTES).decode())
        except (OSError, UnicodeDecodeError) as error:
            log.debug("%s is left alone: %s", file, error)  # mostly of a living session
        finally:
            if handle is not None:
                os.close(handle)
