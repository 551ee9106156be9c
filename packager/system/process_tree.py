"""A command's processes, found in /proc and ended together: no orphan and no zombie is left."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import Interrupted
from packager.system.signals import deferred_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # all of these: linux/prctl.h
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_STUCK_SECONDS = 5.0  # how long a process may take to die of SIGKILL before we give up on it
_GRACE = 2.0  # seconds between SIGTERM and SIGKILL for what a library has started
_NOBODY = -1  # in the place of the first process, where there are several or none
_libc = ctypes.CDLL(None)


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Make orphans below us our children (prctl(2), PR_SET_CHILD_SUBREAPER), until the end of the block."""
    before = ctypes.c_int(0)
    _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


@contextlib.contextmanager
def unreadable() -> Iterator[None]:
    """Keep our memory and our environment from other processes of our user, for the block (prctl(2), PR_SET_DUMPABLE).

    Programs that we start meanwhile are readable as always. Root with CAP_SYS_PTRACE is not kept out.
    """
    before = _libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_DUMPABLE, before, 0, 0, 0)


def dying_with_parent() -> Callable[[], None]:
    """Return what a child calls between fork and exec, so that the kernel sends it SIGTERM when we die.

    SIGTERM and not SIGKILL, so that Buildah hands it on to a RUN step, and removes its working container when that has
    ended. Between RUN steps Buildah dies of it at once, and the container stays; the Buildah engine's next session
    removes it, together with the folder of the session that left it (`engines.buildah_storage`).
    """
    parent, prctl = os.getpid(), _libc.prctl

    def die_with_parent() -> None:  # only system calls here, nothing that takes a lock
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(127)

    return die_with_parent


@dataclass(frozen=True)
class Entry:
    """What /proc/PID/stat says of a process (proc(5))."""

    pid: int
    state: str
    parent: int
    group: int
    session: int

    @property
    def is_dead(self) -> bool:
        """Whether it has ended and only waits to be reaped."""
        return self.state in "ZX"


def processes() -> dict[int, Entry]:
    """Return every process that can be seen, zombies as well."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  (it can be thousands of numbers)
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                fields = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
                found[int(name)] = Entry(int(name), fields[0].decode(), *(int(word) for word in fields[1:4]))
    return found


def children() -> frozenset[int]:
    """Return our own children."""
    return frozenset(entry.pid for entry in processes().values() if entry.parent == os.getpid())


_leaders: set[int] = set()  # the commands that run now, in any thread: their processes are each their own


class Family:
    """A command's first process, which leads a session of its own, and everything that comes of it."""

    def __init__(self, leader: int, *, strangers: frozenset[int]) -> None:
        """Name the first process, and the children that we had before it was started."""
        self._leader = leader
        self._strangers = strangers
        self._asked: set[int] = set()
        _leaders.add(leader)

    def living(self) -> list[int]:
        """Reap the adopted orphans that have ended, and return the processes that live."""
        living = []
        for entry in self._members():
            if not entry.is_dead:
                living.append(entry.pid)
            elif entry.parent == os.getpid() and entry.pid != self._leader:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(entry.pid, os.WNOHANG)
        return living

    def end(self, grace: float, reap_leader: Callable[[], object]) -> None:
        """End every process: SIGTERM, SIGKILL after `grace` seconds; reap them all, the first by `reap_leader`."""
        with deferred_stop():
            kill_at = time.monotonic() + grace
            reap_leader()
            # One of them may start another and end before it is looked at: it is found at the second look.
            while living := self.living() or self.living():
                now = time.monotonic()
                if now > kill_at + _STUCK_SECONDS:
                    log.warning("processes that don't die of SIGKILL: %s", living)
                    break
                for pid in living:
                    if now > kill_at:
                        _signal(pid, signal.SIGKILL)
                    elif pid not in self._asked:
                        self._asked.add(pid)
                        _signal(pid, signal.SIGTERM)
                time.sleep(0.02)
                reap_leader()
            _leaders.discard(self._leader)

    def _members(self) -> list[Entry]:
        """Return the session, our new children (adopted orphans among them), and every descendant of these."""
        table = processes()
        below: dict[int, list[int]] = {}
        for entry in table.values():
            below.setdefault(entry.parent, []).append(entry.pid)
        strangers = self._strangers | (_leaders - {self._leader})
        found = {child for child in below.get(os.getpid(), []) if child not in strangers}
        found |= {entry.pid for entry in table.values() if entry.session == self._leader}
        queue = list(found)
        while queue:
            for child in below.get(queue.pop(), []):
                if child not in found:
                    found.add(child)
                    queue.append(child)
        return [table[pid] for pid in found]


@contextlib.contextmanager
def ending_children() -> Iterator[None]:
    """End what a library starts by itself, when a stop takes the library's hold on it.

    Only for the main thread, with no other that starts processes.
    """
    strangers = children()
    try:
        yield
    except Interrupted:
        Family(_NOBODY, strangers=strangers).end(_GRACE, lambda: None)
        raise


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
