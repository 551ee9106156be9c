"""Logging in to a registry: the answer to its challenge, with a password or with a token got for it.

The protocol is that of distribution.github.io/distribution/spec/auth/token and RFC 7617.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from packager.registry import errors, quirks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from packager.registry.credentials import Credential
    from packager.registry.errors import RequestContext

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  (RFC 9110 5.6.2: a word)
_PART = re.compile(  # RFC 9110 11.2 and 11.3: a parameter, else a scheme, which may have a token68
    rf"""(?P<name>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"?|(?P<bare>[^\s,"=][^\s,]*))
    |(?P<scheme>{_TOKEN})(?:\s+[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$)))?""",
    re.VERBOSE,
)
_LOGIN_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
_MAX_TOKEN_BYTES = 1 << 20
_ANSWERABLE = ("bearer", "basic")  # a token is preferred to the password itself


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """One way to log in that a server offers; scheme and parameter names are in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read the WWW-Authenticate headers of a response, each of which may hold several challenges (RFC 9110 11.6.1)."""
    challenges: list[Challenge] = []
    for header in headers:
        current: Challenge | None = None
        for part in _PART.finditer(header):
            if part["scheme"]:
                current = Challenge(scheme=part["scheme"].lower())
                challenges.append(current)
            elif current is not None:
                value = part["bare"] or re.sub(r"\\(.)", r"\1", part["quoted"] or "")
                current.parameters.setdefault(part["name"].lower(), value)
    return challenges


class ChallengeAuth(httpx.Auth):
    """Sends requests without a login first, then answers one of the registry's challenges, and remembers the answer.

    The login is looked up again with each challenge: a short-lived one may have been renewed meanwhile.

    The password goes only to the registry itself and to the token service that it names, never to the target of a
    redirect, and over plain HTTP only if the registry itself speaks plain HTTP.
    """

    def __init__(self, find_login: Callable[[], Credential | None], registry: str, context: RequestContext) -> None:
        """Take the function that finds the login (anonymous access may need a token too), and the root URL."""
        self._find_login = find_login
        self._registry = _origin(httpx.URL(registry))
        self._context = context
        self._answer = ""

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, and once more with an answer when the registry challenges.

        Raises:
            RegistryAuthError: The registry names a token service that no login is sent to, or knows other logins only.
            RegistryError, RetryableError: The token service failed.
        """
        if _origin(request.url) != self._registry:  # where a registry lets uploads go to another server
            yield request
            return
        sent = self._answer
        if sent:
            request.headers["Authorization"] = sent
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED or _origin(response.url) != self._registry:
            return
        challenges = parse_challenges(response.headers.get_list("WWW-Authenticate"))
        login, refusal = self._find_login(), None
        for challenge in sorted(filter(_is_answerable, challenges), key=lambda each: _ANSWERABLE.index(each.scheme)):
            answer = yield from self._answer_to(challenge, login, sent)
            if isinstance(answer, httpx.Response):
                refusal = answer
            elif answer:
                self._answer = request.headers["Authorization"] = answer
                yield request
                return
        if refusal is not None:
            self._check_refusal(refusal)
            request.headers.pop("Authorization", None)
            yield request  # the caller sees the response to anonymous access
            return
        self._explain(challenges)

    def _explain(self, challenges: Sequence[Challenge]) -> None:
        """Raise an error if the registry's challenges are the reason why no login was sent.

        Raises:
            RegistryAuthError: They name a token service in plain HTTP, or only unknown schemes.
        """
        for challenge in challenges:
            if self._is_insecure(challenge):
                raise errors.insecure_token_service(self._context, httpx.URL(challenge.parameters["realm"]))
        if challenges and not any(_is_answerable(challenge) for challenge in challenges):
            raise errors.unknown_login(self._context, [challenge.scheme for challenge in challenges])

    def _answer_to(
        self, challenge: Challenge, login: Credential | None, sent: str
    ) -> Generator[httpx.Request, httpx.Response, str | httpx.Response]:
        """Return the header to send, empty if it is the same; the token service's response if it gave no token."""
        known = ""
        if challenge.scheme == "basic":
            known = _basic(login) if login is not None and login.username else ""
        elif login is not None and login.registry_token:
            known = f"Bearer {login.registry_token}"
        if known or challenge.scheme == "basic":
            return known if known != sent else ""
        if not self._may_be_asked(challenge):
            return ""
        response = yield from self._ask_token_service(challenge, login)
        return f"Bearer {token}" if (token := _token(response)) else response

    def _check_refusal(self, response: httpx.Response) -> None:
        """Check that a token service's response is one about the login.

        Raises:
            RetryableError: Another attempt may succeed.
            RegistryError: The token service failed.
        """
        if response.is_success or response.status_code in _LOGIN_REFUSED:
            return
        body = errors.error_body(response)
        if response.status_code in quirks.RETRYABLE_STATUSES:
            raise errors.retryable(self._context, response, body)
        raise errors.token_service_failure(self._context, response, body)

    def _ask_token_service(
        self, challenge: Challenge, login: Credential | None
    ) -> Generator[httpx.Request, httpx.Response, httpx.Response]:
        url = httpx.URL(challenge.parameters["realm"])
        service = {"service": challenge.parameters["service"]} if "service" in challenge.parameters else {}
        actions = ["pull", "push"] if self._context.verb == "push" else ["pull"]
        scopes = quirks.scopes(self._context.reference.path, actions, challenge.parameters.get("scope", ""))
        if login is not None and login.identity_token:  # .../spec/auth/oauth
            form = {"grant_type": "refresh_token", "client_id": "packager", "refresh_token": login.identity_token}
            given = yield httpx.Request("POST", url, data={**service, "scope": " ".join(scopes), **form})
            if given.status_code not in quirks.NO_REFRESH_TOKENS or not login.password:
                return given
        headers = {} if login is None else {"Authorization": _basic(login)}
        return (yield httpx.Request("GET", url.copy_merge_params({**service, "scope": scopes}), headers=headers))

    def _may_be_asked(self, challenge: Challenge) -> bool:
        url = _realm(challenge)
        return url is not None and (url.scheme == "https" or url.scheme == self._registry[0])

    def _is_insecure(self, challenge: Challenge) -> bool:
        url = _realm(challenge)
        return challenge.scheme == "bearer" and url is not None and not self._may_be_asked(challenge)


def _is_answerable(challenge: Challenge) -> bool:
    return challenge.scheme in _ANSWERABLE


def _realm(challenge: Challenge) -> httpx.URL | None:
    """Return the URL of a challenge's token service; None where it names no valid one."""
    try:
        url = httpx.URL(challenge.parameters.get("realm", ""))
    except httpx.InvalidURL:
        return None
    return url if url.host and url.scheme in ("http", "https") else None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _basic(login: Credential) -> str:
    pair = f"{login.username}:{login.password}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def _token(answer: httpx.Response) -> str:
    """Return the token in a token service's answer; empty where it gave none."""
    if not answer.is_success:
        return ""
    errors.limit_body(answer, _MAX_TOKEN_BYTES)
    answer.read()
    try:
        document = answer.json()
    except (ValueError, RecursionError):
        return ""
    token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else ""
    return token if isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token) else ""
