"""Tokens of an OpenID Connect provider: JWTs for our audience, signed with a key that the provider publishes.

The provider's document is that of openid.net/specs/openid-connect-discovery-1_0.html; its keys are kept for a while,
and asked for anew, not too often, when a token names one that isn't among them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import httpx
import jwt
from anyio import to_thread

from packager.api.identity.base import Principal, UnansweredError, UnknownCallerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from packager.api.config import ApiSettings

log = logging.getLogger(__name__)

# Asymmetric ones only: with the others whoever knows the public key could sign.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_LEEWAY = 30  # seconds that two machines' clocks may differ
_PAUSE = 10.0  # seconds between two requests for keys, whatever tokens come
_OLDEST = 12  # lifetimes that keys are good for while the provider doesn't answer: by then one may be withdrawn
_TIMEOUT = 5.0
_LARGEST = 1 << 20
_NAMES = ("preferred_username", "email", "name", "sub")


class OpenIdConnect:
    """The callers that a provider knows."""

    def __init__(
        self, settings: ApiSettings, transport: httpx.BaseTransport, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the issuer, the audience and the claim of who may write; nothing is asked yet."""
        self._issuer = str(settings.oidc_issuer)
        self._audience = str(settings.oidc_audience)
        self._write_claim = settings.oidc_write_claim
        self._lifetime = settings.oidc_keys_seconds
        self._transport = transport
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._lock = asyncio.Lock()

    async def authenticate(self, token: str) -> Principal:
        """Return the caller that a token is about.

        Raises:
            UnknownCallerError: It's none of this provider's for this audience, or it has expired.
            UnansweredError: The provider's keys can't be had.
        """
        if not token:
            raise UnknownCallerError("a bearer token is needed")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise UnknownCallerError("the bearer token is not known") from error
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
            raise UnknownCallerError(f"the token is refused: {error}") from error
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
                if (self._is_stale() or self._find(name) is None) and self._may_ask():
                    await self._fetch()
        found = self._find(name)
        if self._fetched is None or self._clock() - self._fetched > _OLDEST * self._lifetime:
            raise UnansweredError("the identity provider can't be reached: try again in a moment")
        if found is None:
            raise UnknownCallerError("the token is signed with a key that the identity provider doesn't publish")
        return found

    def _find(self, name: str) -> jwt.PyJWK | None:
        if not name and len(self._keys) == 1:  # a provider with one key need not name it
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    def _is_stale(self) -> bool:
        return self._fetched is None or self._clock() - self._fetched > self._lifetime

    def _may_ask(self) -> bool:
        return self._tried is None or self._clock() - self._tried >= _PAUSE

    async def _fetch(self) -> None:
        self._tried = self._clock()
        try:
            document = await to_thread.run_sync(self._ask)
            keys = jwt.PyJWKSet.from_dict(document).keys
        except (httpx.HTTPError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            log.warning("the keys of the identity provider %s can't be had: %s", self._issuer, error)
            return
        self._keys = {
            str(key.key_id or ""): key
            for key in keys
            # A symmetric one that is published is everyone's, and PyJWT goes by the key's algorithm.
            if key.public_key_use in (None, "sig") and key.algorithm_name in ALGORITHMS
        }
        self._fetched = self._clock()

    def _ask(self) -> dict[str, Any]:
        with httpx.Client(transport=self._transport, trust_env=False, timeout=_TIMEOUT) as client:
            about = _json(client.get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"))
            if about.get("issuer") != self._issuer:
                raise ValueError(f"its document names the issuer {str(about.get('issuer'))[:200]!r}")
            return _json(client.get(str(about["jwks_uri"])))


def _json(answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    if len(answer.content) > _LARGEST:
        raise ValueError("its answer is too large")
    found = answer.json()
    if not isinstance(found, dict):
        raise TypeError("its answer is no JSON object")
    return found


def _name(claims: dict[str, Any]) -> str:
    found = next((str(claims[name]) for name in _NAMES if claims.get(name)), "")
    return "".join(character if character.isprintable() else "?" for character in found)[:200]
