"""Which failures are retried, how long, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest

from packager.errors import ImageNotFoundError, RegistryAuthError, RegistryError
from packager.system.retries import RetryableError, RetryPolicy, is_retryable, read_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Clock:
    """Time that passes only during a sleep."""

    now: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tenacity.time.monotonic", lambda: clock.now)
    return clock


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work


@pytest.mark.parametrize("seconds", [5, 60, 600])
def test_retries_end_with_the_time_and_each_is_logged_once(
    clock: Clock, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    attempts: list[float] = []

    def work() -> None:
        attempts.append(clock.now)
        clock.now += 0.5
        raise httpx.ReadError("Connection reset by peer")

    with pytest.raises(httpx.ReadError):
        RetryPolicy(seconds=seconds, sleep=clock.sleep).call(work, "r.io: GET manifests/1")
    assert 3 <= len(attempts) < 10 + seconds / 2
    assert max(attempts) <= seconds
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(attempts) - 1
    for number, line in enumerate(lines):
        assert line.startswith(f"r.io: GET manifests/1: Connection reset by peer; attempt {number + 2} follows in ")


def test_without_time_there_is_one_attempt() -> None:
    with pytest.raises(httpx.ReadError):
        RetryPolicy(seconds=0).call(failing(httpx.ReadError("x")), "it")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (httpx.ReadError("Connection reset by peer"), True),
        (httpx.WriteTimeout(""), True),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), True),
        (httpx.ConnectError("[SSL: UNEXPECTED_EOF_WHILE_READING]"), True),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), False),
        (httpx.ProxyError("503 Service Unavailable"), True),
        (httpx.ProxyError("407 Proxy Authentication Required"), False),
        (httpx.ProxyError("403 Forbidden"), False),
        (httpx.UnsupportedProtocol("ftp"), False),
        (RegistryAuthError("no"), False),
        (ImageNotFoundError("no"), False),
        (OSError("disk"), False),
        (RetryableError(RegistryError("busy")), True),
    ],
)
def test_errors_are_retryable_or_not(error: Exception, again: bool) -> None:
    assert is_retryable(error) is again


def test_attempts_are_limited_and_the_last_failure_is_raised(clock: Clock) -> None:
    failures = [RetryableError(RegistryError(f"failure {number}")) for number in range(9)]
    with pytest.raises(RetryableError, match="failure 2") as caught:
        RetryPolicy(attempts=3, sleep=clock.sleep).call(failing(*failures), "it")
    assert caught.value.error.message == "failure 2"
    assert clock.now > 0


def test_wait_is_as_long_as_the_server_asks(clock: Clock) -> None:
    busy = RetryableError(RegistryError("busy"), retry_after=50)
    assert RetryPolicy(attempts=2, sleep=clock.sleep).call(failing(busy), "it") == "done"
    assert clock.now == 50


def test_host_that_refuses_connections_is_tried_three_times(clock: Clock) -> None:
    refusals = [httpx.ConnectError("refused") for _ in range(9)]
    attempts = failing(*refusals)
    with pytest.raises(httpx.ConnectError):
        RetryPolicy(seconds=600, sleep=clock.sleep).call(attempts, "it")
    assert clock.now < 5


@pytest.mark.parametrize(("header", "seconds"), [(b"3", 3), (b"\xb2", 0), (b"9" * 400, 120), (b"-1", 0), (b"", 0)])
def test_retry_after_in_seconds_is_bounded(header: bytes, seconds: float) -> None:
    response = httpx.Response(429, headers=[(b"Retry-After", header)])
    assert read_retry_after(response.headers) == seconds


@pytest.mark.parametrize(
    ("retry_after", "date", "seconds"),
    [
        ("Mon, 30 Nov 2026 10:00:08 GMT", "Mon, 30 Nov 2026 10:00:00 GMT", 8),
        ("Monday, 30-Nov-26 10:00:08 GMT", "Mon Nov 30 10:00:00 2026", 8),  # RFC 9110's obsolete forms
        ("Mon, 30 Nov 2026 11:00:00 GMT", "Mon, 30 Nov 2026 10:00:00 GMT", 120),
        ("Mon, 30 Nov 2026 09:00:00 GMT", "Mon, 30 Nov 2026 10:00:00 GMT", 0),
        ("Mon, 30 Nov 1999 10:00:00 GMT", "", 0),
        ("Mon, 30 Nov 2999 10:00:00 GMT", "soon", 120),
        ("Mon, 99 Nov 2026 10:00:00 GMT", "", 0),
        ("Mon, 30 Nov 99999999999999 10:00:00 GMT", "", 0),
    ],
)
def test_retry_after_may_be_a_date(retry_after: str, date: str, seconds: float) -> None:
    response = httpx.Response(429, headers={"Retry-After": retry_after, "Date": date})
    assert read_retry_after(response.headers) == seconds
