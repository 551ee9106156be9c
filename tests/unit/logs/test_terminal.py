"""What a person at a terminal sees."""

from __future__ import annotations

import io
from contextlib import nullcontext

import pytest
from rich.console import Console
from rich.live import Live

from packager.errors import Interrupted
from packager.logs.terminal import TerminalReporter

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def test_stop_while_a_bar_starts_restores_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True)
    begin = Live.start

    def stop(live: Live, refresh: bool = False) -> None:  # noqa: FBT002  (as rich has it)
        begin(live, refresh)
        raise Interrupted(15)

    monkeypatch.setattr(Live, "start", stop)
    reporter = TerminalReporter(console, lambda _: nullcontext())
    with pytest.raises(Interrupted), reporter.task("a model", 10):
        raise AssertionError("it never began")
    assert HIDE in drawn.getvalue()
    assert drawn.getvalue().rindex(SHOW) > drawn.getvalue().rindex(HIDE)
