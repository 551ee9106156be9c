"""How much memory there is to work in."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

# docs.kernel.org: cgroup-v2, "memory.max"; cgroup-v1/memory, "memory.limit_in_bytes".
_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
_AVAILABLE = re.compile(r"^MemAvailable: +(\d+) kB$", re.MULTILINE)


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that the machine can give and our container may take; None where nothing tells.

    `root` is where `proc` and `sys` lie.
    """
    found = []
    with suppress(OSError):
        found += [1024 * int(number) for number in _AVAILABLE.findall((root / "proc/meminfo").read_text())]
    for name in _LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number
            found.append(int((root / name).read_text()))
    return min(found, default=None)
