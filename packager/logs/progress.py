"""How progress is reported: the formats of the log, and the interface that stages report to."""

from __future__ import annotations

from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class LogFormat(str, Enum):
    """How the log is written; `auto` is bars at a terminal and plain lines elsewhere."""

    auto = "auto"
    plain = "plain"
    json = "json"


class Reporter(Protocol):
    """Shows stages and progress to a person (bars), a log collector (lines) or a machine (JSON)."""

    def stage(self, title: str) -> AbstractContextManager[None]:
        """Name a stage, time it and say how it ended."""

    def task(self, title: str, total: int | None, *, unit: str = "B") -> AbstractContextManager[Callable[[int], None]]:
        """Start a measured piece of work of `total` units; the value it gives is called with each advance."""


class SilentReporter:
    """Shows nothing: for tests and for use as a library."""

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:  # noqa: ARG002  (the Protocol's name)
        """Do nothing around the stage."""
        yield

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "B") -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        """Give a callable that ignores its argument."""
        yield lambda _amount: None
