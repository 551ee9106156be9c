"""What /proc says of the processes of this machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """What /proc/PID/stat says of a process (proc(5))."""

    pid: int
    state: str
    parent: int

    @property
    def is_dead(self) -> bool:
        """Whether it has ended and only waits to be reaped."""
        return self.state in "ZX"


def processes() -> dict[int, Entry]:
    """Every process that can be seen, zombies as well."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            found[int(folder.name)] = Entry(int(folder.name), fields[0].decode(), int(fields[1]))
    return found


def children_of(pid: int) -> list[int]:
    return [entry.pid for entry in processes().values() if entry.parent == pid and not entry.is_dead]


def processes_with(name: str, *marks: bytes) -> list[int]:
    """The living processes whose /proc/PID/`name` has one of the marks in it."""
    found = []
    for entry in processes().values():
        try:
            text = Path("/proc", str(entry.pid), name).read_bytes()
        except OSError:
            continue
        if not entry.is_dead and any(mark in text for mark in marks):
            found.append(entry.pid)
    return found
