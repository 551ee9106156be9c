"""Errors of a full disk."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from packager.errors import DiskFullError, is_disk_full

if TYPE_CHECKING:
    from collections.abc import Iterator

DISK_HINT = "set PACKAGER_WORK_DIR and PACKAGER_CACHE_DIR to folders on larger disks"


@contextmanager
def full_disk(doing: str) -> Iterator[None]:
    """Convert the OSError of a full disk or an exceeded quota into a DiskFullError."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"no space left while {doing}: {error.filename or ''}".rstrip(": "),
                hint=DISK_HINT,
            ) from error
        raise
