"""The registry client against a registry that lives in its transport: real requests and answers, no socket."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from packager.errors import (
    ImageNotFoundError,
    PackagerError,
    RegistryAuthError,
    RegistryError,
    RegistryUnreachableError,
)
from packager.models.reference import Reference
from packager.registry.access import RegistryAccess, Trust, find_insecure_hosts
from packager.registry.client import Repository
from packager.registry.credentials import Credential
from packager.system.retries import RetryPolicy
from tests.unit.memory_registry import keychain_of

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ANN = Credential(host="r.io", username="ann", password='pä"ss:word')
BASIC = "Basic " + base64.b64encode('ann:pä"ss:word'.encode()).decode()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


CONFIG = json.dumps({"architecture": "amd64", "config": {"Env": ["A=b"]}}).encode()
LAYER = b"layer" * 1000
MANIFEST = json.dumps(
    {
        "mediaType": OCI,
        "config": {"digest": digest_of(CONFIG)},
        "layers": [{"digest": digest_of(LAYER), "mediaType": "application/vnd.oci.image.layer.v1.tar"}],
    }
).encode()


def reply(status: int, content: bytes = b"", **headers: str) -> httpx.Response:
    """An answer whose body comes as from the wire, unread."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, stream=httpx.ByteStream(content))


@dataclass
class FakeRegistry:
    """Answers GET requests from a table of paths; keeps what it was asked."""

    documents: dict[str, bytes] = field(default_factory=dict)
    challenge: str = ""
    accepts: str = ""
    asked: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(httpx.Request(request.method, request.url, headers=request.headers))
        if request.url.host == "auth.io":
            return reply(200, b'{"token": "t0ken"}') if self.login_fits(request) else reply(401)
        if self.accepts and request.headers.get("Authorization") != self.accepts:
            error = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
            return reply(401, json.dumps(error).encode(), WWW_Authenticate=self.challenge)
        document = self.documents.get(request.url.path)
        return reply(404) if document is None else reply(200, document)

    def login_fits(self, request: httpx.Request) -> bool:
        return request.headers.get("Authorization") in (None, BASIC)


def registry(**changes: Any) -> FakeRegistry:
    documents = {
        "/v2/team/base/manifests/1": MANIFEST,
        f"/v2/team/base/manifests/{digest_of(MANIFEST)}": MANIFEST,
        f"/v2/team/base/blobs/{digest_of(CONFIG)}": CONFIG,
        f"/v2/team/base/blobs/{digest_of(LAYER)}": LAYER,
    }
    return FakeRegistry(**{"documents": documents, **changes})


@dataclass
class ClientHarness:
    logins: tuple[Credential, ...] = ()

    def repository(self, handler: Any, name: str = "r.io/team/base:1", **options: Any) -> Repository:
        trust, transport = Trust(**options), httpx.MockTransport(handler)
        insecure_hosts = find_insecure_hosts([Reference.parse(name)], trust, transport=transport)
        access = RegistryAccess(keychain=keychain_of(*self.logins), trust=trust, insecure_hosts=insecure_hosts)
        retries = RetryPolicy(seconds=1, sleep=lambda _seconds: None)
        return Repository(Reference.parse(name), access, transport=transport, retries=retries)


@pytest.fixture
def harness() -> ClientHarness:
    return ClientHarness()


def test_image_is_read_by_tag(harness: ClientHarness) -> None:
    fake = registry()
    with closing(harness.repository(fake)) as repository:
        image = repository.image("amd64")
        assert image.digest == digest_of(MANIFEST)
        assert image.config["config"] == {"Env": ["A=b"]}
        with repository.layer(image.layers[0]) as layer:
            assert layer.read(5) == b"layer"
    assert all(request.url.scheme == "https" and "Authorization" not in request.headers for request in fake.asked)
    assert OCI in fake.asked[0].headers["Accept"]
    assert {request.headers["Accept"] for request in fake.asked if "/blobs/" in request.url.path} == {"*/*"}


def test_image_is_read_by_digest(harness: ClientHarness) -> None:
    name = f"r.io/team/base@{digest_of(MANIFEST)}"
    assert harness.repository(registry(), name).image("amd64").digest == digest_of(MANIFEST)


