"""The end of a process: now, and not when the last thread that a model left behind is done."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn


def finish(code: int) -> NoReturn:
    """End after what is registered for the end was done, without waiting for threads."""
    atexit._run_exitfuncs()  # noqa: SLF001  (Python's own end waits for the threads first)
    leave(code)


def leave(code: int) -> NoReturn:
    """End at once."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, RuntimeError):
            stream.flush()
    os._exit(code)
