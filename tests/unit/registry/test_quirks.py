"""How registries differ, by their public reports, and how a push deals with it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from packager.errors import RegistryError
from packager.models.image import DOCKER_MANIFEST, OCI_MANIFEST
from packager.models.reference import Reference
from packager.registry.access import RegistryAccess
from packager.registry.blobs import BytesBlob
from packager.registry.uploads import Uploads, check_push
from packager.system.retries import RetryPolicy
from tests.unit.upload_registry import (
    QUOTED,
    Cut,
    Lost,
    Refused,
    RequestContext,
    Unread,
    UploadRegistry,
    descriptor_of,
    digest_of,
)

if TYPE_CHECKING:
    pass

NAME = Reference.parse("r.io/team/wine:1")
DATA = bytes(range(256)) * 40
BLOB = BytesBlob(data=DATA, known=descriptor_of(DATA))
BASE = Reference.parse("r.io/team/base:1")


@dataclass
class PushHarness:
    slept: list[float] = field(default_factory=list)

    def access(self) -> RegistryAccess:
        return RegistryAccess()

    def uploads(self, handler: Any) -> Uploads:
        retries = RetryPolicy(seconds=20, sleep=self.slept.append)
        return Uploads(NAME, self.access(), transport=Unread(handler), retries=retries)

    def send(self, handler: Any) -> None:
        with closing(self.uploads(handler)) as uploads:
            assert uploads.send(BLOB) == descriptor_of(DATA)

    def put(self, handler: Any, media_type: str = OCI_MANIFEST) -> str:
        with closing(self.uploads(handler)) as uploads:
            return uploads.put_manifest("1", b"{}", media_type)


@pytest.fixture
def push(monkeypatch: pytest.MonkeyPatch) -> PushHarness:
    harness = PushHarness()
    monkeypatch.setattr("tenacity.time.monotonic", lambda: sum(harness.slept))
    return harness


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("POST", 200),
        ("POST", 201),
        ("PATCH", 200),
        ("PATCH", 201),  # Amazon ECR: aws/containers-roadmap#2831
        ("PATCH", 204),  # google/go-containerregistry#2198, pulp/pulp_container#2199
        ("PUT", 200),
        ("PUT", 202),
        ("PUT", 204),
        ("GET", 200),
        ("HEAD", 204),
    ],
)
def test_any_2xx_is_a_success(push: PushHarness, method: str, status: int) -> None:
    registry = UploadRegistry(statuses={method: status}, plan={"PATCH": [Cut(3000)]})
    check_push(NAME, push.access(), transport=Unread(registry))
    push.send(registry)
    assert push.put(registry) == digest_of(b"{}")
    assert registry.blobs == {digest_of(DATA): DATA}
    assert registry.bodies() == [DATA[:3000], DATA[3000:], b"{}"], "the blob was not sent in one go"
    assert registry.open == {}
    assert push.uploads(registry).has(digest_of(DATA))


@dataclass
class FirstPartOnly(UploadRegistry):
    """Accepts every part of a blob and keeps the first; its PATCH answers have the range, or don't."""

    tells: bool = True

    def patch(self, asked: RequestContext) -> httpx.Response:
        if not self.open[asked.path]:
            return super().patch(asked)
        location = f"{asked.path}?_state={QUOTED}&again"
        kept = {"Range": f"0-{len(self.open[asked.path]) - 1}"} if self.tells else {}
        return httpx.Response(201, headers={"Location": location, **kept}, stream=httpx.ByteStream(b""))


@pytest.mark.parametrize("tells", [True, False])
def test_cut_upload_starts_over_where_only_its_first_part_is_kept(push: PushHarness, tells: bool) -> None:
    registry = FirstPartOnly(plan={"PATCH": [Cut(3000)]}, tells=tells)
    push.send(registry)
    assert registry.blobs == {digest_of(DATA): DATA}
    assert registry.counts["POST"] == 2
    assert registry.counts["PUT"] == 2
    assert registry.open == {}


