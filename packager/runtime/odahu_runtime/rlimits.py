"""File descriptors: the standard ones, and how many connections a process may have, each of which is one."""

from __future__ import annotations

import os
import resource
import sys
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


def open_standard() -> None:
    """Open those of 0, 1 and 2 that whoever started us has closed: else another file gets the number, and our texts.

    Writing to a standard output that was closed still fails, so that nothing is lost in silence.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:  # noqa: PERF203
            os.open(os.devnull, mode)  # the lowest number that is free is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
