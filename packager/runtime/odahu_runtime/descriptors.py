"""How many connections a process may have: each is a file descriptor, and a server that has none left can't go on."""

from __future__ import annotations

import resource
from contextlib import suppress

_SPARE = 64  # for listeners, logs, and whatever the model opens
_LEAST = 8


def raise_limit() -> None:
    """Take as many as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections(most: int) -> int:
    """The connections that a worker takes from the kernel at once: `most`, or as many as there are descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(_LEAST, min(most, soft - _SPARE))
