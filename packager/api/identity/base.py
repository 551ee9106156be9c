"""The protocol of identities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A caller.

    Attributes:
        username: Name in the audit log.
        email: Empty if unknown.
        may_write: Whether the caller may change entities and see secrets.
    """

    username: str
    email: str = ""
    may_write: bool = False


class UnknownCallerError(Exception):
    """The token is missing or invalid; the text gives the reason and is safe to show."""


class IdentityUnavailableError(Exception):
    """The token cannot be verified at the moment; the text is safe to show."""


class Identity(Protocol):
    """Authenticates callers."""

    async def authenticate(self, token: str) -> Principal:
        """Return the caller with that bearer token; an empty token means that the request has none.

        Raises:
            UnknownCallerError: The token is missing or invalid.
            IdentityUnavailableError: The token cannot be verified at the moment.
        """
