"""Logins in memory: which credential is sent to which repository.

A credential is looked for in the packaging's connections, then in the user's docker configuration, then in the user's
credential helpers; without one, access is anonymous. A connection to Amazon ECR gets a token, which is renewed when it
is used and about to expire. Only programs that need a file get one: see `authfile`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from threading import Event, Lock
from typing import TYPE_CHECKING

from packager.errors import PackagerError, RequestError, UsageError
from packager.registry.credentials import Credential, docker_credential
from packager.registry.docker_config import CORRECT_IT, DockerConfig, ask_helpers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from packager.models.connection import Connection
    from packager.models.reference import Reference

log = logging.getLogger(__name__)

_MARGIN = timedelta(hours=1)  # a token is renewed so long before it expires, at most half of its lifetime
_RETRY_INTERVAL = timedelta(minutes=1)  # between two attempts to renew a token


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _ignore(_secrets: Iterable[str]) -> None:
    """Register no secret."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The time; `wait` waits for an event for so many seconds, and tells whether it came."""

    now: Callable[[], datetime] = _now
    wait: Callable[[Event, float], bool] = Event.wait


@dataclass(frozen=True, kw_only=True)
class LoginContext:
    """The surroundings that logins depend on, besides the connections.

    Attributes:
        base: The base image.
        user: The user's own docker configuration.
        hosts: The registries of the run; the user's credential helpers are asked for their logins.
        environ: The environment of those helpers.
        register_secrets: Takes every secret before it is used, for redaction.
        clock: The time.
    """

    base: Reference | None = None
    user: DockerConfig = field(default_factory=DockerConfig)
    hosts: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    register_secrets: Callable[[Iterable[str]], None] = _ignore
    clock: Clock = field(default_factory=Clock)


class ConnectionLogin:
    """The login of one connection; one that expires is renewed before it does."""

    def __init__(self, name: str, fetch: Callable[[], Credential | None], clock: Clock) -> None:
        """Fetch the login; `name` is the connection's in the log.

        Raises:
            PackagerError: The login can't be fetched.
        """
        self._name, self._fetch, self._clock = name, fetch, clock
        self.credential = fetch()
        self._due = self._next_renewal()

    @property
    def expires(self) -> bool:
        """Whether the login has to be renewed at some time."""
        return self._due is not None

    def renew(self) -> None:
        """Renew the login if it is due.

        Raises:
            PackagerError: It has expired, and can't be renewed.
        """
        now = self._clock.now()
        if self._due is None or now < self._due:
            return
        self._due = now + _RETRY_INTERVAL
        try:
            self.credential = self._fetch()
        except PackagerError as error:
            if self.credential and self.credential.expires and self.credential.expires <= now:
                raise
            log.warning("the login of %s can't be renewed yet: %s", self._name, error.message)
            return
        self._due = self._next_renewal()
        log.debug("renewed the login of %s", self._name)

    def _next_renewal(self) -> datetime | None:
        """Return when a login that was fetched now is to be renewed, or None for one that lasts."""
        if self.credential is None or self.credential.expires is None:
            return None
        now, expires = self._clock.now(), self.credential.expires
        return max(expires - min(_MARGIN, (expires - now) / 2), now + _RETRY_INTERVAL)


class Keychain:
    """The logins of a run. Threads may share it."""

    def __init__(
        self,
        push: ConnectionLogin | None = None,
        pull: ConnectionLogin | None = None,
        *,
        user: DockerConfig | None = None,
        base: Reference | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Take the logins of the connections and of the user; for the base image the pull's counts first."""
        self._push, self._pull = push, pull
        self._user, self._base = user or DockerConfig(), base
        self.clock = clock or Clock()
        self._lock = Lock()

    @classmethod
    def open(cls, push: Connection | None, pull: Connection | None, context: LoginContext | None = None) -> Keychain:
        """Fetch the logins of the connections, and those of the user's credential helpers.

        Raises:
            RequestError: A connection can't log in to a registry.
            UsageError: The user's entry for a host of the run is broken, and no other login is known for it.
            RegistryAuthError, RegistryUnreachableError, RegistryError: A token can't be fetched.
        """
        context = context or LoginContext()
        connected = {connection.spec.uri.partition("/")[0] for connection in (push, pull) if connection is not None}
        user = ask_helpers(context.user, [host for host in context.hosts if host not in connected], context.environ)
        context.register_secrets(user.secrets())
        _report_broken_entries(user, set(context.hosts) - connected)
        logins = [
            None if connection is None else _login_of(connection, context)
            for connection in (push, None if pull == push else pull)
        ]
        return cls(*logins, user=user, base=context.base, clock=context.clock)

    @property
    def expires(self) -> bool:
        """Whether a login has to be renewed at some time."""
        return any(login.expires for login in self._logins())

    def login_for(self, reference: Reference) -> Credential | None:
        """Return the current login for a repository, or None where access is anonymous.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It has expired, and can't be renewed.
        """
        self.renew(reference.host)
        return self.docker_config().login_for(reference)

    def renew(self, host: str | None = None) -> None:
        """Renew the logins for a host, or for all, that are about to expire; without such, nothing is asked.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: One has expired, and can't be renewed.
        """
        failures = []
        with self._lock:
            for login in self._logins():
                if host is None or (login.credential is not None and login.credential.host == host):
                    try:
                        login.renew()
                    except PackagerError as error:
                        failures.append(error)
        if failures:
            raise failures[0]

    def docker_config(self) -> DockerConfig:
        """Return all logins as a docker configuration: the connections' above the user's.

        For a host of both connections the push's login counts, and the pull's for the repository of the base.
        """
        credentials = [login.credential for login in self._logins() if login.credential is not None]
        pull = self._pull.credential if self._pull is not None else None
        if pull is not None and self._base is not None and self._base.host == pull.host:
            credentials.append(replace(pull, path=self._base.path))
        return self._user.with_logins(credentials)

    def _logins(self) -> list[ConnectionLogin]:
        return [login for login in (self._push, self._pull) if login is not None]


def _login_of(connection: Connection, context: LoginContext) -> ConnectionLogin:
    """Fetch the login of a connection.

    Raises:
        RequestError: The connection can't log in to a registry.
    """
    kind, name = connection.spec.type, f"connection {connection.id!r}"
    if kind == "ecr":
        from packager.registry.ecr import Ecr  # noqa: PLC0415  (boto3 takes half a second, and few need it)

        return ConnectionLogin(name, Ecr(connection, context.register_secrets).credential, context.clock)
    if kind != "docker":
        raise RequestError(f"{name}: type {kind!r} is not a registry; use docker or ecr")
    login = docker_credential(connection)
    context.register_secrets(login.secrets() if login else [])
    return ConnectionLogin(name, lambda: login, context.clock)


def _report_broken_entries(user: DockerConfig, hosts: set[str]) -> None:
    """Warn of the user's broken entries that the run doesn't need.

    Raises:
        UsageError: The run needs one of them.
    """
    known = {place.partition("/")[0] for place in user.logins}
    for place, problem in user.broken.items():
        if place.partition("/")[0] in hosts - known:
            raise UsageError(problem, hint=CORRECT_IT)
        log.warning("%s; this entry has no effect", problem)
