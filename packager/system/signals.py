"""SIGINT and SIGTERM in the process that does the work."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from packager.errors import Interrupted

if TYPE_CHECKING:
    from types import FrameType

_STOPS = (signal.SIGINT, signal.SIGTERM)


def raise_on_stop() -> None:
    """Let the first SIGINT or SIGTERM raise `Interrupted` in the main thread, and ignore the ones that follow."""

    def stop(number: int, _frame: FrameType | None) -> None:
        ignore_stops()
        raise Interrupted(number)

    for number in _STOPS:
        signal.signal(number, stop)


def ignore_stops() -> None:
    """Ignore SIGINT and SIGTERM from here on: a stop comes too late.

    By a handler, because commands inherit `SIG_IGN`.
    """
    for number in _STOPS:
        signal.signal(number, _ignore)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass
