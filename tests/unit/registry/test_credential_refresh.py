"""When logins are renewed, by a clock that the test turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

import pytest

from packager.errors import RegistryAuthError
from packager.registry import credential_refresh
from packager.registry.credential_refresh import Clock, CredentialRefresher, Source
from packager.registry.credentials import Credential

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class RefresherHarness:
    """A registry whose logins last `lifetime`; `failures` is what asking for one raises, in order."""

    def __init__(self, lifetime: timedelta | None = timedelta(hours=12)) -> None:
        self.now, self.lifetime, self.fetched = START, lifetime, 0
        self.published: list[list[str]] = []
        self.failures: list[Exception] = []
        self.full_disks = 0
        self.waits: list[float] = []
        self.on_wait: Callable[[], bool] = lambda: True

    def fetch(self) -> Credential:
        if self.failures:
            raise self.failures.pop(0)
        self.fetched += 1
        expires = None if self.lifetime is None else self.now + self.lifetime
        return Credential(host="r.io", username="AWS", password=f"token-{self.fetched}", expires=expires)

    def publish(self, logins: Sequence[Credential | None]) -> None:
        if self.full_disks:
            self.full_disks -= 1
            raise OSError(28, "No space left on device")
        self.published.append([login.password if login else "" for login in logins])

    def wait(self, _stopped: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += timedelta(seconds=seconds)
        return self.on_wait()

    def renewal(self) -> CredentialRefresher:
        nobody = Source(name="nobody", fetch=lambda: None)
        sources = [Source(name="it", fetch=self.fetch), nobody]
        return CredentialRefresher(sources, self.publish, Clock(now=lambda: self.now, wait=self.wait))


@pytest.mark.parametrize(
    ("lifetime", "due"),
    [
        (timedelta(hours=12), timedelta(hours=11)),
        (timedelta(hours=1), timedelta(minutes=30)),
        (timedelta(minutes=4), timedelta(minutes=2)),
        (timedelta(seconds=10), timedelta(minutes=1)),  # never asked for in a tight loop
        (timedelta(days=-4000), timedelta(minutes=1)),
    ],
)
def test_when_it_is_due(lifetime: timedelta, due: timedelta) -> None:
    harness = RefresherHarness(lifetime)
    logins = harness.renewal()
    assert harness.published == [["token-1", ""]]
    harness.now = START + due - timedelta(seconds=1)
    logins.refresh()
    assert harness.fetched == 1
    harness.now = START + due
    logins.refresh()
    assert harness.published == [["token-1", ""], ["token-2", ""]]


def test_a_login_that_lasts_needs_no_thread() -> None:
    harness = RefresherHarness(None)
    with harness.renewal().running():
        assert "login-renewal" not in {thread.name for thread in threading.enumerate()}
        assert harness.fetched == 1
    assert harness.waits == []


def test_the_thread_renews_and_ends_with_the_block() -> None:
    harness = RefresherHarness()
    renewed = threading.Event()

    def on_wait() -> bool:
        if harness.fetched == 3:
            renewed.set()
        return renewed.is_set()

    harness.on_wait = on_wait
    with harness.renewal().running():
        assert renewed.wait(30)
    assert harness.published == [["token-1", ""], ["token-2", ""], ["token-3", ""]]
    assert max(harness.waits) == 60  # it looks at the clock often: a machine may have slept meanwhile
    assert "login-renewal" not in {thread.name for thread in threading.enumerate()}


def test_the_thread_outlives_whatever_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    harness = RefresherHarness()
    done = threading.Event()

    def on_wait() -> bool:
        if len(harness.published) == 2:
            done.set()
        return done.is_set()

    harness.on_wait = on_wait
    logins = harness.renewal()
    harness.failures = [ValueError("a bug"), RegistryAuthError("denied")]
    harness.full_disks = 2
    with logins.running():
        assert done.wait(30)
    assert harness.published == [["token-1", ""], ["token-2", ""]]  # asked for once, written when that was possible
    assert "renewing the logins failed: ValueError: a bug" in caplog.text
    assert "can't be renewed, and is tried again: denied" in caplog.text
    assert caplog.text.count("No space left") == 2


def test_a_refresh_tells_only_of_what_has_expired(caplog: pytest.LogCaptureFixture) -> None:
    harness = RefresherHarness()
    logins = harness.renewal()
    harness.failures = [RegistryAuthError("denied")] * 2
    harness.now = START + timedelta(hours=11)
    logins.refresh()
    assert "tried again: denied" in caplog.text
    harness.now = START + timedelta(hours=12)
    with pytest.raises(RegistryAuthError, match="denied"):
        logins.refresh()
    assert harness.published == [["token-1", ""]]


def test_nothing_is_published_after_the_block() -> None:
    harness = RefresherHarness()
    logins = harness.renewal()
    with logins.running():
        pass
    harness.now = START + timedelta(hours=12)
    logins.refresh()
    assert harness.published == [["token-1", ""]]


def test_a_renewal_that_hangs_holds_nobody_up_and_publishes_nothing_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_refresh, "_JOIN_SECONDS", 0.01)
    harness = RefresherHarness()
    asked, answered = threading.Event(), threading.Event()
    harness.on_wait = lambda: False
    first = harness.fetch

    def fetch() -> Credential:
        if harness.fetched:
            asked.set()
            assert answered.wait(30)
        return first()

    monkeypatch.setattr(harness, "fetch", fetch)
    with harness.renewal().running():
        assert asked.wait(30)
        thread = next(thread for thread in threading.enumerate() if thread.name == "login-renewal")
    assert thread.is_alive()
    harness.on_wait = lambda: True
    answered.set()
    thread.join(30)
    assert not thread.is_alive()
    assert harness.fetched == 2
    assert harness.published == [["token-1", ""]]
