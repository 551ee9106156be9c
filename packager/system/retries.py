"""The one retry policy: failures that another attempt may mend are retried, with one log line an attempt."""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    stop_never,
    wait_random_exponential,
)
from tenacity.stop import stop_base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from packager.errors import PackagerError

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_WAIT = 0.25  # seconds
_LONGEST_WAIT = 10.0
_LONGEST_RETRY_AFTER = 120.0
_MAX_CONNECTS = 3  # a wrong name or port is more likely than a short outage
_PLAIN_HTTP_ALERTS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_backoff = wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT)


class RetryableError(Exception):
    """A failure that another attempt may mend.

    Attributes:
        error: The error to raise when no attempt succeeds.
        retry_after: Seconds that the server asks to wait; 0 if it doesn't.
    """

    def __init__(self, error: PackagerError, *, cause: str = "", retry_after: float = 0.0) -> None:
        """Keep the error; the log shows `cause`, else the error's message."""
        super().__init__(cause or error.message)
        self.error = error
        self.retry_after = retry_after


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long to retry.

    Attributes:
        seconds: No attempt begins later than this after the first one; 0 means one attempt, None sets no limit.
        attempts: The largest number of attempts; None sets no limit.
        sleep: Waits between attempts, in seconds.
    """

    seconds: float | None = None
    attempts: int | None = None
    sleep: Callable[[float], None] = time.sleep

    def call(self, work: Callable[[], T], what: str) -> T:
        """Do the work, and retry it while it fails with a retryable error; `what` names it in the log.

        Raises:
            RetryableError, httpx.TransportError: No attempt succeeded.
        """
        by_time = stop_never if self.seconds is None else stop_before_delay(self.seconds)
        by_attempts = stop_never if self.attempts is None else stop_after_attempt(self.attempts)
        retrying = Retrying(
            retry=retry_if_exception(is_retryable),
            wait=_wait,
            stop=by_time | by_attempts | _Unconnected(),
            sleep=self.sleep,
            before_sleep=lambda state: _log_attempt(state, what),
            reraise=True,
        )
        return retrying(work)


def is_retryable(error: BaseException) -> bool:
    """Tell whether another attempt may succeed: a broken connection may mend, a refused certificate doesn't."""
    if isinstance(error, RetryableError):
        return True
    if isinstance(error, httpx.UnsupportedProtocol) or (
        isinstance(error, httpx.ProxyError) and str(error).startswith("4")  # its status: 403, 407
    ):
        return False
    return isinstance(error, httpx.TransportError) and not is_tls_error(error)


def is_tls_error(error: BaseException) -> bool:
    """Tell whether a server answered, and TLS with it failed: it will fail again."""
    found = find_cause(error, ssl.SSLError)
    cut_off = isinstance(found, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or "UNEXPECTED_EOF" in str(error)
    return not cut_off and (found is not None or "[SSL" in str(error))


def is_plain_http_answer(error: BaseException) -> bool:
    """Tell whether a server that speaks no TLS answered a request in HTTPS."""
    return any(alert in str(error) for alert in _PLAIN_HTTP_ALERTS)


def find_cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """Return the first error of a class among an error and its causes."""
    return next((each for each in _causes(error) if isinstance(each, kind)), None)


def read_retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a Retry-After header asks to wait, at most 120; 0 where it can't be read.

    A date (RFC 9110 10.2.3) is compared with the response's own Date: the clocks may differ.
    """
    text = headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_RETRY_AFTER)
    until = _read_date(text)
    if until is None:
        return 0.0
    now = _read_date(headers.get("Date", "")) or datetime.now(timezone.utc)
    return min(max((until - now).total_seconds(), 0.0), _LONGEST_RETRY_AFTER)


def _read_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (OverflowError, TypeError, ValueError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _wait(state: RetryCallState) -> float:
    error = _failure(state)
    asked = error.retry_after if isinstance(error, RetryableError) else 0.0
    return max(asked, _FIRST_WAIT + _backoff(state))


class _Unconnected(stop_base):
    """Stops after a few attempts in which no connection was made."""

    def __call__(self, retry_state: RetryCallState) -> bool:
        return isinstance(_failure(retry_state), httpx.ConnectError) and retry_state.attempt_number >= _MAX_CONNECTS


def _log_attempt(state: RetryCallState, what: str) -> None:
    error = _failure(state)
    log.warning(
        "%s: %s; attempt %d follows in %.1f s",
        what,
        str(error) or type(error).__name__,
        state.attempt_number + 1,
        state.upcoming_sleep,
    )
