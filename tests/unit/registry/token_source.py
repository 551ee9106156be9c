"""A source of tokens that expire, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from packager.registry.credentials import Credential
from packager.registry.keychain import Clock, ConnectionLogin, Keychain

if TYPE_CHECKING:
    import threading

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class TokenSource:
    """Gives `token-1`, `token-2`, … for r.io, which last `lifetime`; `failures` are raised instead, in order.

    A wait of the keychain's clock lets its time pass, and ends at once; `on_wait` tells whether the event came.
    """

    def __init__(self, lifetime: timedelta | None = timedelta(hours=12)) -> None:
        self.now, self.lifetime, self.fetched = START, lifetime, 0
        self.failures: list[Exception] = []
        self.waits: list[float] = []
        self.on_wait: Callable[[], bool] = lambda: False
        self.on_fetch: Callable[[], None] = lambda: None

    def keychain(self) -> Keychain:
        clock = Clock(now=lambda: self.now, wait=self._wait)
        return Keychain(ConnectionLogin("connection 'c'", self._fetch, clock), clock=clock)

    def expire(self) -> None:
        assert self.lifetime is not None
        self.now += self.lifetime

    def _fetch(self) -> Credential:
        self.on_fetch()
        if self.failures:
            raise self.failures.pop(0)
        self.fetched += 1
        expires = None if self.lifetime is None else self.now + self.lifetime
        return Credential(host="r.io", username="AWS", password=f"token-{self.fetched}", expires=expires)

    def _wait(self, ended: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += timedelta(seconds=seconds)
        return self.on_wait() or ended.is_set()
