"""A registry credential, and the one that a connection of type `docker` holds."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packager.errors import RequestError
from packager.models.reference import DOCKER_HUB

if TYPE_CHECKING:
    from datetime import datetime

    from packager.models.connection import Connection

DOCKER_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
TOKEN_USER = "<token>"  # noqa: S105  (docker's own mark, docker/docker-credential-helpers: the secret is an identity token)


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A login for a registry or a path of it: a user and a password, or one of the two kinds of token.

    Attributes:
        host: `registry.example.com:5000`.
        path: `team/models`, or empty for the whole registry.
        username: The user; with an identity token, a name that the registry ignores.
        identity_token: An OAuth 2 refresh token, which the registry's token service exchanges for access tokens.
        registry_token: A bearer token that is sent to the registry as it is.
        expires: When the registry starts to refuse it; None for a login that lasts.
    """

    host: str
    path: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    expires: datetime | None = None

    def entry(self) -> dict[str, str]:
        """Return the login as an entry of a docker `config.json`.

        An identity token comes with a user without a password, as docker writes it: containers-auth.json(5)'s readers
        skip an entry without `auth`, and docker refuses the file when its user is empty.
        """
        entry = {"identitytoken": self.identity_token, "registrytoken": self.registry_token}
        if self.username or self.identity_token:
            entry["auth"] = _basic(self.username or TOKEN_USER, self.password)
        return {name: value for name, value in entry.items() if value}

    def secrets(self) -> list[str]:
        """Return every form of the secret that could be printed, for redaction."""
        held = [self.password, self.identity_token, self.registry_token, *_private_keys(self.password)]
        if self.password:
            held.append(_basic(self.username, self.password))
        return [secret for secret in held if secret]


def _basic(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def _private_keys(password: str) -> list[str]:
    """Return the key within a JSON-key password: a tool that read it may show it without the document around it."""
    try:
        document = json.loads(password) if password.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return []
    key = document.get("private_key") if isinstance(document, dict) else None
    return [key, *key.splitlines()] if isinstance(key, str) else []


def docker_credential(connection: Connection) -> Credential | None:
    """Return the login of a `docker` connection, or None where access is anonymous.

    The user `<token>` marks the password as an identity token, as in docker's credential helpers.

    Raises:
        RequestError: The user name or the password can't be sent.
    """
    spec = connection.spec
    username, password = spec.username, spec.password.get_secret_value()
    if not username and not password:
        return None
    for what, wrong, hint in _problems(username, password):
        if wrong:
            raise RequestError(f"connection {connection.id!r}: {what}", hint=hint)
    host, _, path = spec.uri.rstrip("/").partition("/")
    host = DOCKER_HUB if host in DOCKER_HUB_HOSTS else host
    if username == TOKEN_USER:
        return Credential(host=host, path=path, username=username, identity_token=password)
    return Credential(host=host, path=path, username=username, password=password)


def _problems(username: str, password: str) -> list[tuple[str, bool, str]]:
    """Return each possible problem, whether the connection has it, and what to do."""
    by_name = "give the user's name; for an access token, the one that the registry's documentation names for tokens"
    return [
        ("it has a password but no user name", not username, by_name),
        # RFC 7617: the user name of basic authentication ends at the first colon, and holds no control character
        ("the user name holds a colon, which a registry can't be sent", ":" in username, by_name),
        (
            "the user name holds a line break or another control character",
            any(ord(character) < 32 or ord(character) == 127 for character in username),  # noqa: PLR2004  (ASCII's)
            "take it out; it may come from a file that ends in a line break",
        ),
        (
            "the password holds a NUL character, which docker's file format can't",
            "\0" in password,
            "check where the password comes from; it may have been decoded twice",
        ),
        (
            f"the user {TOKEN_USER} marks the password as an identity token, but there is no password",
            username == TOKEN_USER and not password,
            "give the token as the password",
        ),
    ]
