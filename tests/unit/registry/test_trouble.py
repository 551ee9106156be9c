"""What is tried again and what isn't, the question before a push, identity tokens, mirrors, layers that are cut off."""

from __future__ import annotations

import json
import ssl
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import httpx
import pytest

from packager.errors import ImageNotFoundError, RegistryAuthError, RegistryError, RegistryUnreachableError
from packager.models.image import Descriptor
from packager.models.reference import Reference
from packager.registry import errors as registry_errors
from packager.registry.access import RegistryAccess
from packager.registry.authfile import auth_config
from packager.registry.challenge import ChallengeAuth
from packager.registry.client import Repository, find_image
from packager.registry.credentials import Credential
from packager.registry.preflight import check_push
from packager.registry.retries import Retries, is_transient
from packager.registry.trust import Trust
from tests.unit.registry.test_client import ANN, LAYER, MANIFEST, digest_of, registry, reply
from tests.unit.upload_registry import Lost, UploadRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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
def access(tmp_path: Path) -> RegistryAccess:
    file = tmp_path / "config.json"
    file.write_bytes(auth_config([ANN]))
    return RegistryAccess(auth_file=file)


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work


@pytest.mark.parametrize("seconds", [5, 60, 600])
def test_the_bound_is_kept_and_each_attempt_logged_once(
    clock: Clock, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    attempts: list[float] = []

    def work() -> None:
        attempts.append(clock.now)
        clock.now += 0.5
        raise httpx.ReadError("Connection reset by peer")

    with pytest.raises(httpx.ReadError):
        Retries(seconds=seconds, sleep=clock.sleep).call(work, "r.io: GET manifests/1")
    assert 3 <= len(attempts) < 10 + seconds / 2
    assert max(attempts) <= seconds
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(attempts) - 1
    for number, line in enumerate(lines):
        assert line.startswith(f"r.io: GET manifests/1: Connection reset by peer; attempt {number + 2} follows in ")


def test_no_second_attempt_without_time() -> None:
    with pytest.raises(httpx.ReadError):
        Retries(seconds=0).call(failing(httpx.ReadError("x")), "it")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (httpx.ReadError("Connection reset by peer"), True),
        (httpx.WriteTimeout(""), True),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), True),
        (httpx.ConnectError("[SSL: UNEXPECTED_EOF_WHILE_READING]"), True),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), False),
        (httpx.ProxyError("503 Service Unavailable"), True),
        (httpx.ProxyError("407 Proxy Authentication Required"), False),
        (httpx.ProxyError("403 Forbidden"), False),
        (httpx.UnsupportedProtocol("ftp"), False),
        (RegistryAuthError("no"), False),
        (ImageNotFoundError("no"), False),
        (OSError("disk"), False),
    ],
)
def test_what_may_pass(error: Exception, again: bool) -> None:
    assert is_transient(error) is again


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 425, 429, 500, 501, 502, 503, 504, 507])
def test_statuses_that_may_pass(access: RegistryAccess, clock: Clock, status: int) -> None:
    fake = UploadRegistry(plan={"POST": [status]})
    transport, retries = httpx.MockTransport(fake), Retries(seconds=60, sleep=clock.sleep)
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
def test_the_question_before_a_push(
    access: RegistryAccess, status: int, body: bytes, error: type[Exception], words: str, hint: str
) -> None:
    with pytest.raises(RegistryError) as caught:
        check_push(NAME, access, transport=httpx.MockTransport(lambda _request: reply(status, body)))
    assert type(caught.value) is error
    assert caught.value.message.startswith("push of r.io/team/base:1")
    assert words in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("deleted", [None, 401, 405, 500, Lost()])
def test_the_question_leaves_no_upload(access: RegistryAccess, clock: Clock, deleted: Any) -> None:
    fake = UploadRegistry(plan={"DELETE": [deleted]})
    check_push(NAME, access, transport=httpx.MockTransport(fake), retries=Retries(seconds=60, sleep=clock.sleep))
    assert fake.methods() == ["POST", "DELETE"], "calling it off is tried once"
    assert clock.now == 0
    assert fake.blobs == {}