def test_index_leads_to_the_platform(harness: ClientHarness) -> None:
    fake = registry()
    platforms = [("arm64", "sha256:" + "0" * 64), ("amd64", digest_of(MANIFEST))]
    entries = [{"digest": digest, "platform": {"os": "linux", "architecture": name}} for name, digest in platforms]
    fake.documents["/v2/team/base/manifests/1"] = json.dumps({"mediaType": INDEX, "manifests": entries}).encode()
    repository = harness.repository(fake)
    assert repository.image("amd64").digest == digest_of(MANIFEST)
    with pytest.raises(ImageNotFoundError, match="for linux/riscv64"):
        repository.image("riscv64")


def test_docker_hub_is_asked_at_its_api_host(harness: ClientHarness) -> None:
    fake = FakeRegistry()
    with pytest.raises(ImageNotFoundError, match=r"docker\.io has no image docker.io/library/python:3"):
        harness.repository(fake, "python:3").image("amd64")
    assert str(fake.asked[0].url) == "https://registry-1.docker.io/v2/library/python/manifests/3"


def test_password_is_sent_after_a_challenge(harness: ClientHarness) -> None:
    fake = registry(challenge='Basic realm="here"', accepts=BASIC)
    harness.logins = (ANN,)
    assert harness.repository(fake).image("amd64").layers
    assert [request.headers.get("Authorization") for request in fake.asked] == [None, BASIC, BASIC]


@pytest.mark.parametrize("logins", [(), (ANN,)])
def test_token_is_fetched(harness: ClientHarness, logins: tuple[Credential, ...]) -> None:
    challenge = 'Bearer realm="https://auth.io/token?x=1",service="r.io",scope="repository:team/base:pull"'
    fake = registry(challenge=challenge, accepts="Bearer t0ken")
    harness.logins = logins
    assert harness.repository(fake).image("amd64").layers
    (asked,) = [request for request in fake.asked if request.url.host == "auth.io"]
    assert dict(asked.url.params) == {"x": "1", "service": "r.io", "scope": "repository:team/base:pull"}
    assert asked.headers.get("Authorization") == (BASIC if logins else None)


def test_registry_token_is_sent_unchanged(harness: ClientHarness) -> None:
    harness.logins = (Credential(host="r.io", registry_token="given-0"),)
    fake = registry(challenge='Bearer realm="https://auth.io/token"', accepts="Bearer given-0")
    assert harness.repository(fake).image("amd64").layers
    assert not [request for request in fake.asked if request.url.host == "auth.io"]
    with pytest.raises(RegistryAuthError):
        harness.repository(registry(challenge="Bearer realm=x", accepts="Bearer another")).image("amd64")


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        'Basic realm="here"',
        'Bearer realm="https://auth.io/token"',
        'Bearer realm="nowhere"',
    ],
)
def test_refused_login_is_an_error(harness: ClientHarness, challenge: str) -> None:
    harness.logins = (Credential(host="r.io", username="ann", password="wrong-one"),)
    fake = registry(challenge=challenge, accepts="Bearer another")
    with pytest.raises(RegistryAuthError, match=r"refused the credentials.*: UNAUTHORIZED") as caught:
        harness.repository(fake).image("amd64")
    assert "wrong-one" not in caught.value.message
    assert not [request for request in fake.asked if request.url.scheme == "http"]


def test_password_is_not_sent_to_a_redirect_target(harness: ClientHarness) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "store.io":
            seen.append(request.headers.get("Authorization"))
            return reply(401, WWW_Authenticate='Basic realm="give"')
        return reply(307, Location="https://store.io/blob")

    seen: list[str | None] = []
    harness.logins = (ANN,)
    with pytest.raises(RegistryAuthError):
        harness.repository(answer).image("amd64")
    assert seen == [None]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (f"manifests/{digest_of(MANIFEST)}", MANIFEST + b" "),
        (f"blobs/{digest_of(CONFIG)}", CONFIG + b" "),
        (f"blobs/{digest_of(LAYER)}", LAYER + b" "),
        (f"manifests/{digest_of(MANIFEST)}", b"x" * (5 << 20)),
    ],
)
def test_wrong_digest_is_refused(harness: ClientHarness, path: str, content: bytes) -> None:
    fake = registry()
    fake.documents[f"/v2/team/base/{path}"] = content

    def pull() -> None:
        repository = harness.repository(fake, f"r.io/team/base@{digest_of(MANIFEST)}")
        with repository.layer(repository.image("amd64").layers[0]):
            pass

    with pytest.raises(RegistryError, match=r"r\.io gave"):
        pull()


