"""Logging in to a registry: the answer to its challenge, with a password or with a token got for it.

The protocol is that of distribution.github.io/distribution/spec/auth/token and RFC 7617.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import httpx

from packager.registry.response_limits import MOST_TOKEN_BYTES, bound

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from packager.registry.credentials import Credential

_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')
_FAILED = (httpx.codes.TOO_MANY_REQUESTS, *range(500, 600))


class ChallengeAuth(httpx.Auth):
    """Asks without a login first, then answers what the registry challenges for, and remembers the answer.

    The login is asked for anew with each challenge: a short-lived one may have been renewed meanwhile.

    The password goes to the registry itself and to the token service that it names; never over plain HTTP, unless the
    registry itself is spoken to in plain HTTP; and never to where a download or an upload is sent on to.
    """

    def __init__(self, find_login: Callable[[], Credential | None], registry: str) -> None:
        """Take what finds the login (None is anonymous, which may need a token as well), and the registry's root."""
        self._find_login = find_login
        self._registry = _origin(httpx.URL(registry))
        self._answer = ""

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, and once more with an answer when the registry challenges."""
        if _origin(request.url) != self._registry:  # where a registry lets uploads go to another server
            yield request
            return
        sent = self._answer
        if sent:
            request.headers["Authorization"] = sent
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED or _origin(response.url) != self._registry:
            return
        scheme, parameters = parse_challenge(response.headers.get("WWW-Authenticate", ""))
        login = self._find_login()
        if scheme == "basic" and login is not None and _basic(login) != sent:
            answer = _basic(login)
        elif scheme == "bearer" and login is not None and login.registry_token:
            answer = f"Bearer {login.registry_token}"
            if answer == sent:
                return
        elif scheme == "bearer" and _may_be_asked(parameters.get("realm", ""), request.url):
            given = yield _token_request(parameters, login)
            if given.status_code in _FAILED:
                return  # the caller sees this status
            token = _token(given) if given.status_code == httpx.codes.OK else ""
            if not token:  # what the registry itself says to nobody is what the caller sees
                request.headers.pop("Authorization", None)
                yield request
                return
            answer = f"Bearer {token}"
        else:
            return
        self._answer = request.headers["Authorization"] = answer
        yield request


def _token_request(parameters: dict[str, str], login: Credential | None) -> httpx.Request:
    query: dict[str, str] = {name: parameters[name] for name in ("service", "scope") if name in parameters}
    url = httpx.URL(parameters["realm"])
    if login is not None and login.identity_token:  # .../spec/auth/oauth
        form = {"grant_type": "refresh_token", "client_id": "packager", "refresh_token": login.identity_token}
        return httpx.Request("POST", url, data={**query, **form})
    headers = {} if login is None else {"Authorization": _basic(login)}
    return httpx.Request("GET", url.copy_merge_params(query), headers=headers)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


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
    bound(answer, MOST_TOKEN_BYTES)
    answer.read()
    try:
        document = answer.json()
    except (ValueError, RecursionError):
        return ""
    token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else ""
    return token if isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token) else ""
