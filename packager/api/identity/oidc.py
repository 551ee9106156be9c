"""Tokens of an OpenID Connect provider: JWTs for our audience, signed with a published key of the provider.

Discovery: openid.net/specs/openid-connect-discovery-1_0.html. The keys are cached, and refreshed at a limited rate
when a token names an unknown key.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import httpx
import jwt
from anyio import to_thread

from packager.api.identity.base import IdentityUnavailableError, Principal, UnknownCallerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from packager.api.config import ApiSettings

log = logging.getLogger(__name__)

# Asymmetric algorithms only: with others, everyone who has the public key could sign.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_LEEWAY = 30  # seconds of clock skew
_MIN_INTERVAL = 10.0  # seconds between two requests for keys
_MAX_LIFETIMES = 12  # of cached keys while the provider does not answer; it may have withdrawn a key since
_TIMEOUT = 5.0  # seconds
_MAX_BYTES = 1 << 20
_USERNAME_CLAIMS = ("preferred_username", "email", "name", "sub")


class OpenIdConnect:
    """Accepts the tokens of an OpenID Connect provider."""

    def __init__(
        self, settings: ApiSettings, transport: httpx.BaseTransport, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the settings, without a request to the provider."""
        self._issuer = str(settings.oidc_issuer)
        self._audience = str(settings.oidc_audience)
        self._write_claim = settings.oidc_write_claim
        self._lifetime = settings.oidc_keys_seconds
        self._transport = transport
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched: float | None = None
        self._requested: float | None = None
        self._lock = asyncio.Lock()

    async def authenticate(self, token: str) -> Principal:
        """Return the caller of a token.

        Raises:
            UnknownCallerError: The token is invalid, expired, or for another audience.
            IdentityUnavailableError: The provider's keys are unavailable.
        """
        if not token:
            raise UnknownCallerError("a bearer token is required")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise UnknownCallerError("the bearer token is invalid") from error
        key = await self._key(str(header.get("kid", "")))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise UnknownCallerError("the token has expired: log in again") from error
        except jwt.PyJWTError as error:
            raise UnknownCallerError(f"the token is invalid: {error}") from error
        return Principal(username=_name(claims), email=str(claims.get("email", "")), may_write=self._may_write(claims))

    def _may_write(self, claims: dict[str, Any]) -> bool:
        if self._write_claim is None:
            return True
        path, _, wanted = self._write_claim.partition("=")
        found: Any = claims.get(path)
        if found is None:
            found = claims
            for part in path.split("."):
                found = found.get(part) if isinstance(found, dict) else None
        return wanted in found if isinstance(found, list) else found is not None and str(found) == wanted

    async def _key(self, name: str) -> jwt.PyJWK:
        if self._is_stale() or self._find(name) is None:
            async with self._lock:
                if (self._is_stale() or self._find(name) is None) and self._may_request():
                    await self._fetch()
        found = self._find(name)
        if self._fetched is None or self._clock() - self._fetched > _MAX_LIFETIMES * self._lifetime:
            raise IdentityUnavailableError("the identity provider is unreachable: try again later")
        if found is None:
            raise UnknownCallerError("the token is signed with a key that the identity provider does not publish")
        return found

    def _find(self, name: str) -> jwt.PyJWK | None:
        if not name and len(self._keys) == 1:  # a provider with one key may omit its ID
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    def _is_stale(self) -> bool:
        return self._fetched is None or self._clock() - self._fetched > self._lifetime

    def _may_request(self) -> bool:
        return self._requested is None or self._clock() - self._requested >= _MIN_INTERVAL

    async def _fetch(self) -> None:
        self._requested = self._clock()
        try:
            document = await to_thread.run_sync(self._download)
            keys = jwt.PyJWKSet.from_dict(document).keys
        except (httpx.HTTPError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            log.warning("cannot get the keys of the identity provider %s: %s", self._issuer, error)
            return
        self._keys = {
            str(key.key_id or ""): key
            for key in keys
            # A published symmetric key is no secret, and PyJWT would accept its signatures.
            if key.public_key_use in (None, "sig") and key.algorithm_name in ALGORITHMS
        }
        self._fetched = self._clock()

    def _download(self) -> dict[str, Any]:
        with httpx.Client(transport=self._transport, trust_env=False, timeout=_TIMEOUT) as client:
            metadata = _json(client.get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"))
            if metadata.get("issuer") != self._issuer:
                raise ValueError(f"its document names the issuer {str(metadata.get('issuer'))[:200]!r}")
            return _json(client.get(str(metadata["jwks_uri"])))


def _json(answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    if len(answer.content) > _MAX_BYTES:
        raise ValueError("the response is too large")
    found = answer.json()
    if not isinstance(found, dict):
        raise TypeError("the response is not a JSON object")
    return found


def _name(claims: dict[str, Any]) -> str:
    found = next((str(claims[name]) for name in _USERNAME_CLAIMS if claims.get(name)), "")
    return "".join(character if character.isprintable() else "?" for character in found)[:200]
