"""Logging in: challenges that are read, and which of them is answered with what."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import httpx
import pytest

from packager.errors import RegistryAuthError, RegistryError
from packager.registry.access import RegistryAccess
from packager.registry.challenge import Challenge, ChallengeAuth, parse_challenges
from packager.registry.credentials import Credential
from packager.registry.uploads import check_push
from packager.system.retries import RetryPolicy
from tests.unit.memory_registry import keychain_of
from tests.unit.registry.test_errors import CONTEXT, NAME

if TYPE_CHECKING:
    pass

BASIC = "Basic " + base64.b64encode(b"ann:s3cret-word").decode()
BEARER = 'Bearer realm="https://auth.io/token",service="r.io"'
ANN = Credential(host="r.io", username="ann", password="s3cret-word")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Bearer realm="https://a/t",service="s",scope="a:b:pull,push"'],
         [("bearer", {"realm": "https://a/t", "service": "s", "scope": "a:b:pull,push"})]),
        (["BASIC Realm=x , charset=UTF-8"], [("basic", {"realm": "x", "charset": "UTF-8"})]),
        (['Bearer realm = "https://a/t" service="s"'], [("bearer", {"realm": "https://a/t", "service": "s"})]),
        (["Negotiate", 'Basic realm="Corporate Login"'], [("negotiate", {}), ("basic", {"realm": "Corporate Login"})]),
        (['Negotiate, Basic realm="a, Bearer b=c"'], [("negotiate", {}), ("basic", {"realm": "a, Bearer b=c"})]),
        (['Negotiate a87421bff012e83c==, Basic realm="x"'], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (["NTLM , Basic"], [("ntlm", {}), ("basic", {})]),
        (['Digest realm="a", qop="auth,auth-int", nonce=b==, Basic realm="c"'],
         [("digest", {"realm": "a", "qop": "auth,auth-int", "nonce": "b=="}), ("basic", {"realm": "c"})]),
        (['Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""'],  # RFC 9110's own example
         [("basic", {"realm": "simple"}), ("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'})]),
        (['Basic realm="x", realm="y"'], [("basic", {"realm": "x"})]),
        (['Basic realm=""'], [("basic", {"realm": ""})]),
        (['Basic realm="never ends', 'Bearer realm="https://a/t"'],
         [("basic", {"realm": "never ends"}), ("bearer", {"realm": "https://a/t"})]),
        (['realm="of nothing"', "", " , ,"], []),
    ],
)  # fmt: skip
def test_challenges_are_parsed(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(headers) == [Challenge(scheme=scheme, parameters=each) for scheme, each in expected]


def reply(status: int, content: bytes = b"", headers: list[tuple[str, str]] | None = None) -> httpx.Response:
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))


@dataclass
class Door:
    """A registry that wants one of some logins, and its token service at auth.io."""

    challenges: list[str]
    accepts: str
    statuses: list[int] = field(default_factory=list)
    token: bytes = b'{"token": "t0ken"}'
    asked: list[httpx.Request] = field(default_factory=list)
    seen: list[str | None] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.io":
            self.asked.append(request)
            return reply(self.statuses.pop(0), b"{}") if self.statuses else reply(201, self.token)
        if request.method == "DELETE":  # the upload that was begun
            return reply(204)
        self.seen.append(request.headers.get("Authorization"))
        if self.seen[-1] == self.accepts:
            return reply(202, headers=[("Location", "/v2/team/base/blobs/uploads/1")])
        headers = [("WWW-Authenticate", each) for each in self.challenges]
        return reply(401, b'{"errors": [{"code": "UNAUTHORIZED"}]}', headers)


def begin(handler: Any, *logins: Credential) -> None:
    """Begin an upload, as before a push."""
    retries = RetryPolicy(seconds=20, sleep=lambda _seconds: None)
    check_push(
        NAME, RegistryAccess(keychain=keychain_of(*logins)), transport=httpx.MockTransport(handler), retries=retries
    )


@pytest.mark.parametrize(
    ("challenges", "accepts"),
    [
        (["Negotiate", 'Basic realm="Corporate Login"'], BASIC),
        (['Negotiate, Basic realm="Corporate Login"'], BASIC),
        (['Digest realm="a", nonce="b", Basic realm="c"'], BASIC),
        (['Basic realm="c"', BEARER], "Bearer t0ken"),
        ([f'Basic realm="c", {BEARER}'], "Bearer t0ken"),
        ([f'{BEARER}, Basic realm="c"'], "Bearer t0ken"),
        (['Bearer realm="http://auth.io/token"', 'Basic realm="c"'], BASIC),
        (['Bearer realm="nowhere"', 'Basic realm="c"'], BASIC),
    ],
)
def test_answerable_challenge_is_chosen(challenges: list[str], accepts: str) -> None:
    door = Door(challenges, accepts)
    begin(door, ANN)
    assert door.seen == [None, accepts]


@pytest.mark.parametrize("statuses", [[404], [400], [401], [503]])
def test_password_is_sent_when_the_token_service_gives_no_token(statuses: list[int]) -> None:
    door = Door(['Basic realm="c"', BEARER], BASIC, statuses=statuses)
    begin(door, ANN)
    assert door.seen == [None, BASIC]


def test_refused_token_is_sent_again_when_it_is_given_again() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if refusals and request.url.host != "auth.io":
            return refusals.pop()
        return door(request)

    refusals: list[httpx.Response] = []
    door = Door([BEARER], "Bearer t0ken")
    auth = ChallengeAuth(lambda: ANN, "https://r.io", CONTEXT)
    with httpx.Client(transport=httpx.MockTransport(answer), auth=auth) as client:
        assert client.get("https://r.io/v2/").status_code == 202
        refusals.append(reply(401, headers=[("WWW-Authenticate", BEARER)]))
        assert client.get("https://r.io/v2/").status_code == 202
    assert len(door.asked) == 2


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("", ["repository:team/base:pull,push"]),
        ("repository:team/base:pull", ["repository:team/base:pull,push"]),
        ("repository:team/base:push,pull", ["repository:team/base:pull,push"]),
        ("repository:team/base:delete", ["repository:team/base:pull,push", "repository:team/base:delete"]),
        ("repository:team/base:pull,push repository:lib/python:pull",
         ["repository:team/base:pull,push", "repository:lib/python:pull"]),
    ],
)  # fmt: skip
def test_each_scope_is_its_own_parameter(scope: str, expected: list[str]) -> None:
    door = Door([f'{BEARER},scope="{scope}"' if scope else BEARER], "Bearer t0ken")
    auth = ChallengeAuth(lambda: ANN, "https://r.io", CONTEXT)
    with httpx.Client(transport=httpx.MockTransport(door), auth=auth) as client:
        assert client.get("https://r.io/v2/").status_code == 202
    assert door.asked[0].url.params.get_list("scope") == expected


def test_token_service_in_plain_http_is_refused() -> None:
    door = Door(['Bearer realm="http://auth.io:8080/token?secret=1"'], "no login")
    with pytest.raises(RegistryAuthError) as caught:
        begin(door, ANN)
    assert "in plain HTTP, http://auth.io:8080, to which no login is sent" in caught.value.message
    assert "X-Forwarded-Proto" in caught.value.hint
    assert "externalURL" in caught.value.hint
    assert door.asked == []


def test_registry_with_unknown_schemes_only_is_an_error() -> None:
    with pytest.raises(
        RegistryAuthError, match=r"r\.io offers no login with a password or a token, but only: negotiate, ntlm"
    ):
        begin(Door(["Negotiate", "NTLM"], "no login"), ANN)


def test_failing_token_service_is_named() -> None:
    door = Door([BEARER], "no login", statuses=[400])
    with pytest.raises(RegistryError) as caught:
        begin(door, ANN)
    assert "the token service of the registry r.io, https://auth.io, answered 400 Bad Request" in caught.value.message


def test_token_service_is_retried() -> None:
    door = Door([BEARER], "Bearer t0ken", statuses=[503, 429])
    begin(door, ANN)
    assert len(door.asked) == 3


@pytest.mark.parametrize("status", [404, 405])
def test_token_service_without_refresh_tokens_gets_the_password(status: int) -> None:
    login = Credential(host="r.io", username="ann", password="s3cret-word", identity_token="id-token")
    door = Door([BEARER], "Bearer t0ken", statuses=[status])
    begin(door, login)
    assert [(each.method, each.headers.get("Authorization")) for each in door.asked] == [("POST", None), ("GET", BASIC)]
    assert parse_qs(door.asked[0].content.decode())["scope"] == ["repository:team/base:pull,push"]


@pytest.mark.parametrize(
    "token", [{"token": "t0ken"}, {"access_token": "t0ken"}, {"token": "", "access_token": "t0ken"}]
)
def test_token_has_one_of_two_names(token: dict[str, str]) -> None:
    begin(Door([BEARER], "Bearer t0ken", token=json.dumps(token).encode()))
