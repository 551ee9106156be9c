"""Answers that are garbage: an error of ours from the host itself, a reason to pass a mirror over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from packager.errors import RegistryError, RegistryUnreachableError
from packager.models.reference import Reference
from packager.registry import errors as registry_errors
from packager.registry.access import RegistryAccess, Trust, find_insecure_hosts
from packager.registry.client import Repository, find_image
from packager.registry.docker_config import DockerConfig
from packager.system.retries import RetryPolicy
from tests.unit.registry.test_client import CONFIG, LAYER, MANIFEST, digest_of, registry, reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = Reference.parse("r.io/team/base:1")
DEEP = b"[" * 100_000
CONFIG_DIGEST = digest_of(CONFIG)


@pytest.fixture
def access() -> RegistryAccess:
    return RegistryAccess(trust=Trust(mirrors=(("r.io", "mirror.io"),), retry_seconds=0))


def document(**parts: Any) -> bytes:
    return json.dumps(parts).encode()


def with_config(**parts: Any) -> Callable[[httpx.Request], httpx.Response]:
    config = document(**parts)
    manifest = document(config={"digest": digest_of(config)}, layers=[])
    return lambda request: reply(200, manifest if "/manifests/" in request.url.path else config)


def always(content: bytes, status: int = 200, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _request: reply(status, content, **headers)


def unencodable(_request: httpx.Request) -> httpx.Response:
    raise UnicodeError("label empty or too long")


GARBAGE = [
    always(b"<html>"),
    always(b"\xff\xfe"),
    always(DEEP),
    always(document(manifests=["x"])),
    always(document(manifests=[{"platform": "linux"}])),
    always(document(manifests=[{"platform": {"os": "linux", "architecture": "amd64"}}])),
    always(document(manifests=[{"digest": "../x", "platform": {"os": "linux", "architecture": "amd64"}}])),
    always(document(config="x", layers=[])),
    always(document(config={"digest": CONFIG_DIGEST}, layers="x")),
    always(document(config={"digest": CONFIG_DIGEST}, layers=5)),
    always(b'{"config": {"digest": "%s", "size": 1e999}, "layers": []}' % CONFIG_DIGEST.encode()),
    with_config(config="x"),
    with_config(config={"Env": "x"}),
    with_config(config={"Env": [1]}),
    with_config(rootfs=[1]),
    with_config(rootfs={"diff_ids": "x"}),
    with_config(history={"x": 1}),
    always(b"", 307, Location="https://[x/"),
    always(b"no gzip", 307, Location="/v2/x", Content_Encoding="gzip"),
    always(DEEP, 400),
    unencodable,
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_mirror_with_a_malformed_response_is_skipped(
    access: RegistryAccess, garbage: Callable[[httpx.Request], httpx.Response]
) -> None:
    own = registry()

    def answer(request: httpx.Request) -> httpx.Response:
        return own(request) if request.url.host == "r.io" else garbage(request)

    with find_image(NAME, access, "amd64", transport=httpx.MockTransport(answer)) as (repository, image):
        assert repository.reference.host == "r.io"
        assert image.digest == digest_of(MANIFEST)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_malformed_response_is_a_registry_error(
    access: RegistryAccess, garbage: Callable[[httpx.Request], httpx.Response]
) -> None:
    repository = Repository(NAME, access, transport=httpx.MockTransport(garbage))
    with pytest.raises(RegistryError) as caught:
        repository.image("amd64")
    assert "r.io" in caught.value.message


@pytest.mark.parametrize(
    ("token", "headers", "words"),
    [
        (DEEP, {}, "refused the credentials"),
        (b"\xff", {}, "refused the credentials"),
        (b'{"token": "' + b"x" * (2 << 20) + b'"}', {}, "refused the credentials"),
        (b"no gzip", {"Content_Encoding": "gzip"}, "Content-Encoding"),
    ],
)
def test_malformed_token_response(access: RegistryAccess, token: bytes, headers: dict[str, str], words: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.io":
            return reply(200, token, **headers)
        return reply(401, WWW_Authenticate='Bearer realm="https://auth.io/t"')

    repository = Repository(NAME, access, transport=httpx.MockTransport(answer))
    with pytest.raises(RegistryError, match=words):
        repository.image("amd64")


def test_token_service_with_an_unencodable_host(access: RegistryAccess) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "a..b":
            raise UnicodeError("label empty or too long")
        return reply(401, WWW_Authenticate='Bearer realm="https://a..b/"')

    repository = Repository(NAME, access, transport=httpx.MockTransport(answer))
    with pytest.raises(RegistryError, match="invalid URL"):
        repository.image("amd64")


def test_deeply_nested_error() -> None:
    asked = registry_errors.RequestContext(verb="pull", reference=NAME)
    assert "400" in registry_errors.refusal(asked, httpx.Response(400), DEEP).message


def test_deeply_nested_docker_config() -> None:
    with pytest.raises(ValueError, match="it is not JSON"):
        DockerConfig.from_bytes(DEEP)


def test_invalid_content_length(access: RegistryAccess) -> None:
    repository = Repository(NAME, access, transport=httpx.MockTransport(always(b"", Content_Length="x")))
    assert repository.size(digest_of(LAYER)) == -1


class Endless(httpx.SyncByteStream):
    """Bytes without an end; each takes a second of the test's clock."""

    def __init__(self, clock: list[float], chunk: bytes) -> None:
        self.clock = clock
        self.chunk = chunk
        self.given = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.clock[0] += 1
            self.given += len(self.chunk)
            yield self.chunk


@pytest.mark.parametrize("status", [200, 307, 400, 401])
def test_slow_response_is_ended(access: RegistryAccess, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    clock = [0.0]
    monkeypatch.setattr("packager.registry.errors.time.monotonic", lambda: clock[0])
    headers = {"Location": "/v2/x", "WWW-Authenticate": 'Bearer realm="https://auth.io/t"'}
    drops = Endless(clock, b" ")

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=headers, stream=drops)

    retries = RetryPolicy(seconds=0, sleep=lambda _seconds: None)
    repository = Repository(NAME, access, transport=httpx.MockTransport(answer), retries=retries)
    with pytest.raises(RegistryUnreachableError, match="did not end within 60 s"):
        repository.image("amd64")
    assert drops.given < 70


def test_endless_response_is_cut(access: RegistryAccess) -> None:
    flood = Endless([0.0], b" " * (1 << 16))
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, stream=flood))
    with pytest.raises(RegistryError, match="gave more than 4194304 bytes"):
        Repository(NAME, access, transport=transport).image("amd64")
    assert Repository(NAME, access, transport=transport).size(digest_of(LAYER)) == -1
    assert flood.given < 10 << 20


def test_probe_for_plain_http_reads_no_body() -> None:
    flood = Endless([0.0], b" ")
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, stream=flood))
    assert find_insecure_hosts([Reference.parse("localhost/a")], Trust(), transport=transport) == frozenset()
    assert flood.given == 0
