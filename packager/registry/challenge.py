"""Logging in to a registry: the answer to its challenge, with a password or with a token got for it.

The protocol is that of distribution.github.io/distribution/spec/auth/token and RFC 7617.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Generator

    from packager.registry.credentials import Credential

_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')
_FAILED = (httpx.codes.TOO_MANY_REQUESTS, *range(500, 600))


class ChallengeAuth(httpx.Auth):
    """Asks without a login first, then answers what the registry challenges for, and remembers the answer.

    The password goes to the registry itself and to the token service that it names; never over plain HTTP, unless the
    registry itself is spoken to in plain HTTP; and never to where a blob was redirected.
    """

    def __init__(self, login: Credential | None) -> None:
        """Take the login; None is anonymous, which may need a token as well."""
        self._login = login
        self._answer = ""

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, and once more with an answer when the registry challenges."""
        if self._answer:
            request.headers["Authorization"] = self._answer
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED or response.url.host != request.url.host:
            return
        scheme, parameters = parse_challenge(response.headers.get("WWW-Authenticate", ""))
        if scheme == "basic" and self._login is not None and not self._answer:
            self._answer = _basic(self._login)
        elif scheme == "bearer" and _may_be_asked(parameters.get("realm", ""), request.url):
            answer = yield self._token_request(parameters)
            if answer.status_code in _FAILED:
                return  # the caller sees this status
            answer.read()
            token = _token(answer) if answer.status_code == httpx.codes.OK else ""
            if not token:  # what the registry itself says to nobody is what the caller sees
                request.headers.pop("Authorization", None)
                yield request
                return
            self._answer = f"Bearer {token}"
        else:
            return
        request.headers["Authorization"] = self._answer
        yield request

    def _token_request(self, parameters: dict[str, str]) -> httpx.Request:
        query: dict[str, str] = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        headers = {} if self._login is None else {"Authorization": _basic(self._login)}
        url = httpx.URL(parameters["realm"])
        return httpx.Request("GET", url.copy_merge_params(query), headers=headers)


def _basic(login: Credential) -> str:
    pair = f"{login.username}:{login.password}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """Read a WWW-Authenticate header: the scheme in lower case, and its parameters."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(rest)}


def _may_be_asked(realm: str, registry: httpx.URL) -> bool:
    try:
        url = httpx.URL(realm)
    except httpx.InvalidURL:
        return False
    return bool(url.host) and (url.scheme == "https" or (url.scheme == "http" and registry.scheme == "http"))


def _token(answer: httpx.Response) -> str:
    try:
        document = answer.json()
    except ValueError:
        return ""
    token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else ""
    return token if isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token) else ""
