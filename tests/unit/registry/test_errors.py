"""The check before a push, statuses that are retried, and the errors that responses mean."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import httpx
import pytest

from packager.errors import RegistryAuthError, RegistryError, RegistryUnreachableError
from packager.models.reference import Reference
from packager.registry import errors as registry_errors
from packager.registry.access import RegistryAccess
from packager.registry.challenge import ChallengeAuth
from packager.registry.credentials import Credential
from packager.registry.uploads import check_push
from packager.system.retries import RetryPolicy, is_tls_error
from tests.unit.memory_registry import keychain_of
from tests.unit.registry.test_client import ANN, registry, reply
from tests.unit.upload_registry import Lost, UploadRegistry

if TYPE_CHECKING:
    pass

NAME = Reference.parse("r.io/team/base:1")
CONTEXT = registry_errors.RequestContext(verb="push", reference=NAME, user="ann")


@dataclass
class Clock:
    """Time that passes only while somebody sleeps."""

    now: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tenacity.time.monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def access() -> RegistryAccess:
    return RegistryAccess(keychain=keychain_of(ANN))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 425, 429, 500, 501, 502, 503, 504, 507])
def test_statuses_are_retried_or_not(access: RegistryAccess, clock: Clock, status: int) -> None:
    fake = UploadRegistry(plan={"POST": [status]})
    transport, retries = httpx.MockTransport(fake), RetryPolicy(seconds=60, sleep=clock.sleep)
    if status in (408, 425, 429, 500, 502, 503, 504):
        check_push(NAME, access, transport=transport, retries=retries)
        assert fake.counts["POST"] == 2
    else:
        with pytest.raises(RegistryError):
            check_push(NAME, access, transport=transport, retries=retries)
        assert fake.counts["POST"] == 1
    assert fake.open == {}


def errors(code: str, message: str = "") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "error", "words", "hint"),
    [
        (401, errors("UNAUTHORIZED", "who?"), RegistryAuthError, "user 'ann': UNAUTHORIZED: who?", "user and password"),
        (401, errors("DENIED", "not you"), RegistryAuthError, "user 'ann' for this: DENIED", "push at r.io/team/base"),
        (403, b"", RegistryAuthError, "user 'ann' for this: 403 Forbidden", "let this user push"),
        (404, errors("NAME_UNKNOWN", "no team"), RegistryError, "answered 404 NAME_UNKNOWN: no team", "log of r.io"),
        (405, errors("UNSUPPORTED", "read-only"), RegistryError, "answered 405 UNSUPPORTED: read-only", "log of r.io"),
        (413, b"<html>", RegistryError, "of this size: 413 Request Entity Too Large", "client_max_body_size"),
        (507, b"", RegistryError, "answered 507 Insufficient Storage", "out of space"),
    ],
)
def test_check_before_a_push_reports_refusals(
    access: RegistryAccess, status: int, body: bytes, error: type[Exception], words: str, hint: str
) -> None:
    with pytest.raises(RegistryError) as caught:
        check_push(NAME, access, transport=httpx.MockTransport(lambda _request: reply(status, body)))
    assert type(caught.value) is error
    assert caught.value.message.startswith("push of r.io/team/base:1")
    assert words in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("deleted", [None, 401, 405, 500, Lost()])
def test_check_before_a_push_leaves_no_upload(access: RegistryAccess, clock: Clock, deleted: Any) -> None:
    fake = UploadRegistry(plan={"DELETE": [deleted]})
    check_push(NAME, access, transport=httpx.MockTransport(fake), retries=RetryPolicy(seconds=60, sleep=clock.sleep))
    assert fake.methods() == ["POST", "DELETE"], "calling it off is tried once"
    assert clock.now == 0
    assert fake.blobs == {}


def test_refused_anonymous_access_asks_for_a_connection() -> None:
    with pytest.raises(RegistryAuthError, match="none were sent, as no connection") as caught:
        check_push(NAME, RegistryAccess(), transport=httpx.MockTransport(lambda _request: reply(401)))
    assert caught.value.hint == "give the docker-push target a connection for r.io with user and password"


def test_identity_token_is_exchanged() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.io":
            assert (request.method, request.headers.get("Authorization")) == ("POST", None)
            forms.append(parse_qs(request.content.decode()))
            return httpx.Response(200, json={"access_token": "short"})
        if request.headers.get("Authorization") == "Bearer short":
            return httpx.Response(200)
        challenge = 'Bearer realm="https://auth.io/t",service="r.io",scope="repository:team/base:pull,push"'
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    forms: list[dict[str, list[str]]] = []
    login = Credential(host="r.io", username="<token>", password="", identity_token="id+t0ken")
    auth = ChallengeAuth(lambda: login, "https://r.io", CONTEXT)
    with httpx.Client(transport=httpx.MockTransport(answer), auth=auth) as client:
        assert client.get("https://r.io/v2/").status_code == 200
        assert client.get("https://r.io/v2/").status_code == 200
    assert forms == [
        {
            "grant_type": ["refresh_token"],
            "client_id": ["packager"],
            "refresh_token": ["id+t0ken"],
            "service": ["r.io"],
            "scope": ["repository:team/base:pull,push"],
        }
    ]


def test_renewed_login_is_sent() -> None:
    fake = registry(challenge='Basic realm="x"')
    transport, found = httpx.MockTransport(fake), [ANN]
    with httpx.Client(transport=transport, auth=ChallengeAuth(lambda: found[-1], "https://r.io", CONTEXT)) as client:
        url = "https://r.io/v2/team/base/manifests/1"
        for password in ("first", "second"):
            found.append(Credential(host="r.io", username="u", password=password))
            fake.accepts = httpx.BasicAuth("u", password)._auth_header  # noqa: SLF001  (what it would send)
            assert client.get(url).status_code == 200


@pytest.mark.parametrize(
    ("code", "words", "hint"),
    [
        (10, "the certificate of r.io has expired", "renew it"),
        (9, "is not valid yet", "clocks"),
        (62, "is for another name: Hostname mismatch", "use the host name in the certificate"),
        (64, "is for another name: ", "use the host name in the certificate"),
        (18, "can't be trusted: ", "PACKAGER_CA_FILE"),
        (20, "can't be trusted: ", "PACKAGER_CA_FILE"),
    ],
)
def test_refused_certificates_have_their_messages(code: int, words: str, hint: str) -> None:
    cause = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")
    cause.verify_code, cause.verify_message = code, "Hostname mismatch, certificate is not valid for 'r.io'."
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]")
    error.__cause__ = cause
    error_text = registry_errors.unreachable(CONTEXT, error)
    assert isinstance(error_text, RegistryUnreachableError)
    assert words in error_text.message
    assert hint in error_text.hint
    assert is_tls_error(error)


def test_text_of_a_registry_is_sanitized() -> None:
    body = errors("X", "\x1b[31mred\n" + "long " * 1000)
    error_text = registry_errors.refusal(CONTEXT, httpx.Response(400), body).message
    assert "\x1b" not in error_text
    assert "\n" not in error_text
    assert len(error_text) < 500
