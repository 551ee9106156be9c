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
def test_a_blob_goes_in_one_part(harness: UploadHarness, late: bool) -> None:
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


def test_a_blob_of_no_bytes(harness: UploadHarness) -> None:
    registry = UploadRegistry()
    harness.send(registry, BytesBlob(data=b"", known=descriptor_of(b"")))
    assert registry.blobs == {digest_of(b""): b""}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("after", [1000, 1001, 2500, 9999])
def test_only_the_rest_is_sent_after_a_cut(
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


def test_cut_again_and_again(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PATCH": [Cut(3000), Cut(3000), 503, Cut(3000), 429]})
    harness.send(registry)
    assert registry.bodies() == [DATA[:3000], DATA[3000:6000], DATA[6000:9000], DATA[9000:]]
    assert len(harness.slept) == 5


def test_a_registry_that_forgets_a_cut_upload_gets_it_whole_again(harness: UploadHarness) -> None:
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
def test_a_lost_upload_begins_anew(harness: UploadHarness, plan: dict[str, list[Any]]) -> None:
    registry = UploadRegistry(plan=plan)
    harness.send(registry)
    assert registry.bodies()[-1] == DATA
    assert registry.counts["POST"] == 2
    assert registry.open == {}, "the first upload was left open"


def test_an_upload_that_is_always_lost(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PATCH": [Cut(3000), *[404] * 100]})
    with pytest.raises(RegistryError, match=r"has lost an upload 5 times: 404"):
        harness.send(registry)
    assert registry.counts["POST"] == 5
    assert registry.open == {}


def test_a_registry_that_takes_no_parts(harness: UploadHarness) -> None:
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
def test_an_answer_that_was_lost_is_no_reason_to_send_again(harness: UploadHarness, takes_parts: bool) -> None:
    registry = UploadRegistry(plan={"PUT": [Lost()]}, takes_parts=takes_parts)
    assert harness.send(registry) == descriptor_of(DATA)
    assert registry.counts["HEAD"] == 1
    assert registry.counts["PUT"] == 1


@pytest.mark.parametrize("late", [False, True])
def test_the_last_bytes_were_taken_but_not_acknowledged(harness: UploadHarness, late: bool) -> None:
    registry = UploadRegistry(plan={"PATCH": [Lost()]})
    harness.send(registry, Chunks(late=late))
    assert registry.methods() == ["POST", "PATCH", "GET", "PUT"]


def test_what_arrived_differently_is_refused(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PUT": [400]})
    with pytest.raises(RegistryError, match=f"r.io doesn't accept the blob {digest_of(DATA)}: 400"):
        harness.send(registry)
    assert registry.open == {}


@pytest.mark.parametrize("what", ["blob", "manifest", "mount"])
def test_what_is_stored_as_something_else_is_refused(harness: UploadHarness, what: str) -> None:
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


def test_a_manifest(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PUT": [503, Lost()]})
    uploads = harness.uploads(registry)
    assert uploads.put_manifest("1", b"{}", "application/json") == digest_of(b"{}")
    assert registry.manifests == {"1": b"{}"}
    assert registry.asked[-1].headers["Content-Type"] == "application/json"


def test_a_manifest_whose_blobs_are_just_sent_by_another_is_put_again(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PUT": [Refused("DIGEST_INVALID")] * 2})
    assert harness.uploads(registry).put_manifest("1", b"{}", "application/json") == digest_of(b"{}")
    assert registry.manifests == {"1": b"{}"}


@pytest.mark.parametrize(("name", "code"), [("1", "MANIFEST_INVALID"), (digest_of(b"{}"), "DIGEST_INVALID")])
def test_a_manifest_that_is_refused_for_good_is_put_once(harness: UploadHarness, name: str, code: str) -> None:
    registry = UploadRegistry(plan={"PUT": [Refused(code)]})
    with pytest.raises(RegistryError, match=code):
        harness.uploads(registry).put_manifest(name, b"{}", "application/json")
    assert registry.counts["PUT"] == 1


def test_a_mount(harness: UploadHarness) -> None:
    registry = UploadRegistry(blobs={digest_of(DATA): DATA})
    uploads = harness.uploads(registry)
    assert uploads.has(digest_of(DATA))
    assert not uploads.has(digest_of(b"other"))
    assert uploads.mount(digest_of(DATA), Reference.parse("r.io/team/base:1"))
    assert registry.asked[-1].query == {"mount": digest_of(DATA), "from": "team/base"}
    assert not uploads.mount(digest_of(DATA), Reference.parse("other.io/team/base:1"))


@pytest.mark.parametrize("status", [None, 400, 401, 403, 404, 405])
def test_a_registry_that_mounts_nothing(harness: UploadHarness, status: int | None) -> None:
    registry = UploadRegistry(mounts=False, plan={"POST": [status]})
    assert harness.uploads(registry).mount(digest_of(DATA), Reference.parse("r.io/team/base:1")) is False
    assert registry.open == {}


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "GET", "HEAD"])
def test_a_token_that_runs_out_is_renewed_and_the_rest_is_sent_with_it(harness: UploadHarness, method: str) -> None:
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


def test_a_login_that_is_refused_in_the_middle_ends_it(harness: UploadHarness) -> None:
    registry = UploadRegistry(plan={"PATCH": [401] * 9})
    with pytest.raises(RegistryAuthError, match="'ann'"):
        harness.send(registry)
    assert registry.counts["PATCH"] == 1
    assert registry.open == {}
    assert harness.slept == []


@pytest.mark.parametrize("status", [401, 403, 404, 405, 413])
def test_what_stays_is_not_tried_again(harness: UploadHarness, status: int) -> None:
    registry = UploadRegistry(plan={"POST": [status] * 9})
    with pytest.raises(RegistryError):
        harness.send(registry)
    assert registry.counts["POST"] == 1
    assert harness.slept == []


def test_as_long_as_the_registry_asks(harness: UploadHarness) -> None:
    registry = UploadRegistry(
        plan={"POST": [429, 503]}, answers={429: {"Retry-After": "7"}, 503: {"Retry-After": "soon"}}
    )
    harness.send(registry)
    assert harness.slept[0] == 7
    assert 0.25 <= harness.slept[1] < 7


def test_no_longer_than_the_bound(harness: UploadHarness) -> None:
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


def test_nobody_there(harness: UploadHarness) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raise httpx.ConnectError("[Errno 111] Connection refused")

    asked: list[httpx.Request] = []
    with pytest.raises(
        RegistryUnreachableError, match=r"push of r\.io/team/wine:1: the registry r.io can't be reached"
    ):
        harness.send(refuse)
    assert len(asked) == 3


def test_no_state_in_any_message(harness: UploadHarness, caplog: pytest.LogCaptureFixture) -> None:
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


def test_an_upload_to_another_server_goes_there_without_the_login(harness: UploadHarness) -> None:
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
