"""What a connection says about logging in to its registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packager.errors import RequestError

if TYPE_CHECKING:
    from packager.models.connection import Connection


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A login for everything below one place of a registry.

    Attributes:
        host: `registry.example.com:5000`.
        path: `team/models`, or empty for the whole registry.
        identity_token: What is exchanged for access instead of a password, or empty.
    """

    host: str
    path: str = ""
    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


def credential_for(connection: Connection) -> Credential | None:
    """Return the login of a connection, or None where access is anonymous.

    Raises:
        RequestError: The connection's type is none that can log in, or its user name can't be sent.
    """
    spec = connection.spec
    if spec.type == "ecr":
        raise RequestError(
            f"connection {connection.id!r}: ecr connections are not supported yet",
            hint="use a docker connection with user AWS and the password that `aws ecr get-login-password` prints",
        )
    if spec.type != "docker":
        raise RequestError(f"connection {connection.id!r}: type {spec.type!r} is no registry; use docker or ecr")
    password = spec.password.get_secret_value()
    if not spec.username and not password:
        return None
    if ":" in spec.username:  # RFC 7617: the user name of basic authentication ends at the first colon
        raise RequestError(f"connection {connection.id!r}: the user name holds a colon, which a registry can't be sent")
    host, _, path = spec.uri.rstrip("/").partition("/")
    return Credential(host=host, path=path, username=spec.username, password=password)
