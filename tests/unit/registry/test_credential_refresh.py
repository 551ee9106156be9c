"""When logins are renewed, by a clock that the test turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

import pytest

from packager.errors import RegistryAuthError
from packager.registry import credential_refresh
from packager.registry.credential_refresh import Clock, Renewal, Source
from packager.registry.credentials import Credential

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Desk:
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

    def renewal(self) -> Renewal:
        nobody = Source(name="nobody", fetch=lambda: None)
        sources = [Source(name="it", fetch=self.fetch), nobody]
        return Renewal(sources, self.publish, Clock(now=lambda: self.now, wait=self.wait))


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
    desk = Desk(lifetime)
    logins = desk.renewal()
    assert desk.published == [["token-1", ""]]
    desk.now = START + due - timedelta(seconds=1)
    logins.refresh()
    assert desk.fetched == 1
    desk.now = START + due
    logins.refresh()
    assert desk.published == [["token-1", ""], ["token-2", ""]]


def test_a_login_that_lasts_needs_no_thread() -> None:
    desk = Desk(None)
    with desk.renewal().running():
        assert "login-renewal" not in {thread.name for thread in threading.enumerate()}
        assert desk.fetched == 1
    assert desk.waits == []


def test_the_thread_renews_and_ends_with_the_block() -> None:
    desk = Desk()
    renewed = threading.Event()

    def on_wait() -> bool:
        if desk.fetched == 3:
            renewed.set()
        return renewed.is_set()

    desk.on_wait = on_wait
    with desk.renewal().running():
        assert renewed.wait(30)
    assert desk.published == [["token-1", ""], ["token-2", ""], ["token-3", ""]]
    assert max(desk.waits) == 60  # it looks at the clock often: a machine may have slept meanwhile
    assert "login-renewal" not in {thread.name for thread in threading.enumerate()}


def test_the_thread_outlives_whatever_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    done = threading.Event()

    def on_wait() -> bool:
        if len(desk.published) == 2:
            done.set()
        return done.is_set()

    desk.on_wait = on_wait
    logins = desk.renewal()
    desk.failures = [ValueError("a bug"), RegistryAuthError("denied")]
    desk.full_disks = 2
    with logins.running():
        assert done.wait(30)
    assert desk.published == [["token-1", ""], ["token-2", ""]]  # asked for once, written when that was possible
    assert "renewing the logins failed: ValueError: a bug" in caplog.text
    assert "can't be renewed, and is tried again: denied" in caplog.text
    assert caplog.text.count("No space left") == 2


def test_a_refresh_tells_only_of_what_has_expired(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    logins = desk.renewal()
    desk.failures = [RegistryAuthError("denied")] * 2
    desk.now = START + timedelta(hours=11)
    logins.refresh()
    assert "tried again: denied" in caplog.text
    desk.now = START + timedelta(hours=12)
    with pytest.raises(RegistryAuthError, match="denied"):
        logins.refresh()
    assert desk.published == [["token-1", ""]]


def test_nothing_is_published_after_the_block() -> None:
    desk = Desk()
    logins = desk.renewal()
    with logins.running():
        pass
    desk.now = START + timedelta(hours=12)
    logins.refresh()
    assert desk.published == [["token-1", ""]]


def test_a_renewal_that_hangs_holds_nobody_up_and_publishes_nothing_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_refresh, "_JOIN_SECONDS", 0.01)
    desk = Desk()
    asked, answered = threading.Event(), threading.Event()
    desk.on_wait = lambda: False
    first = desk.fetch

    def fetch() -> Credential:
        if desk.fetched:
            asked.set()
            assert answered.wait(30)
        return first()

    monkeypatch.setattr(desk, "fetch", fetch)
    with desk.renewal().running():
        assert asked.wait(30)
        thread = next(thread for thread in threading.enumerate() if thread.name == "login-renewal")
    assert thread.is_alive()
    desk.on_wait = lambda: True
    answered.set()
    thread.join(30)
    assert not thread.is_alive()
    assert desk.fetched == 2
    assert desk.published == [["token-1", ""]]
