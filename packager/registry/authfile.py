"""Logins as a docker `config.json`, which every engine reads; the only file that ever holds them."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from packager.errors import DiskFullError, RequestError, UsageError, is_disk_full
from packager.registry.credential_helpers import ask_helpers
from packager.registry.credential_refresh import Clock, CredentialRefresher, Source
from packager.registry.credentials import Credential, docker_credential
from packager.registry.docker_config import CORRECT_IT, DockerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from packager.models.connection import Connection
    from packager.models.reference import Reference

log = logging.getLogger(__name__)


def _ignore(_secrets: Iterable[str]) -> None:
    """Learn nothing."""


@dataclass(frozen=True, kw_only=True)
class LoginContext:
    """What logins depend on besides the connections.

    Attributes:
        base: The base image.
        user: The user's own docker configuration, which counts where the connections say nothing.
        hosts: The hosts that the run speaks with; the user's credential helpers are asked for them.
        environ: The environment of those helpers.
        learn: Told every secret before it is written or used.
        clock: The time.
    """

    base: Reference | None = None
    user: DockerConfig = field(default_factory=DockerConfig)
    hosts: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    learn: Callable[[Iterable[str]], None] = _ignore
    clock: Clock = field(default_factory=Clock)


@dataclass(frozen=True, kw_only=True)
class AuthFile:
    """A docker `config.json` with current logins.

    Attributes:
        path: The file.
        refresh: Renews the logins that are due, and raises RegistryAuthError and its kin where one has expired and
            can't be renewed; costs nothing when none is due.
        hidden: Takes the file away for a block: a program runs that has no business with it.
    """

    path: Path
    refresh: Callable[[], None]
    hidden: Callable[[], AbstractContextManager[None]]


@contextmanager
def open_auth_file(
    push: Connection | None, pull: Connection | None, workspace: Path, context: LoginContext | None = None
) -> Iterator[AuthFile]:
    """Give a docker `config.json` with the connections' logins, and remove it at the end of the block.

    It has mode 0600 in a folder of its own with mode 0700, named `config.json` so that the folder can be a
    DOCKER_CONFIG. The push's login is the one for a whole host that both are of; the pull's is entered for the very
    repository of the base as well. `workspace` is where the private folder is made.

    A login that expires is renewed before it does, and the file replaced.

    Raises:
        RequestError: A connection can't log in to a registry.
        UsageError: The user's entry for a host of the run is broken, and no other login is known for it.
        RegistryAuthError, RegistryUnreachableError, RegistryError: A token can't be had.
    """
    context = context or LoginContext()
    connected = {connection.spec.uri.partition("/")[0] for connection in (push, pull) if connection is not None}
    user = ask_helpers(context.user, [host for host in context.hosts if host not in connected], context.environ)
    context.learn(user.secrets())
    _report_broken_entries(user, set(context.hosts) - connected)
    sources = [_source(connection, context) for connection in (push, None if pull == push else pull)]
    with TemporaryDirectory(prefix="auth-", dir=workspace, ignore_cleanup_errors=True) as folder:
        path = Path(folder, "config.json")

        def publish(logins: Sequence[Credential | None]) -> None:
            held = _with_base(logins, context.base)
            context.learn([secret for login in held for secret in login.secrets()])
            _write(path, user.beneath(held).to_bytes())

        refresher = CredentialRefresher(sources, publish, context.clock)
        with refresher.running():
            yield AuthFile(path=path, refresh=refresher.refresh, hidden=lambda: _hidden(path, refresher))


def _report_broken_entries(user: DockerConfig, hosts: set[str]) -> None:
    """Warn of entries that the run doesn't need.

    Raises:
        UsageError: It needs one of them.
    """
    known = {place.partition("/")[0] for place in user.logins}
    for place, problem in user.broken.items():
        if place.partition("/")[0] in hosts - known:
            raise UsageError(problem, hint=CORRECT_IT)
        log.warning("%s; this entry has no effect", problem)


@contextmanager
def auth_file(
    push: Connection | None, pull: Connection | None, workspace: Path, context: LoginContext | None = None
) -> Iterator[Path]:
    """Give the path of such a file."""
    with open_auth_file(push, pull, workspace, context) as file:
        yield file.path


@contextmanager
def _hidden(path: Path, refresher: CredentialRefresher) -> Iterator[None]:
    with refresher.paused():
        content = path.read_bytes()
        path.unlink()
        try:
            yield
        finally:
            _write(path, content)


def _source(connection: Connection | None, context: LoginContext) -> Source:
    """Return where the login of a connection comes from.

    Raises:
        RequestError: The connection can't log in to a registry.
    """
    if connection is None:
        return Source(name="nobody", fetch=lambda: None)
    kind, name = connection.spec.type, f"connection {connection.id!r}"
    if kind == "ecr":
        from packager.registry.ecr import Ecr  # noqa: PLC0415  (boto3 takes half a second, and few need it)

        return Source(name=name, fetch=Ecr(connection, context.learn).credential)
    if kind != "docker":
        raise RequestError(f"{name}: type {kind!r} is no registry; use docker or ecr")
    login = docker_credential(connection)
    return Source(name=name, fetch=lambda: login)


def _with_base(logins: Sequence[Credential | None], base: Reference | None) -> list[Credential]:
    """Return the logins there are, and the pull's once more, for the repository of the base."""
    held, pull = [login for login in logins if login is not None], logins[1]
    if pull is not None and base is not None and base.host == pull.host:
        held.append(replace(pull, path=base.path))
    return held


def auth_config(credentials: Sequence[Credential]) -> bytes:
    """Write a docker `config.json` with these logins only; where several claim one place, the first wins."""
    return DockerConfig().beneath(credentials).to_bytes()


def login_for(reference: Reference, file: Path) -> Credential | None:
    """Return the login that a docker `config.json` has for a repository, or None where access is anonymous."""
    login = DockerConfig.from_bytes(file.read_bytes()).login_for(reference)
    return None if login is None else replace(login, host=reference.host)


def _write(path: Path, content: bytes) -> None:
    """Write the file whole or not at all: whoever reads it meanwhile has the old one or the new one.

    Raises:
        DiskFullError: There is no space for it.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        if is_disk_full(error):
            raise DiskFullError(
                f"no space left in {path.parent}", hint="name a larger disk in PACKAGER_WORK_DIR"
            ) from error
        raise
