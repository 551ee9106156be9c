"""Processes that have lost their parent: they become our children, and are ended with the others."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_STUCK = 5.0  # seconds after which a process that doesn't die of SIGKILL is given up


def adopt_orphans(*, adopt: bool = True) -> None:
    """Let every orphan below us become our child (prctl(2), PR_SET_CHILD_SUBREAPER), or no longer."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def children() -> set[int]:
    """Return our children, also those that have ended."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208  (pathlib is heavy)
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123  (it may have ended)
            if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                found.add(int(name))
    return found


def end_children(*, but: set[int]) -> None:
    """End our children and all below them, which become our children when their parents end."""
    kill_at = time.monotonic() + _GRACE
    asked: set[int] = set()
    while left := children() - but:
        now = time.monotonic()
        if now > kill_at + _STUCK:
            sys.stderr.write(f"packager: processes that don't die of SIGKILL: {sorted(left)}\n")
            return
        for pid in left:
            if not os.waitpid(pid, os.WNOHANG)[0] and (now > kill_at or pid not in asked):
                asked.add(pid)
                with suppress(PermissionError):  # a program that has become root
                    os.kill(pid, signal.SIGKILL if now > kill_at else signal.SIGTERM)
        time.sleep(0.01)


@contextmanager
def nothing_left() -> Iterator[None]:
    """End what the commands of the block leave behind, wherever it has gone."""
    before = children()
    adopt_orphans()
    try:
        yield
    finally:
        end_children(but=before)
        adopt_orphans(adopt=False)
