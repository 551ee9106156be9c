"""Which identities the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.api.identity.base import Identity, Principal, UnknownCallerError
from packager.api.identity.oidc import OpenIdConnect
from packager.api.identity.tokens import TokenFile

if TYPE_CHECKING:
    import httpx

    from packager.api.config import ApiSettings


class Everyone:
    """Whoever reaches us: only for loopback, which the settings see to."""

    async def authenticate(self, token: str) -> Principal:  # noqa: ARG002  (the protocol's)
        """Return a caller without a name."""
        return Principal(username="anonymous", may_write=True)


class EitherOf:
    """Tokens of the file, and tokens of the provider."""

    def __init__(self, first: Identity, second: Identity) -> None:
        """Take both."""
        self._first, self._second = first, second

    async def authenticate(self, token: str) -> Principal:
        """Return the caller whom either knows.

        Raises:
            UnknownCallerError: Neither does; why the second doesn't.
            UnansweredError: The second can't tell.
        """
        try:
            return await self._first.authenticate(token)
        except UnknownCallerError:
            return await self._second.authenticate(token)


def identity_from(settings: ApiSettings, transport: httpx.BaseTransport) -> Identity:
    """Set up what the settings ask for; the transport is for the provider.

    Raises:
        UsageError: The token file can't be read.
    """
    tokens = TokenFile(settings.tokens_file) if settings.tokens_file else None
    provider = OpenIdConnect(settings, transport) if settings.oidc_issuer else None
    if tokens and provider:
        return EitherOf(tokens, provider)
    return tokens or provider or Everyone()
