"""Trying again what a server can't do for the moment, for a bounded time, with one log line an attempt."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_random_exponential
from tenacity.stop import stop_base

from packager.registry.errors import is_tls_trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from packager.errors import PackagerError

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})  # RFC 9110 and RFC 6585
NO_ANSWER = frozenset(range(400, 500)) - RETRYABLE_STATUSES  # to whether something is there
_FIRST_WAIT = 0.25  # seconds
_LONGEST_WAIT = 10.0
_LONGEST_RETRY_AFTER = 120.0
_MOST_CONNECTS = 3


class RetryableError(Exception):
    """A failure that may be none in a moment."""


class EngineTroubleError(RetryableError):
    """An engine's command failed for such a reason, after its own retries."""

    def __init__(self, error: PackagerError) -> None:
        """Keep the error that it is if it doesn't pass."""
        super().__init__(error.message)
        self.error = error


class RetryableStatusError(RetryableError):
    """An answer that may be another one in a moment."""

    def __init__(self, response: httpx.Response, body: bytes) -> None:
        """Keep the answer, whose body was read as far as an error's goes."""
        super().__init__(f"{response.status_code} {response.reason_phrase}".strip())
        self.response = response
        self.body = body

    @property
    def retry_after(self) -> float:
        """Seconds that the server asks us to wait, at most 120; 0 where it says nothing that can be read.

        A date (RFC 9110 10.2.3) is compared with the response's own Date: the clocks may differ.
        """
        text = self.response.headers.get("Retry-After", "")
        if text.isascii() and text.isdigit():
            return min(float(text), _LONGEST_RETRY_AFTER)
        until = _time(text)
        if until is None:
            return 0.0
        now = _time(self.response.headers.get("Date", "")) or datetime.now(timezone.utc)
        return min(max((until - now).total_seconds(), 0.0), _LONGEST_RETRY_AFTER)


def _time(text: str) -> datetime | None:
    """Return the time that an HTTP date names; None where it isn't one."""
    try:
        time = parsedate_to_datetime(text)
    except (OverflowError, TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def is_transient(error: BaseException) -> bool:
    """Tell whether it may help to try again: a broken connection may mend; a certificate, or a proxy's no, doesn't."""
    if isinstance(error, RetryableError):
        return True
    if isinstance(error, httpx.UnsupportedProtocol) or (
        isinstance(error, httpx.ProxyError) and str(error).startswith("4")  # its status: 403, 407
    ):
        return False
    return isinstance(error, httpx.TransportError) and not is_tls_trouble(error)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often and how long.

    Attributes:
        seconds: No attempt is begun later than this after the first one; 0 means one attempt.
        sleep: Waits between attempts, in seconds.
    """

    seconds: float
    sleep: Callable[[float], None] = time.sleep

    def call(self, work: Callable[[], T], what: str) -> T:
        """Do the work, again while it fails for the moment; `what` names it in the log.

        Raises:
            RetryableError, httpx.TransportError: It failed to the end, or in a way that stays.
        """
        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            wait=_wait,
            stop=stop_before_delay(self.seconds) | _Unconnected(),
            sleep=self.sleep,
            before_sleep=lambda state: _tell(state, what),
            reraise=True,
        )
        return retrying(work)


_backoff = wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, RetryableStatusError) else 0.0
    return max(asked, _FIRST_WAIT + _backoff(state))


class _Unconnected(stop_base):
    """Stops when nobody has answered a few times: a wrong name or port is more likely than a moment's trouble."""

    def __call__(self, retry_state: RetryCallState) -> bool:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        return isinstance(error, httpx.ConnectError) and retry_state.attempt_number >= _MOST_CONNECTS


def _tell(state: RetryCallState, what: str) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning(
        "%s: %s; attempt %d follows in %.1f s",
        what,
        str(error) or type(error).__name__,
        state.attempt_number + 1,
        state.upcoming_sleep,
    )
