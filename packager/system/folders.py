"""Folders that are removed whole."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPES = {ord(character): f"\\{ord(character):03o}" for character in " \t\n\\"}  # proc_pid_mountinfo(5)
_MNT_DETACH = 2  # umount2(2)


def remove_folder(folder: Path | str) -> None:
    """Remove a folder, also where parts of it were made read-only; what can't be removed is named in the log.

    A killed program may have left mounts in it. They are taken away first: what lies below a mount isn't ours.
    """
    for mount in _mounts_below(folder):
        ctypes.CDLL(None).umount2(os.fsencode(mount), _MNT_DETACH)
    if not _mounts_below(folder):
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder) and not _mounts_below(folder):
        _make_removable(Path(folder))
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        log.warning("the folder %s can't be removed entirely; remove it by hand", folder)


def _mounts_below(folder: Path | str) -> list[str]:
    """Return the mount points in a folder, those in others first."""
    with suppress(OSError):
        lines = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
        below = f"{os.path.realpath(folder).translate(_ESCAPES)}/"
        points = [line.split(" ")[4] for line in lines]
        return [f"{folder}/{point[len(below) :]}" for point in reversed(points) if point.startswith(below)]
    return []


def _make_removable(folder: Path) -> None:
    """Let the owner remove what lies in the folders: their modes count, not those of the files."""
    with suppress(OSError):
        folder.chmod(0o700)
    for place, names, _ in os.walk(folder):
        for path in (Path(place, name) for name in names):
            with suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)