@dataclass
class StuckRange(UploadRegistry):
    """Keeps all parts of a blob, and reports the range of the first: Amazon ECR, aws/containers-roadmap#2831."""

    first: int = 0

    def patch(self, asked: RequestContext) -> httpx.Response:
        self.first = self.first or len(self.open[asked.path])
        response = super().patch(asked)
        if self.first:
            response.headers["Range"] = f"0-{self.first - 1}"
        return response


def test_cut_upload_is_resumed_where_the_range_is_stuck_at_its_first_part(push: PushHarness) -> None:
    registry = StuckRange(plan={"PATCH": [Cut(3000)]})
    push.send(registry)
    assert registry.first == 3000
    assert registry.blobs == {digest_of(DATA): DATA}
    assert registry.bodies() == [DATA[:3000], DATA[3000:]]
    assert registry.counts["POST"] == registry.counts["PUT"] == 1


def test_upload_continues_at_its_url_when_the_registry_names_no_other(push: PushHarness) -> None:
    registry = UploadRegistry(moves=False)
    push.send(registry)
    patch, put = registry.asked[1:]
    assert put.path == patch.path
    assert registry.blobs == {digest_of(DATA): DATA}


@pytest.mark.parametrize("redirected", [False, True])
def test_relative_location_is_relative_to_where_the_request_ended(push: PushHarness, redirected: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.host}")
        if redirected and request.url.host == "r.io":
            return registry.reply(307, Location=str(request.url.copy_with(host="eu.r.io")))
        response = registry(request)
        if request.method in ("POST", "PATCH"):
            response.headers["Location"] = response.headers["Location"].rpartition("/")[2]
        return response

    seen: list[str] = []
    registry = UploadRegistry()
    push.send(answer)
    host = "eu.r.io" if redirected else "r.io"
    assert seen == [*(["POST r.io"] if redirected else []), f"POST {host}", f"PATCH {host}", f"PUT {host}"]
    assert registry.blobs == {digest_of(DATA): DATA}


def test_server_that_answers_everything_with_200_is_refused(push: PushHarness) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(b"<html>welcome"))

    with pytest.raises(RegistryError, match="begins an upload without saying where"):
        check_push(NAME, push.access(), transport=Unread(answer))


def test_cookies_are_not_kept(push: PushHarness) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Cookie"))
        if seen[-1]:  # Harbor: dotnet/sdk-container-builds#418, goharbor/harbor#11682
            return registry.reply(403, b'{"errors": [{"code": "FORBIDDEN", "message": "CSRF token invalid"}]}')
        response = registry(request)
        response.headers["Set-Cookie"] = "sid=1; Path=/; HttpOnly"
        return response

    seen: list[str | None] = []
    registry = UploadRegistry()
    push.send(answer)
    assert seen == [None, None, None]


def test_proxy_that_wants_to_know_the_length_gets_the_blob_whole(push: PushHarness) -> None:
    registry = UploadRegistry(plan={"PATCH": [411]})
    push.send(registry)
    assert registry.blobs == {digest_of(DATA): DATA}
    assert registry.asked[-2].headers["Content-Length"] == str(len(DATA))


def test_digest_of_another_algorithm_is_ignored(push: PushHarness) -> None:
    registry = UploadRegistry(stored_as="sha512:" + "0" * 128)
    push.send(registry)
    assert push.put(registry) == digest_of(b"{}")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410])
def test_blob_that_cannot_be_asked_for_is_uploaded(push: PushHarness, status: int) -> None:
    registry = UploadRegistry(plan={"HEAD": [status]}, blobs={digest_of(DATA): DATA})
    assert not push.uploads(registry).has(digest_of(DATA))


def test_refused_blob_is_reported_where_it_cannot_be_asked_for(push: PushHarness) -> None:
    registry = UploadRegistry(plan={"PUT": [Refused("DIGEST_INVALID")], "HEAD": [403]})
    with pytest.raises(RegistryError, match=r"doesn't accept the blob sha256:[0-9a-f]+: DIGEST_INVALID"):
        push.send(registry)


@pytest.mark.parametrize("trouble", [409, 422, 429, 500, 501, 503, Lost(), Refused("UNSUPPORTED", 405)])
def test_failed_mount_does_not_fail_the_push(push: PushHarness, trouble: Any) -> None:
    registry = UploadRegistry(mounts=False, plan={"POST": [trouble] * 99})
    assert push.uploads(registry).mount(digest_of(DATA), BASE) is False
    assert sum(push.slept) <= 5
    assert registry.counts["POST"] == len(push.slept) + 1


