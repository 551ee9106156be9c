"""What a person at a terminal sees: colours and bars."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Stage = Callable[[str], AbstractContextManager[None]]


def set_up_terminal(timed_stage: Stage) -> tuple[logging.Handler, TerminalReporter]:
    """Return the log's handler and the reporter, which draw on the same terminal."""
    console = Console(stderr=True)
    handler = RichHandler(console=console, show_path=False, highlighter=NullHighlighter())
    handler.setFormatter(logging.Formatter("%(message)s", datefmt="%H:%M:%S"))
    return handler, TerminalReporter(console, timed_stage)


class TerminalReporter:
    """Stages as lines with times, long work as bars."""

    def __init__(self, console: Console, timed_stage: Stage) -> None:
        """Draw on this console; `timed_stage` says when a stage starts and ends."""
        self._console = console
        self.stage = timed_stage

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "B") -> Iterator[Callable[[int], None]]:
        """Draw a bar while the work goes on."""
        amount = DownloadColumn() if unit == "B" else TextColumn("{task.completed}/{task.total} " + unit)
        columns = (TextColumn("  {task.description}"), BarColumn(), amount, TimeElapsedColumn())
        progress = Progress(*columns, console=self._console, transient=True)
        task = progress.add_task(title, total=total)
        try:
            progress.start()  # it hides the cursor, and a stop may come before it is done
            yield lambda amount: progress.advance(task, amount)
        finally:
            progress.stop()
