"""Sets up the log: progress bars and colours on a terminal, else plain lines or JSON.

The log goes to standard error; standard output carries only results.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from packager.logs.progress import LogFormat
from packager.logs.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packager.logs.progress import Reporter

log = logging.getLogger("packager")
_SECONDS_BETWEEN_LINES = 10.0


def set_up_logging(log_format: LogFormat, redactor: Redactor, *, verbose: bool) -> Reporter:
    """Send the log to standard error in this format, with secrets redacted, and return the reporter for it."""
    handler: logging.Handler
    reporter: Reporter
    if log_format is LogFormat.auto and sys.stderr.isatty():
        from packager.logs.terminal import set_up_terminal  # noqa: PLC0415  (rich is slow to import)

        handler, reporter = set_up_terminal(timed_stage)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_JsonFormatter() if log_format is LogFormat.json else _plain_formatter())
        reporter = LineReporter()
    handler.addFilter(redactor)
    _capture_other_loggers(handler)
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    return reporter


def _capture_other_loggers(handler: logging.Handler) -> None:
    """Send the warnings of libraries to the same handler; Python's last resort would print them unredacted."""
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if any(isinstance(rule, Redactor) for rule in each.filters)]:
        root.removeHandler(earlier)
    root.addHandler(handler)


def _plain_formatter() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    return formatter


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_text:
            line["traceback"] = record.exc_text
        return json.dumps(line, ensure_ascii=False)


@contextmanager
def timed_stage(title: str) -> Iterator[None]:
    """Log the start of a stage, and its duration when it succeeds."""
    log.info("%s ...", title)
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    log.info("%s: done in %.1f s", title, seconds, extra={"fields": {"stage": title, "seconds": round(seconds, 3)}})


class LineReporter:
    """Logs a line at the start and end of a stage, and one every ten seconds of a long task."""

    def stage(self, title: str) -> _Stage:
        """Log the start of a stage, and its duration when it succeeds."""
        return timed_stage(title)

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "B") -> Iterator[Callable[[int], None]]:
        """Log the progress every ten seconds."""
        done, last = 0, time.monotonic()

        def advance(amount: int) -> None:
            nonlocal done, last
            done += amount
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                log.info("%s: %s%s", title, _amount(done, unit), f" of {_amount(total, unit)}" if total else "")

        yield advance


def _amount(value: int, unit: str) -> str:
    return f"{value / 1e6:.0f} MB" if unit == "B" else f"{value} {unit}"


if TYPE_CHECKING:
    from contextlib import AbstractContextManager as _ContextManager

    _Stage = _ContextManager[None]
