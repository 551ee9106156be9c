"""Logins that expire: renewed in the background before they do, for as long as a block lasts."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from packager.errors import PackagerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from packager.registry.credentials import Credential

log = logging.getLogger(__name__)

_MARGIN = timedelta(hours=1)  # how long before its end a login is renewed; at most half of what it had
_PAUSE = timedelta(minutes=1)  # between two tries, and between two looks at the clock: a machine may have slept
_JOIN_SECONDS = 5.0


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Time as renewals see it; `wait` waits for an event for so many seconds and tells whether it came."""

    now: Callable[[], datetime] = _now
    wait: Callable[[Event, float], bool] = Event.wait


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a login comes from: `fetch` gets it, and gets it anew; `name` is what it's called in the log."""

    name: str
    fetch: Callable[[], Credential | None]


class CredentialRefresher:
    """The logins of some sources, always fresh ones; `publish` is told all of them when one has changed."""

    def __init__(
        self, sources: Sequence[Source], publish: Callable[[Sequence[Credential | None]], None], clock: Clock
    ) -> None:
        """Get every login.

        Raises:
            PackagerError: One can't be had.
        """
        self._sources, self._publish, self._clock = sources, publish, clock
        self._logins = [source.fetch() for source in sources]
        self._due = [_due(login, clock.now()) for login in self._logins]
        self._renewing, self._publishing = Lock(), Lock()
        self._stopped = Event()
        self._thread = Thread(target=self._keep_fresh, name="login-renewal", daemon=True)
        self._publish(self._logins)
        self._unpublished = False  # a new login that could not be published yet, as on a full disk

    def refresh(self) -> None:
        """Renew what is due; asks nobody when nothing is.

        Raises:
            PackagerError: A login has expired and can't be renewed.
        """
        self._renew(must=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let nothing be published in the block; what is due comes after it."""
        with self._publishing:
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """Renew in the background for the block; nothing is published after it."""
        try:
            if any(due is not None for due in self._due):
                self._thread.start()
            yield
        finally:
            self._stopped.set()
            with self._publishing:
                pass  # what is being published is done
            if self._thread.is_alive():
                self._thread.join(_JOIN_SECONDS)  # it may be waiting for an answer, and is then left to itself

    def _keep_fresh(self) -> None:
        while not self._clock.wait(self._stopped, self._seconds_to_wait()):
            self._renew_quietly()

    def _renew_quietly(self) -> None:
        try:
            self._renew(must=False)
        except Exception as error:  # noqa: BLE001  (nobody else sees what a thread dies of)
            log.warning("renewing the logins failed: %s: %s", type(error).__name__, error)
            self._clock.wait(self._stopped, _PAUSE.total_seconds())

    def _seconds_to_wait(self) -> float:
        dues = [due for due in self._due if due is not None]
        return max(0.0, min(_PAUSE, min(dues) - self._clock.now()).total_seconds())

    def _renew(self, *, must: bool) -> None:
        with self._renewing:
            for index in range(len(self._sources)):
                self._renew_one(index, must=must)
            with self._publishing:
                if self._unpublished and not self._stopped.is_set():
                    self._publish(self._logins)
                    self._unpublished = False

    def _renew_one(self, index: int, *, must: bool) -> None:
        source, due, login = self._sources[index], self._due[index], self._logins[index]
        if due is None or self._clock.now() < due:
            return
        try:
            self._logins[index] = source.fetch()
        except PackagerError as error:
            self._due[index] = self._clock.now() + _PAUSE
            if must and login is not None and _is_over(login, self._clock.now()):
                raise
            log.warning("the login of %s can't be renewed, and is tried again: %s", source.name, error.message)
            return
        self._unpublished = True
        self._due[index] = _due(self._logins[index], self._clock.now())
        log.debug("renewed the login of %s", source.name)


def _due(login: Credential | None, now: datetime) -> datetime | None:
    """Return when a login that was fetched now is to be renewed, or None for one that lasts."""
    if login is None or login.expires is None:
        return None
    return max(login.expires - min(_MARGIN, (login.expires - now) / 2), now + _PAUSE)


def _is_over(login: Credential, now: datetime) -> bool:
    return login.expires is not None and login.expires <= now
