"""Which folders have no room left, measured after a command has failed."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NEARLY_FULL = 16 << 20  # bytes
_HEADER = 1024  # bytes; what a file of a layer takes besides its content: a header, and the padding of 512 byte blocks


def full_folders(folders: Iterable[Path], *, needed: int = 0) -> tuple[str, ...]:
    """Return the folders with less than 16 MB free, or less than `needed` bytes.

    `needed` is for a command that removes its temporary files as it fails: the space that it ran out of is free again.
    """
    return tuple(str(folder) for folder in dict.fromkeys(folders) if _free(folder) < max(NEARLY_FULL, needed))


def layer_size(context: Path) -> int:
    """Return the most bytes that a layer made of a context takes."""
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
