"""Authentication of callers: tokens of a file, tokens of an OpenID Connect provider, or everyone on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.api.identity.base import Identity, Principal, UnknownCallerError
from packager.api.identity.oidc import OpenIdConnect
from packager.api.identity.tokens import TokenFile

if TYPE_CHECKING:
    import httpx

    from packager.api.config import ApiSettings

__all__ = ["Identity", "Principal", "UnknownCallerError", "identity_from"]


class Everyone:
    """Accepts every caller; the settings allow it on loopback addresses only."""

    async def authenticate(self, token: str) -> Principal:  # noqa: ARG002  (the protocol's)
        """Return an anonymous caller."""
        return Principal(username="anonymous", may_write=True)


class EitherOf:
    """Accepts the callers of two identities."""

    def __init__(self, first: Identity, second: Identity) -> None:
        """Try the first, then the second."""
        self._first, self._second = first, second

    async def authenticate(self, token: str) -> Principal:
        """Return the caller that either of them knows.

        Raises:
            UnknownCallerError: Both refuse the token; with the reason of the second.
            IdentityUnavailableError: The second cannot verify it now.
        """
        try:
            return await self._first.authenticate(token)
        except UnknownCallerError:
            return await self._second.authenticate(token)


def identity_from(settings: ApiSettings, transport: httpx.BaseTransport) -> Identity:
    """Create the identity that the settings configure; the transport is for the OpenID Connect provider.

    Raises:
        UsageError: The token file is unreadable or invalid.
    """
    tokens = TokenFile(settings.tokens_file) if settings.tokens_file else None
    provider = OpenIdConnect(settings, transport) if settings.oidc_issuer else None
    if tokens and provider:
        return EitherOf(tokens, provider)
    return tokens or provider or Everyone()
