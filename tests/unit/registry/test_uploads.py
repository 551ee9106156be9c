"""Uploads against a registry that lives in its transport and keeps what reached it, as a real one does."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from packager.errors import PackagerError, RegistryAuthError, RegistryError, RegistryUnreachableError
from packager.models.reference import Reference
from packager.registry.access import RegistryAccess
from packager.registry.blobs import BytesBlob
from packager.registry.credentials import Credential
from packager.registry.uploads import Uploads
from packager.system.retries import RetryPolicy
from tests.unit.memory_registry import keychain_of
from tests.unit.upload_registry import (
    BASIC,
    PASSWORD,
    Cut,
    Lost,
    Refused,
    Unread,
    UploadRegistry,
    descriptor_of,
    digest_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packager.models.image import Descriptor

DATA = bytes(range(256)) * 40
NAME = Reference.parse("r.io/team/wine:1")


@dataclass
class Chunks:
    """A blob in chunks; `late` is one whose digest is known when it was read to its end."""

    data: bytes = DATA
    late: bool = False
    reads: int = 0
    ended: bool = False

    def stream(self) -> Iterator[bytes]:
        self.reads += 1
        for at in range(0, len(self.data), 1000):
            yield self.data[at : at + 1000]
        self.ended = True

    def descriptor(self) -> Descriptor | None:
        return None if self.late and not self.ended else descriptor_of(self.data)


@dataclass
class UploadHarness:
    slept: list[float] = field(default_factory=list)

    def uploads(self, handler: Any, *, seconds: float = 20) -> Uploads:
        keychain = keychain_of(Credential(host="r.io", username="ann", password=PASSWORD))
        retries = RetryPolicy(seconds=seconds, sleep=self.slept.append)
        return Uploads(NAME, RegistryAccess(keychain=keychain), transport=Unread(handler), retries=retries)

    def send(self, handler: Any, blob: Any = None, **options: Any) -> Descriptor:
        with closing(self.uploads(handler, **options)) as uploads:
            return uploads.send(blob or Chunks())


@pytest.fixture
def harness() -> UploadHarness:
    return UploadHarness()


@pytest.mark.parametrize("late", [False, True])
def test_blob_is_sent_in_one_part(harness: UploadHarness, late: bool) -> None:
    registry, blob = UploadRegistry(), Chunks(late=late)
    assert harness.send(registry, blob) == descriptor_of(DATA)
    assert registry.methods() == ["POST", "PATCH", "PUT"]
    assert registry.blobs == {digest_of(DATA): DATA}
    assert registry.open == {}
    assert blob.reads == 1
    patch = registry.asked[1].headers
    assert "Content-Range" not in patch
    assert patch.get("Content-Length") == (None if late else str(len(DATA)))
    assert harness.slept == []


def test_empty_blob(harness: UploadHarness) -> None:
    registry = UploadRegistry()
    harness.send(registry, BytesBlob(data=b"", known=descriptor_of(b"")))
    assert registry.blobs == {digest_of(b""): b""}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("after", [1000, 1001, 2500, 9999])
def test_cut_upload_sends_only_the_rest(
    harness: UploadHarness, caplog: pytest.LogCaptureFixture, late: bool, after: int
) -> None:
    caplog.set_level("DEBUG", "packager")
    registry = UploadRegistry(plan={"PATCH": [Cut(after)]})
    assert harness.send(registry, Chunks(late=late)) == descriptor_of(DATA)
    assert registry.bodies() == [DATA[:after], DATA[after:]]
    assert registry.methods() == ["POST", "PATCH", "GET", "PATCH", "PUT"]
    assert registry.blobs == {digest_of(DATA): DATA}
    assert caplog.text.count("attempt 2 follows") == 1
    assert f"continues at byte {after}" in caplog.text
    assert "st4te" not in caplog.text


def test_upload_survives_many_cuts(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PATCH": [Cut(3000), Cut(3000), 503, Cut(3000), 429]})
    harness.send(registry)
    assert registry.bodies() == [DATA[:3000], DATA[3000:6000], DATA[6000:9000], DATA[9000:]]
    assert len(harness.slept) == 5


def test_forgotten_upload_is_sent_whole_again(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PATCH": [Cut(3000)]}, keeps_parts=False)
    harness.send(registry)
    assert registry.bodies()[-1] == DATA


@pytest.mark.parametrize(
    "plan",
    [
        {"PATCH": [Cut(3000), 404]},
        {"PATCH": [Cut(3000), 416]},
        {"PUT": [404]},
        {"PATCH": [Cut(3000)], "GET": [404]},
        {"PATCH": [Cut(3000)], "GET": [Lost()]},
    ],
)
def test_lost_upload_starts_over(harness: UploadHarness, plan: dict[str, list[Any]]) -> None:
    registry = UploadRegistry(plan=plan)
    harness.send(registry)
    assert registry.bodies()[-1] == DATA
    assert registry.counts["POST"] == 2
    assert registry.open == {}, "the first upload was left open"


def test_upload_that_is_always_lost_is_an_error(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PATCH": [Cut(3000), *[404] * 100]})
    with pytest.raises(RegistryError, match=r"has lost an upload 5 times: 404"):
        harness.send(registry)
    assert registry.counts["POST"] == 5
    assert registry.open == {}


def test_registry_without_patch_gets_the_blob_whole(harness: UploadHarness) -> None:
    registry = UploadRegistry(takes_parts=False)
    harness.send(registry, Chunks(late=True))
    assert registry.blobs == {digest_of(DATA): DATA}
    assert registry.methods() == ["POST", "PATCH", "POST", "PUT", "DELETE"]
    assert registry.open == {}
    cut = UploadRegistry(takes_parts=False, plan={"PUT": [Cut(50), 500]})
    harness.send(cut)
    assert cut.blobs == {digest_of(DATA): DATA}
    assert cut.open == {}


@pytest.mark.parametrize("takes_parts", [True, False])
def test_lost_response_does_not_send_the_blob_again(harness: UploadHarness, takes_parts: bool) -> None:
    registry = UploadRegistry(plan={"PUT": [Lost()]}, takes_parts=takes_parts)
    assert harness.send(registry) == descriptor_of(DATA)
    assert registry.counts["HEAD"] == 1
    assert registry.counts["PUT"] == 1


@pytest.mark.parametrize("late", [False, True])
def test_unacknowledged_last_bytes_are_not_sent_again(harness: UploadHarness, late: bool) -> None:
    registry = UploadRegistry(plan={"PATCH": [Lost()]})
    harness.send(registry, Chunks(late=late))
    assert registry.methods() == ["POST", "PATCH", "GET", "PUT"]


def test_refused_blob_is_an_error(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PUT": [400]})
    with pytest.raises(RegistryError, match=f"r.io doesn't accept the blob {digest_of(DATA)}: 400"):
        harness.send(registry)
    assert registry.open == {}


@pytest.mark.parametrize("what", ["blob", "manifest", "mount"])
def test_other_stored_digest_is_an_error(harness: UploadHarness, what: str) -> None:
    registry = UploadRegistry(stored_as=digest_of(b"other"))
    uploads = harness.uploads(registry)
    tries: dict[str, Callable[[], object]] = {
        "blob": partial(uploads.send, Chunks()),
        "manifest": partial(uploads.put_manifest, "1", b"{}", "application/json"),
        "mount": partial(uploads.mount, digest_of(DATA), Reference.parse("r.io/team/base:1")),
    }
    if what == "mount":
        registry.blobs[digest_of(DATA)] = DATA
    with pytest.raises(RegistryError, match=f"stored {registry.stored_as} where sha256:[0-9a-f]+ was sent"):
        tries[what]()


def test_manifest_is_stored_after_retries(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PUT": [503, Lost()]})
    uploads = harness.uploads(registry)
    assert uploads.put_manifest("1", b"{}", "application/json") == digest_of(b"{}")
    assert registry.manifests == {"1": b"{}"}
    assert registry.asked[-1].headers["Content-Type"] == "application/json"


def test_manifest_is_retried_while_another_client_sends_its_blob(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PUT": [Refused("DIGEST_INVALID")] * 2})
    assert harness.uploads(registry).put_manifest("1", b"{}", "application/json") == digest_of(b"{}")
    assert registry.manifests == {"1": b"{}"}


@pytest.mark.parametrize(("name", "code"), [("1", "MANIFEST_INVALID"), (digest_of(b"{}"), "DIGEST_INVALID")])
def test_refused_manifest_is_not_retried(harness: UploadHarness, name: str, code: str) -> None:
    registry = UploadRegistry(plan={"PUT": [Refused(code)]})
    with pytest.raises(RegistryError, match=code):
        harness.uploads(registry).put_manifest(name, b"{}", "application/json")
    assert registry.counts["PUT"] == 1


def test_blob_is_mounted(harness: UploadHarness) -> None:
    registry = UploadRegistry(blobs={digest_of(DATA): DATA})
    uploads = harness.uploads(registry)
    assert uploads.has(digest_of(DATA))
    assert not uploads.has(digest_of(b"other"))
    assert uploads.mount(digest_of(DATA), Reference.parse("r.io/team/base:1"))
    assert registry.asked[-1].query == {"mount": digest_of(DATA), "from": "team/base"}
    assert not uploads.mount(digest_of(DATA), Reference.parse("other.io/team/base:1"))


@pytest.mark.parametrize("status", [None, 400, 401, 403, 404, 405])
def test_failed_mount_leaves_no_upload(harness: UploadHarness, status: int | None) -> None:
    registry = UploadRegistry(mounts=False, plan={"POST": [status]})
    assert harness.uploads(registry).mount(digest_of(DATA), Reference.parse("r.io/team/base:1")) is False
    assert registry.open == {}


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "GET", "HEAD"])
def test_expired_token_is_renewed_during_an_upload(harness: UploadHarness, method: str) -> None:
    def expire() -> int:
        registry.token = "new"
        return 401

    def answer(request: httpx.Request) -> httpx.Response:
        response = registry(request)
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="https://auth.io/t",service="r.io",scope="x:push"'
        return response

    plan: dict[str, list[Any]] = {method: [expire], **({"PATCH": [Cut(3000)]} if method == "GET" else {})}
    if method == "PATCH":
        plan = {"PATCH": [Cut(3000), expire]}
    if method == "HEAD":
        plan = {"PUT": [Lost()], "HEAD": [None, expire]}
    registry = UploadRegistry(plan=plan, token="old")
    uploads = harness.uploads(answer)
    assert not uploads.has(digest_of(DATA))
    uploads.send(Chunks(late=True))
    assert registry.blobs == {digest_of(DATA): DATA}
    assert [asked.headers.get("Authorization") for asked in registry.asked if asked.path == "/t"] == [BASIC, BASIC]
    assert registry.counts["POST"] == (2 if method == "POST" else 1)
    if method == "PATCH":
        assert registry.bodies() == [DATA[:3000], DATA[3000:]]


def test_login_refused_during_an_upload_is_an_error(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PATCH": [401] * 9})
    with pytest.raises(RegistryAuthError, match="'ann'"):
        harness.send(registry)
    assert registry.counts["PATCH"] == 1
    assert registry.open == {}
    assert harness.slept == []


@pytest.mark.parametrize("status", [401, 403, 404, 405, 413])
def test_permanent_statuses_are_not_retried(harness: UploadHarness, status: int) -> None:
    registry = UploadRegistry(plan={"POST": [status] * 9})
    with pytest.raises(RegistryError):
        harness.send(registry)
    assert registry.counts["POST"] == 1
    assert harness.slept == []


def test_retry_waits_as_long_as_the_registry_asks(harness: UploadHarness) -> None:
    registry = UploadRegistry(
        plan={"POST": [429, 503]}, answers={429: {"Retry-After": "7"}, 503: {"Retry-After": "soon"}}
    )
    harness.send(registry)
    assert harness.slept[0] == 7
    assert 0.25 <= harness.slept[1] < 7


def test_retries_end_with_the_time_limit(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"POST": [429]}, answers={429: {"Retry-After": "21"}})
    with pytest.raises(RegistryError, match="limits the rate"):
        harness.send(registry)
    assert harness.slept == []
    for seconds, handler in (
        (0, UploadRegistry(plan={"PATCH": [Cut(3000)]})),
        (0, UploadRegistry(plan={"PUT": [500]})),
    ):
        with pytest.raises(PackagerError):
            harness.send(handler, seconds=seconds)
        assert handler.open == {}, "it was left open"


def test_unreachable_registry_is_tried_three_times(harness: UploadHarness) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raise httpx.ConnectError("[Errno 111] Connection refused")

    asked: list[httpx.Request] = []
    with pytest.raises(
        RegistryUnreachableError, match=r"push of r\.io/team/wine:1: the registry r.io can't be reached"
    ):
        harness.send(refuse)
    assert len(asked) == 3


def test_upload_state_is_in_no_message(harness: UploadHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "packager")
    registry = UploadRegistry(plan={"PATCH": [Cut(10), 500, 403], "DELETE": [500]})
    with pytest.raises(RegistryAuthError) as caught:
        harness.send(registry)
    assert caplog.text
    for text in (caplog.text, str(caught.value), caught.value.hint):
        assert "st4te" not in text
        assert "_state" not in text
        assert PASSWORD not in text


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("", "without saying where"),
        ("http://r.io/v2/team/wine/blobs/uploads/1", "from HTTPS to plain HTTP"),
        ("https://r.io:port/1", "invalid URL"),
    ],
)
def test_upload_with_a_bad_location_is_refused(harness: UploadHarness, location: str, words: str) -> None:
    registry = UploadRegistry(location=location)
    with pytest.raises(RegistryError, match=words):
        harness.send(registry)
    assert registry.counts["PATCH"] == 0


def test_upload_to_another_server_is_sent_without_the_login(harness: UploadHarness) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.headers.get("Authorization")))
        if request.url.host == "store.io":
            return registry.reply(401, WWW_Authenticate='Basic realm="give"')
        return registry(request)

    seen: list[tuple[str, str | None]] = []
    registry = UploadRegistry(token="t", location="https://store.io/1?sig=x")
    with pytest.raises(RegistryAuthError):
        harness.send(answer)
    assert {login for host, login in seen if host == "store.io"} == {None}
    assert ("r.io", "Bearer t") in seen