@pytest.mark.parametrize("document", [b"<html>", b"[]", b'{"schemaVersion": 1, "fsLayers": []}', b'{"manifests": 3}'])
def test_malformed_manifest_is_refused(harness: ClientHarness, document: bytes) -> None:
    fake = registry()
    fake.documents["/v2/team/base/manifests/1"] = document
    with pytest.raises(RegistryError):
        harness.repository(fake).image("amd64")


@pytest.mark.parametrize(
    ("status", "expected", "words"),
    [
        (403, RegistryAuthError, "403 Forbidden"),
        (404, ImageNotFoundError, "has no image r.io/team/base:1"),
        (429, RegistryError, "limits the rate"),
        (503, RegistryError, "answered 503"),
    ],
)
def test_errors_of_statuses(harness: ClientHarness, status: int, expected: type[PackagerError], words: str) -> None:
    with pytest.raises(expected, match=words) as caught:
        harness.repository(lambda _request: reply(status)).image("amd64")
    assert type(caught.value) is expected
    assert caught.value.hint


@pytest.mark.parametrize(
    ("error", "words", "again"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "can't be reached: .*refused", True),
        (httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER] wrong version number"), "speaks plain HTTP", False),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "can't be trusted", False),
        (httpx.ConnectError("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]"), "PACKAGER_CLIENT_CERTIFICATES", False),
        (httpx.ReadTimeout(""), "can't be reached: ReadTimeout", True),
        (httpx.ReadError("[SSL: UNEXPECTED_EOF_WHILE_READING]"), "can't be reached", True),
    ],
)
def test_error_of_no_response(harness: ClientHarness, error: httpx.TransportError, words: str, again: bool) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raise error

    asked: list[httpx.Request] = []
    with pytest.raises(RegistryUnreachableError) as caught:
        harness.repository(fail).image("amd64")
    assert re.search(words, f"{caught.value.message} {caught.value.hint}")
    assert (1 < len(asked) < 50) if again else len(asked) == 1


def test_lost_response_is_retried(harness: ClientHarness) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if not lost:
            lost.append(request)
            raise httpx.ReadError("reset")
        return fake(request)

    lost: list[httpx.Request] = []
    fake = registry()
    assert harness.repository(answer).image("amd64").layers


@pytest.mark.parametrize(
    ("name", "insecure", "scheme"),
    [
        ("127.0.0.1:5000/team/base:1", (), "http"),
        ("plain.io/team/base:1", ("plain.io",), "http"),
        ("r.io/team/base:1", ("plain.io",), "https"),
    ],
)
def test_plain_http_only_where_it_is_allowed(
    harness: ClientHarness, name: str, insecure: tuple[str, ...], scheme: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "https" and scheme == "http":
            raise httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER]")
        return fake(request)

    fake = registry()
    assert harness.repository(answer, name, insecure_hosts=frozenset(insecure)).image("amd64").layers
    assert {request.url.scheme for request in fake.asked} == {scheme}


def test_refused_certificate_does_not_lead_to_plain_http(harness: ClientHarness) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        assert request.url.scheme == "https"
        raise httpx.ConnectError("x") from ssl.SSLCertVerificationError("self-signed")

    with pytest.raises(RegistryUnreachableError, match="can't be trusted"):
        harness.repository(fail, "localhost:5000/team/base:1").image("amd64")


@pytest.mark.parametrize(
    ("name", "username"),
    [
        ("r.io/team/models/wine:1", "deep"),
        ("r.io/team/base:1", "team"),
        ("r.io/teams/base:1", "host"),
        ("python:3", "hub"),
        ("other.io/x:1", None),
    ],
)
def test_login_with_the_longest_path_wins(name: str, username: str | None) -> None:
    places = [("r.io", "", "host"), ("r.io", "team", "team"), ("r.io", "team/models", "deep"), ("docker.io", "", "hub")]
    logins = [Credential(host=host, path=path, username=user, password="a:b") for host, path, user in places]
    login = keychain_of(*logins).login_for(Reference.parse(name))
    assert (login.username if login else None) == username
    assert login is None or login.password == "a:b"
