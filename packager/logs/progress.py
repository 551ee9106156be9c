"""How progress is reported: the formats of the log, and the interface that stages report to."""

from __future__ import annotations

from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class LogFormat(str, Enum):
    """The format of the log; `auto` is progress bars on a terminal and plain lines elsewhere."""

    auto = "auto"
    plain = "plain"
    json = "json"


class Reporter(Protocol):
    """Reports stages and progress: as bars, plain lines or JSON."""

    def stage(self, title: str) -> AbstractContextManager[None]:
        """Report the start, the end and the duration of a stage."""

    def task(self, title: str, total: int | None, *, unit: str = "B") -> AbstractContextManager[Callable[[int], None]]:
        """Report a task of `total` units; call the yielded function with each advance."""


class SilentReporter:
    """Reports nothing: for tests and for use as a library."""

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:  # noqa: ARG002  (the Protocol's name)
        """Report nothing."""
        yield

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "B") -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        """Yield a function that ignores its argument."""
        yield lambda _amount: None
