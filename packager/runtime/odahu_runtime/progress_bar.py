"""A line on a terminal that says how far a batch has come."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Callable

    from .batch_input import Progress

_PAUSE = 0.1  # seconds between two looks of the line
_WIDTH = 30


class ProgressBar:
    """Counts rows; writes nothing where stderr is no terminal."""

    def __init__(self, position: Callable[[], Progress], *, shown: bool) -> None:
        """Ask `position` how far the input was read."""
        self._position = position
        self._shown = shown
        self._begin = self._next = time.monotonic()

    def at(self, rows: int, *, done: bool = False) -> None:
        """Say how many rows are predicted."""
        now = time.monotonic()
        if not self._shown or (now < self._next and not done):
            return
        self._next = now + _PAUSE
        speed = rows / max(now - self._begin, 1e-3)
        line = f"{self._bar(done=done)}{rows:,} rows, {speed:,.0f} a second"
        sys.stderr.write(f"\r\x1b[2K{line}" + ("\n" if done else ""))
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away: something else is to be said."""
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def _bar(self, *, done: bool) -> str:
        position = self._position()
        if not position.total:
            return ""
        part = 1.0 if done else min(position.done / position.total, 1.0)
        full = int(part * _WIDTH)
        return f"[{'#' * full}{' ' * (_WIDTH - full)}] {part:4.0%} "


def on_terminal() -> bool:
    """Whether stderr is a terminal that can go back to the line's begin."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
