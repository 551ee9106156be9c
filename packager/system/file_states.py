"""The state of all files below a folder, to see later whether one was changed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    FileStates = dict[str, tuple[int, ...]]

WRITE_BITS = 0o222


def file_states(folder: Path) -> FileStates:
    """Return inode, mode, size and times of everything below a folder, by its whole path.

    The time of a change (`ctime`) can't be set back, so that no change stays unseen.
    """
    found: FileStates = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(place, name)  # noqa: PTH118  (tens of thousands of them)
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                # Another run that uses the same folder may lock it meanwhile.
                found[path] = (status.st_ino, status.st_mode & ~WRITE_BITS)
            else:
                found[path] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found