def test_nobody_asks_for_a_login(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(auth_config([]))
    with pytest.raises(RegistryAuthError, match="none were sent, as no connection or docker config has some") as caught:
        check_push(NAME, RegistryAccess(auth_file=file), transport=httpx.MockTransport(lambda _request: reply(401)))
    assert caught.value.hint == "give the docker-push target a connection for r.io with user and password"


def test_an_identity_token_is_exchanged() -> None:
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


def test_a_login_that_was_renewed_is_sent() -> None:
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
        (62, "is for another name: Hostname mismatch", "name the registry as its certificate does"),
        (64, "is for another name: ", "name the registry as its certificate does"),
        (18, "can't be trusted: ", "PACKAGER_CA_FILE"),
        (20, "can't be trusted: ", "PACKAGER_CA_FILE"),
    ],
)
def test_certificates(code: int, words: str, hint: str) -> None:
    cause = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")
    cause.verify_code, cause.verify_message = code, "Hostname mismatch, certificate is not valid for 'r.io'."
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]")
    error.__cause__ = cause
    told = registry_errors.silence(CONTEXT, error)
    assert isinstance(told, RegistryUnreachableError)
    assert words in told.message
    assert hint in told.hint
    assert registry_errors.is_tls_trouble(error)


def test_what_a_registry_says_is_cut_and_made_harmless() -> None:
    body = errors("X", "\x1b[31mred\n" + "long " * 1000)
    told = registry_errors.refusal(CONTEXT, httpx.Response(400), body).message
    assert "\x1b" not in told
    assert "\n" not in told
    assert len(told) < 500


MIRRORED = Trust(mirrors=(("r.io", "down.io/r"), ("r.io", "mirror.io")), retry_seconds=0)


def mirrors(**changes: Any) -> Callable[[httpx.Request], httpx.Response]:
    fakes = {"r.io": registry(), "mirror.io": registry(**changes)}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "down.io":
            raise httpx.ConnectError("[Errno 111] Connection refused")
        return fakes[request.url.host](request)

    return answer


@pytest.mark.parametrize(
    ("changes", "name", "host"),
    [
        ({}, "r.io/team/base:1", "mirror.io"),
        ({}, f"r.io/team/base@{digest_of(MANIFEST)}", "mirror.io"),
        ({"documents": {}}, "r.io/team/base:1", "r.io"),
        ({"accepts": "nobody"}, "r.io/team/base:1", "r.io"),
        ({"documents": {f"/v2/team/base/manifests/{digest_of(MANIFEST)}": b"{}"}},
         f"r.io/team/base@{digest_of(MANIFEST)}", "r.io"),
    ],
)  # fmt: skip
def test_mirrors(access: RegistryAccess, changes: dict[str, Any], name: str, host: str) -> None:
    mirrored = RegistryAccess(auth_file=access.auth_file, trust=MIRRORED)
    transport = httpx.MockTransport(mirrors(**changes))
    with find_image(Reference.parse(name), mirrored, "amd64", transport=transport) as (repository, image):
        assert repository.reference.host == host
        assert image.digest == digest_of(MANIFEST)
        with repository.layer(image.layers[0]) as layer:
            assert layer.read(5) == b"layer"


