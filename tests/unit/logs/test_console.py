"""Everything that is logged, by whomever, is cleaned of secrets on its way to standard error."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest

from packager.cli import _report
from packager.logs.console import set_up_logging
from packager.logs.progress import LogFormat
from packager.logs.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Put the loggers back."""
    loggers = [logging.getLogger(name) for name in (None, "packager")]
    states = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in states:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def _redactor() -> Redactor:
    redactor = Redactor()
    redactor.add(["hunter2-s3cret"])
    return redactor


@pytest.mark.parametrize("log_format", [LogFormat.plain, LogFormat.json])
@pytest.mark.parametrize("logger", ["packager.registry", "urllib3.connectionpool", "py.warnings"])
def test_messages_of_every_logger_are_redacted(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat, logger: str
) -> None:
    set_up_logging(log_format, _redactor(), verbose=True)
    set_up_logging(log_format, _redactor(), verbose=True)
    logging.getLogger(logger).warning("retrying %s", "https://host/x?sig=hunter2-s3cret")
    shown = capsys.readouterr().err
    assert shown.count("https://host/x?sig=*****") == 1
    assert "s3cret" not in shown


def test_exception_of_a_thread_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.plain, _redactor(), verbose=False)
    error = ValueError("no login with hunter2-s3cret")
    _report(threading.ExceptHookArgs((ValueError, error, None, None)))
    shown = capsys.readouterr().err
    assert "a thread ended by an unexpected error" in shown
    assert "ValueError: no login with *****" in shown