def test_mount_is_retried(push: PushHarness) -> None:
    registry = UploadRegistry(plan={"POST": [503]}, blobs={digest_of(DATA): DATA})
    assert push.uploads(registry).mount(digest_of(DATA), BASE) is True


IMMUTABLE = [
    # Amazon ECR, moby/buildkit#3776
    Refused("TAG_INVALID", 400, "The image tag '1' already exists in the 'wine' repository and cannot be overwritten"),
    # Harbor, goharbor/harbor#18792
    Refused("PRECONDITION", 412, "Failed to process request due to 'wine:1' configured as immutable."),
    # Nexus, GoogleContainerTools/jib#3057
    Refused("BLOB_UPLOAD_INVALID", 400, "blob upload invalid", "Repository does not allow updating assets: docker"),
    # Docker Hub, docker/hub-feedback#2466
    Refused("DENIED", 403, "the tag is immutable"),
    Refused("CONFLICT", 409),
]


@pytest.mark.parametrize("refused", IMMUTABLE)
def test_immutable_tag_is_named_as_one(push: PushHarness, refused: Refused) -> None:
    registry = UploadRegistry(plan={"PUT": [refused]}, manifests={"1": b'{"another": 1}'})
    with pytest.raises(RegistryError) as caught:
        push.put(registry)
    assert type(caught.value) is RegistryError
    assert "r.io/team/wine has the tag 1 already, and its registry lets no tag be replaced" in caught.value.message
    assert refused.code in caught.value.message
    assert refused.detail in caught.value.message
    assert "another tag" in caught.value.hint
    assert registry.counts["PUT"] == 1


@pytest.mark.parametrize("refused", IMMUTABLE)
def test_immutable_tag_that_names_this_image_already_is_a_success(push: PushHarness, refused: Refused) -> None:
    registry = UploadRegistry(plan={"PUT": [refused]}, manifests={"1": b"{}"})
    assert push.put(registry) == digest_of(b"{}")


@pytest.mark.parametrize(
    "refused", [Refused("PRECONDITION", 412, "scan first"), Refused("PRECONDITION", 412, "Quota exceeded")]
)
def test_other_reasons_are_not_taken_for_an_immutable_tag(push: PushHarness, refused: Refused) -> None:
    manifests = {"1": b'{"another": 1}'} if "Quota" in refused.message else {}
    with pytest.raises(RegistryError, match=f"answered 412 PRECONDITION: {refused.message}"):
        push.put(UploadRegistry(plan={"PUT": [refused]}, manifests=manifests))


@pytest.mark.parametrize(
    ("refused", "media_type", "words", "hint"),
    [
        (415, OCI_MANIFEST, f"doesn't accept manifests of the type {OCI_MANIFEST}", "PACKAGER_IMAGE_FORMAT=docker"),
        (Refused("MANIFEST_INVALID", 400, "unsupported Media Type"), OCI_MANIFEST, "doesn't accept manifests of",
         "PACKAGER_IMAGE_FORMAT=docker"),
        (Refused("MANIFEST_INVALID", 400, "manifest schema version not supported"), OCI_MANIFEST,
         "doesn't accept manifests of", "PACKAGER_IMAGE_FORMAT=docker"),
        (Refused("MANIFEST_INVALID", 400, "manifest invalid"), OCI_MANIFEST, "answered 400 MANIFEST_INVALID",
         "PACKAGER_IMAGE_FORMAT=docker"),  # oracle/smith#25
        (415, DOCKER_MANIFEST, f"doesn't accept manifests of the type {DOCKER_MANIFEST}",
         "leave PACKAGER_IMAGE_FORMAT at oci"),
    ],
)  # fmt: skip
def test_manifest_of_an_unknown_format_names_the_setting(
    push: PushHarness, refused: Any, media_type: str, words: str, hint: str
) -> None:
    with pytest.raises(RegistryError) as caught:
        push.put(UploadRegistry(plan={"PUT": [refused]}), media_type)
    assert words in caught.value.message
    assert hint in caught.value.hint
