"""The progress of a batch, as a line on a terminal."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Callable

    from .batch_input import Progress

_PAUSE = 0.1  # seconds between two updates
_WIDTH = 30


class ProgressBar:
    """A line with the progress; it is written only to a terminal."""

    def __init__(self, position: Callable[[], Progress], *, shown: bool) -> None:
        """Get the position in the input from `position`."""
        self._position = position
        self._shown = shown
        self._begin = self._next = time.monotonic()

    def update(self, rows: int, *, done: bool = False) -> None:
        """Show how many rows have been predicted."""
        now = time.monotonic()
        if not self._shown or (now < self._next and not done):
            return
        self._next = now + _PAUSE
        speed = rows / max(now - self._begin, 1e-3)
        line = f"{self._bar(done=done)}{rows:,} rows, {speed:,.0f} a second"
        sys.stderr.write(f"\r\x1b[2K{line}" + ("\n" if done else ""))
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line, so that a message can be written."""
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
    """Whether stderr is a terminal that can rewrite a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
