"""The processes of one run, found by what their environment says, and ended."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import PackagerError
from packager.system.process_tree import processes

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "ODAHU_PACKAGING_RUN"  # an environment variable; one with our prefix would be taken for a setting
_STUCK_SECONDS = 10.0  # how long processes may take to die of SIGKILL
_PAUSE_SECONDS = 0.05


def run_processes(folder: Path) -> tuple[set[int], set[int]]:
    """Return the living processes of a run, and those of them that no other of them has started."""
    wanted = f"{MARK}={folder}".encode()
    table = {pid: entry for pid, entry in processes().items() if not entry.is_dead and pid != os.getpid()}
    found = {pid for pid in table if wanted in _environment(pid)}
    roots = {pid for pid in found if table[pid].parent not in found}
    below: dict[int, list[int]] = {}
    for entry in table.values():
        below.setdefault(entry.parent, []).append(entry.pid)
    queue = list(found)
    while queue:  # what has taken the mark out of its environment
        for child in below.get(queue.pop(), []):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found, roots


def _environment(pid: int) -> list[bytes]:
    try:
        return Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
    except OSError:  # it has just ended, or is another user's
        return []


def end_processes(folder: Path, grace: float, reap: Callable[[], object]) -> None:
    """End all of a run: SIGTERM to its first process, which ends the others; SIGKILL to all after `grace` seconds.

    Raises:
        PackagerError: Some don't die.
    """
    kill_at = time.monotonic() + grace
    asked: set[int] = set()
    while (found := run_processes(folder))[0]:
        living, roots = found
        now = time.monotonic()
        if now > kill_at + _STUCK_SECONDS:
            raise PackagerError(
                f"processes of {folder.name} don't die of SIGKILL: {sorted(living)}",
                hint="they wait for the kernel, mostly for a disk or a network file system",
            )
        for pid in living if now > kill_at else roots - asked:
            asked.add(pid)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if now > kill_at else signal.SIGTERM)
        time.sleep(_PAUSE_SECONDS)
        reap()
