"""What /proc says of the processes of this machine."""

from __future__ import annotations

from pathlib import Path

from packager.system.process_tree import processes


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
