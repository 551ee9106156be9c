"""Mirrors, and layers whose connection is cut or whose mirror fails."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from packager.errors import ImageNotFoundError, RegistryAuthError, RegistryUnreachableError
from packager.models.image import Descriptor
from packager.models.reference import Reference
from packager.registry.access import RegistryAccess, Trust
from packager.registry.client import Repository, find_image
from packager.system.retries import RetryPolicy
from tests.unit.memory_registry import keychain_of
from tests.unit.registry.test_client import ANN, LAYER, MANIFEST, digest_of, registry, reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = Reference.parse("r.io/team/base:1")


@pytest.fixture
def access() -> RegistryAccess:
    return RegistryAccess(keychain=keychain_of(ANN))


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
        ({"accepts": "no login"}, "r.io/team/base:1", "r.io"),
        ({"documents": {f"/v2/team/base/manifests/{digest_of(MANIFEST)}": b"{}"}},
         f"r.io/team/base@{digest_of(MANIFEST)}", "r.io"),
    ],
)  # fmt: skip
def test_image_comes_from_the_first_good_mirror(
    access: RegistryAccess, changes: dict[str, Any], name: str, host: str
) -> None:
    mirrored = replace(access, trust=MIRRORED)
    transport = httpx.MockTransport(mirrors(**changes))
    with find_image(Reference.parse(name), mirrored, "amd64", transport=transport) as (repository, image):
        assert repository.reference.host == host
        assert image.digest == digest_of(MANIFEST)
        with repository.layer(image.layers[0]) as layer:
            assert layer.read(5) == b"layer"


@pytest.mark.parametrize("status", [404, 401, 400, 503])
def test_layer_missing_at_the_mirror_comes_from_the_host(access: RegistryAccess, status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.host, request.url.path))
        lacks = request.url.host == "mirror.io" and request.url.path.endswith(digest_of(LAYER))
        return reply(status) if lacks else honest(request)

    asked: list[tuple[str, str]] = []
    honest = mirrors()
    mirrored = replace(access, trust=MIRRORED)
    with find_image(NAME, mirrored, "amd64", transport=httpx.MockTransport(answer)) as (repository, image):
        assert repository.reference.host == "mirror.io"
        with repository.layer(image.layers[0]) as layer:
            assert b"".join(iter(lambda: layer.read(777), b"")) == LAYER
    path = f"/v2/team/base/blobs/{digest_of(LAYER)}"
    assert asked[-2:] == [("mirror.io", path), ("r.io", path)]


@pytest.mark.parametrize("ranges", [True, False])
def test_layer_is_continued_at_the_host_when_the_mirror_fails(access: RegistryAccess, ranges: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith(digest_of(LAYER)):
            return honest(request)
        if request.url.host == "mirror.io":
            return down(request)
        return own(request)

    honest, down, own = mirrors(), CutOff(cuts=[1000] + [0] * 100, ranges=ranges), CutOff(cuts=[], ranges=ranges)
    mirrored = replace(access, trust=MIRRORED)
    with (
        find_image(NAME, mirrored, "amd64", transport=httpx.MockTransport(answer)) as (repository, image),
        repository.layer(image.layers[0]) as layer,
    ):
        assert b"".join(iter(lambda: layer.read(777), b"")) == LAYER
    assert own.asked > 0


def test_layer_missing_everywhere_is_an_error(access: RegistryAccess) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return reply(404) if request.url.path.endswith(digest_of(LAYER)) else honest(request)

    honest = mirrors()
    mirrored = replace(access, trust=MIRRORED)
    transport = httpx.MockTransport(answer)
    with (
        find_image(NAME, mirrored, "amd64", transport=transport) as (repository, image),
        pytest.raises(ImageNotFoundError, match=r"the registry r\.io has no layer"),
        repository.layer(image.layers[0]) as layer,
    ):
        layer.read(1)


def test_image_missing_everywhere_is_an_error(access: RegistryAccess) -> None:
    mirrored = replace(access, trust=MIRRORED)
    transport = httpx.MockTransport(lambda _request: reply(404))
    with (
        pytest.raises(ImageNotFoundError, match=r"the registry r\.io has no image r\.io/team/base:1"),
        find_image(NAME, mirrored, "amd64", transport=transport),
    ):
        pass


def test_login_of_the_host_is_not_sent_to_a_mirror(access: RegistryAccess) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.headers.get("Authorization")))
        return reply(401, WWW_Authenticate='Basic realm="give"')

    seen: list[tuple[str, str | None]] = []
    mirrored = replace(access, trust=MIRRORED)
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
def test_cut_layer_is_continued(access: RegistryAccess, cuts: list[int], ranges: bool) -> None:
    blob = Descriptor(media_type="application/vnd.oci.image.layer.v1.tar", digest=digest_of(LAYER), size=len(LAYER))
    fake = CutOff(cuts=list(cuts), ranges=ranges)
    retries = RetryPolicy(seconds=60, sleep=lambda _seconds: None)
    repository = Repository(NAME, access, transport=httpx.MockTransport(fake), retries=retries)
    with closing(repository), repository.layer(blob) as layer:
        assert b"".join(iter(lambda: layer.read(777), b"")) == LAYER
    assert fake.asked == len(cuts) + 1


def test_layer_that_is_always_cut_is_an_error(access: RegistryAccess) -> None:
    blob = Descriptor(media_type="", digest=digest_of(LAYER), size=len(LAYER))
    transport = httpx.MockTransport(CutOff(cuts=[0] * 1000))
    repository = Repository(
        NAME, access, transport=transport, retries=RetryPolicy(seconds=5, sleep=lambda _seconds: None)
    )
    with (
        pytest.raises(RegistryUnreachableError, match="can't be reached: Connection reset"),
        repository.layer(blob) as layer,
    ):
        layer.read(1)
