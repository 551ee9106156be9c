"""Logins as a docker `config.json`, which every engine reads; the only file that ever holds them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from packager.errors import RequestError
from packager.interruption import private_folder
from packager.registry.credentials import Credential, docker_credential
from packager.registry.docker_config import DockerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from packager.models.connection import Connection
    from packager.models.reference import Reference


def _ignore(_secrets: Iterable[str]) -> None:
    """Learn nothing."""


@dataclass(frozen=True, kw_only=True)
class LoginContext:
    """What logins depend on besides the connections.

    Attributes:
        base: The base image.
        user: The user's own docker configuration, which counts where the connections say nothing.
        learn: Told every secret before it is written or used.
    """

    base: Reference | None = None
    user: DockerConfig = field(default_factory=DockerConfig)
    learn: Callable[[Iterable[str]], None] = _ignore


@contextmanager
def auth_file(
    push: Connection | None, pull: Connection | None, workspace: Path, context: LoginContext | None = None
) -> Iterator[Path]:
    """Give a docker `config.json` with the connections' logins, and remove it at the end of the block.

    It has mode 0600 in a folder of its own with mode 0700, named `config.json` so that the folder can be a
    DOCKER_CONFIG. The push's login is the one for a whole host that both are of; the pull's is entered for the very
    repository of the base as well. `workspace` is where the private folder is made.

    Raises:
        RequestError: A connection can't log in to a registry.
    """
    context = context or LoginContext()
    context.learn(context.user.secrets())
    logins = [credential_for(connection) if connection is not None else None for connection in (push, pull)]
    credentials = [login for login in logins if login is not None]
    for login in credentials:
        context.learn(login.secrets())
    if logins[1] is not None and context.base is not None and context.base.host == logins[1].host:
        credentials.append(replace(logins[1], path=context.base.path))
    with private_folder("auth-", workspace) as folder:
        path = folder / "config.json"
        _write(path, context.user.beneath(credentials).to_bytes())
        yield path


def credential_for(connection: Connection) -> Credential | None:
    """Return the login of a connection, or None where access is anonymous.

    Raises:
        RequestError: The connection's type is none that can log in, or its user name can't be sent.
    """
    if connection.spec.type == "ecr":
        raise RequestError(
            f"connection {connection.id!r}: ecr connections are not supported yet",
            hint="use a docker connection with user AWS and the password that `aws ecr get-login-password` prints",
        )
    if connection.spec.type != "docker":
        raise RequestError(
            f"connection {connection.id!r}: type {connection.spec.type!r} is no registry; use docker or ecr"
        )
    return docker_credential(connection)


def auth_config(credentials: Sequence[Credential]) -> bytes:
    """Write a docker `config.json` with these logins only; where several claim one place, the first wins."""
    return DockerConfig().beneath(credentials).to_bytes()


def login_for(reference: Reference, file: Path) -> Credential | None:
    """Return the login that a docker `config.json` has for a repository, or None where access is anonymous.

    A login that only a credential helper knows is not asked for.
    """
    login = DockerConfig.from_bytes(file.read_bytes()).login_for(reference)
    return None if login is None else replace(login, host=reference.host)


def _write(path: Path, content: bytes) -> None:
    """Write the file whole or not at all: whoever reads it meanwhile has the old one or the new one."""
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)
