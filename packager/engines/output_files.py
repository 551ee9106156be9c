"""Writing at places that the user has named."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from packager.errors import BuildError, DiskFullError, is_disk_full

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def files_at(path: Path) -> Iterator[None]:
    """Turn what the operating system says against writing at `path` into our errors.

    Raises:
        DiskFullError: There is no space.
        BuildError: It can't be written for another reason.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"no space left at {path}", hint="make room there, then run it again") from error
        raise BuildError(f"{path} can't be written: {error.strerror}", hint="name another place for it") from error