@pytest.mark.parametrize("status", [404, 401, 400, 503])
def test_a_mirror_without_a_layer(access: RegistryAccess, status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.host, request.url.path))
        lacks = request.url.host == "mirror.io" and request.url.path.endswith(digest_of(LAYER))
        return reply(status) if lacks else honest(request)

    asked: list[tuple[str, str]] = []
    honest = mirrors()
    mirrored = RegistryAccess(auth_file=access.auth_file, trust=MIRRORED)
    with find_image(NAME, mirrored, "amd64", transport=httpx.MockTransport(answer)) as (repository, image):
        assert repository.reference.host == "mirror.io"
        with repository.layer(image.layers[0]) as layer:
            assert b"".join(iter(lambda: layer.read(777), b"")) == LAYER
    path = f"/v2/team/base/blobs/{digest_of(LAYER)}"
    assert asked[-2:] == [("mirror.io", path), ("r.io", path)]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_mirror_that_goes_down_within_a_layer(access: RegistryAccess, ranges: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith(digest_of(LAYER)):
            return honest(request)
        if request.url.host == "mirror.io":
            return down(request)
        return own(request)

    honest, down, own = mirrors(), CutOff(cuts=[1000] + [0] * 100, ranges=ranges), CutOff(cuts=[], ranges=ranges)
    mirrored = RegistryAccess(auth_file=access.auth_file, trust=MIRRORED)
    with (
        find_image(NAME, mirrored, "amd64", transport=httpx.MockTransport(answer)) as (repository, image),
        repository.layer(image.layers[0]) as layer,
    ):
        assert b"".join(iter(lambda: layer.read(777), b"")) == LAYER
    assert own.asked > 0


def test_a_layer_that_is_nowhere(access: RegistryAccess) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return reply(404) if request.url.path.endswith(digest_of(LAYER)) else honest(request)

    honest = mirrors()
    mirrored = RegistryAccess(auth_file=access.auth_file, trust=MIRRORED)
    transport = httpx.MockTransport(answer)
    with (
        find_image(NAME, mirrored, "amd64", transport=transport) as (repository, image),
        pytest.raises(ImageNotFoundError, match=r"the registry r\.io has no layer"),
        repository.layer(image.layers[0]) as layer,
    ):
        layer.read(1)


def test_no_mirror_and_no_host(access: RegistryAccess) -> None:
    mirrored = RegistryAccess(auth_file=access.auth_file, trust=MIRRORED)
    transport = httpx.MockTransport(lambda _request: reply(404))
    with (
        pytest.raises(ImageNotFoundError, match=r"the registry r\.io has no image r\.io/team/base:1"),
        find_image(NAME, mirrored, "amd64", transport=transport),
    ):
        pass


def test_a_login_of_the_host_is_not_sent_to_a_mirror(access: RegistryAccess) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.headers.get("Authorization")))
        return reply(401, WWW_Authenticate='Basic realm="give"')

    seen: list[tuple[str, str | None]] = []
    mirrored = RegistryAccess(auth_file=access.auth_file, trust=MIRRORED)
    transport = httpx.MockTransport(answer)
    with pytest.raises(RegistryAuthError), find_image(NAME, mirrored, "amd64", transport=transport):
        pass
    assert {login for host, login in seen if host != "r.io"} == {None}
    assert [login for host, login in seen if host == "r.io"][-1]


@dataclass
class CutOff:
    """Serves a blob whose connection breaks after some bytes, a few times."""

    cuts: list[int]
    ranges: bool = True
    asked: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        start = int(request.headers.get("Range", "bytes=0-")[6:-1]) if self.ranges else 0
        self.asked += 1
        if self.ranges and start == len(LAYER):
            return reply(416)
        stream = self.stream(LAYER[start:], self.cuts.pop(0) if self.cuts else None)
        return httpx.Response(206 if start else 200, stream=stream)

    def stream(self, data: bytes, cut: int | None) -> httpx.SyncByteStream:
        class Stream(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                yield data[:cut]
                if cut is not None:
                    raise httpx.ReadError("Connection reset by peer")

        return Stream()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("cuts", [[], [0], [1000], [1000, 0, 2000], [len(LAYER)]])
def test_a_layer_goes_on_where_it_was_cut(access: RegistryAccess, clock: Clock, cuts: list[int], ranges: bool) -> None:
    blob = Descriptor(media_type="application/vnd.oci.image.layer.v1.tar", digest=digest_of(LAYER), size=len(LAYER))
    fake = CutOff(cuts=list(cuts), ranges=ranges)
    retries = Retries(seconds=60, sleep=clock.sleep)
    repository = Repository(NAME, access, transport=httpx.MockTransport(fake), retries=retries)
    with closing(repository), repository.layer(blob) as layer:
        assert b"".join(iter(lambda: layer.read(777), b"")) == LAYER
    assert fake.asked == len(cuts) + 1


def test_a_layer_that_is_always_cut(access: RegistryAccess) -> None:
    blob = Descriptor(media_type="", digest=digest_of(LAYER), size=len(LAYER))
    transport = httpx.MockTransport(CutOff(cuts=[0] * 1000))
    repository = Repository(NAME, access, transport=transport, retries=Retries(seconds=5, sleep=lambda _seconds: None))
    with (
        pytest.raises(RegistryUnreachableError, match="can't be reached: Connection reset"),
        repository.layer(blob) as layer,
    ):
        layer.read(1)
