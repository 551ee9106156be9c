"""What tells who a caller is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A caller.

    Attributes:
        username: For the audit lines.
        email: Where it is known.
        may_write: Whether they may change anything, and see secrets.
    """

    username: str
    email: str = ""
    may_write: bool = False


class UnknownCallerError(Exception):
    """A caller's token is missing or not one that is known; the text says why and may be shown."""


class UnansweredError(Exception):
    """Whether a token is known can't be told at the moment; the text may be shown."""


class Identity(Protocol):
    """Tells who a caller is."""

    async def authenticate(self, token: str) -> Principal:
        """Return the caller with that bearer token; it is empty when there is none.

        Raises:
            UnknownCallerError: The token is not known.
            UnansweredError: That can't be told at the moment.
        """
