"""The log on a terminal: colours and progress bars."""

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
    """Return the log handler and the reporter, which share one console."""
    console = Console(stderr=True)
    handler = RichHandler(console=console, show_path=False, highlighter=NullHighlighter())
    handler.setFormatter(logging.Formatter("%(message)s", datefmt="%H:%M:%S"))
    return handler, TerminalReporter(console, timed_stage)


class TerminalReporter:
    """Shows stages as lines with times, and tasks as progress bars."""

    def __init__(self, console: Console, timed_stage: Stage) -> None:
        """Draw on this console; `timed_stage` logs the start and end of a stage."""
        self._console = console
        self.stage = timed_stage

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "B") -> Iterator[Callable[[int], None]]:
        """Show a progress bar during the task."""
        amount = DownloadColumn() if unit == "B" else TextColumn("{task.completed}/{task.total} " + unit)
        columns = (TextColumn("  {task.description}"), BarColumn(), amount, TimeElapsedColumn())
        progress = Progress(*columns, console=self._console, transient=True)
        task = progress.add_task(title, total=total)
        try:
            progress.start()  # it hides the cursor; a stop signal may arrive before it returns
            yield lambda amount: progress.advance(task, amount)
        finally:
            progress.stop()
