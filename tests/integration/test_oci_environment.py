"""Environments that are kept in a real registry: used when nothing has changed, made anew when anything is wrong."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.front import FaultProxy, serve_front
from tests.integration.oci import build, digest_of, pip_harness, push, put_requirements, words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.packaging import PackagingHarness, Ran
    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")

MADE = "relocating the packages to their path in the image"
USED = "unchanged dependencies: using the environment in"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def front(registry: Registry, storage: dict[str, str], tiny_base: str) -> Iterator[FaultProxy]:
    push(storage, tiny_base, registry.host, "environments/base:1")
    with serve_front(registry) as front:
        yield front


@pytest.fixture
def harness(tmp_path: Path, storage: dict[str, str], front: FaultProxy) -> PackagingHarness:
    return pip_harness(tmp_path, storage, f"{front.host}/environments/base:1")


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return "environments/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


class Cache:
    """The notes of one repository, by the registry's own interface."""

    def __init__(self, registry: Registry, path: str) -> None:
        self.registry = registry
        self.path = f"{path}/cache"

    def tags(self) -> list[str]:
        status, _, body = self.registry.ask("GET", f"/v2/{self.path}/tags/list")
        return list(json.loads(body)["tags"] or []) if status == 200 else []

    def note(self, tag: str) -> dict[str, Any]:
        return self.registry.manifest(self.path, tag)

    def put(self, tag: str, manifest: dict[str, Any]) -> None:
        self.send("PUT", f"/v2/{self.path}/manifests/{tag}", json.dumps(manifest).encode(), MANIFEST)

    def put_document(self, document: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        location = self.send("POST", f"/v2/{self.path}/blobs/uploads/", b"", MANIFEST)
        sign = "&" if "?" in location else "?"
        self.send("PUT", f"{location}{sign}digest={digest}", data, "application/octet-stream")
        return {"digest": digest, "size": len(data)}

    def send(self, method: str, address: str, body: bytes, media_type: str) -> str:
        connection = http.client.HTTPConnection(self.registry.host, timeout=10)
        try:
            connection.request(method, address, body=body, headers={"Content-Type": media_type})
            answer = connection.getresponse()
            assert answer.status < 300, answer.read()
            return answer.headers.get("Location", "")
        finally:
            connection.close()


def assert_made(ran: Ran, *, said: str = "") -> None:
    assert MADE in ran.err
    assert USED not in ran.err
    assert said in ran.err


def assert_used(ran: Ran) -> None:
    assert USED in ran.err
    assert MADE not in ran.err


def test_an_unchanged_environment_is_neither_made_nor_sent(
    harness: PackagingHarness, front: FaultProxy, registry: Registry, path: str
) -> None:
    to = f"docker://{front.host}/{path}"
    assert_made(build(harness, f"{to}:1"))
    (harness.model / "odahuflow_model/weights.bin").write_bytes(b"another model")
    front.forget()
    second = build(harness, f"{to}:2")
    assert_used(second)
    assert "layer environment: unchanged" in second.err
    assert front.count("PATCH", "") == 2  # the model's layer and the config
    first, last = (registry.manifest(path, tag)["layers"] for tag in ("1", "2"))
    assert first[:-1] == last[:-1]

    # A third image, elsewhere in this registry, takes the layer over without a byte of it.
    harness.environ["PACKAGER_CACHE_REPO"] = f"{front.host}/{path}/cache"
    front.forget()
    third = build(harness, f"docker://{front.host}/{path}-elsewhere:1")
    assert_used(third)
    assert "layer environment: mounted in the registry" in third.err

    put_requirements(harness, "# nothing else\n")
    assert_made(build(harness, f"{to}:4"))


def test_the_cache_in_a_registry_that_takes_nothing_over(
    harness: PackagingHarness, front: FaultProxy, path: str
) -> None:
    front.rewrites = lambda _method, asked: asked.split("?mount")[0]
    to = f"docker://{front.host}/{path}:1"
    first = build(harness, to)
    assert_made(first)
    second = build(harness, to)
    assert_used(second)
    assert digest_of(first) == digest_of(second)


def test_the_cache_in_another_registry(
    harness: PackagingHarness, front: FaultProxy, registry: Registry, path: str
) -> None:
    harness.environ["PACKAGER_CACHE_REPO"] = f"{registry.host}/{path}/kept"
    first = build(harness, f"docker://{front.host}/{path}:1")
    assert_made(first)
    second = build(harness, f"docker://{front.host}/{path}-new:1")
    assert_used(second)
    assert "layer environment: copied" in second.err
    assert digest_of(first) == digest_of(second)


def test_age_refresh_and_no_cache(harness: PackagingHarness, front: FaultProxy, registry: Registry, path: str) -> None:
    to = f"docker://{front.host}/{path}:1"
    first = build(harness, to)
    assert_made(build(harness, to, "--refresh-environment"), said="again, as requested")
    harness.environ["PACKAGER_ENVIRONMENT_MAX_AGE"] = "0"
    assert_made(build(harness, to), said="min old: solving again")
    harness.environ["PACKAGER_ENVIRONMENT_MAX_AGE"] = "1"
    assert_used(build(harness, to))
    front.forget()
    harness.environ["PACKAGER_ENVIRONMENT_CACHE"] = "false"
    last = build(harness, to)
    assert_made(last)
    assert front.count("GET", "/cache/") == 0
    assert digest_of(last) == digest_of(first)
    assert len(Cache(registry, path).tags()) == 1


def test_a_kept_layer_that_is_gone_is_made_anew(
    harness: PackagingHarness, front: FaultProxy, registry: Registry, path: str
) -> None:
    to = f"docker://{front.host}/{path}:1"
    first = build(harness, to)
    cache = Cache(registry, path)
    (tag,) = cache.tags()
    layer = cache.note(tag)["layers"][0]["digest"]
    assert registry.ask("DELETE", f"/v2/{cache.path}/blobs/{layer}")[0] == 202
    second = build(harness, to)
    assert_made(second, said="names a blob that no longer exists")
    assert digest_of(second) == digest_of(first)
    assert_used(build(harness, to))


LIES = {
    "of another environment": "it has another schema version or key",
    "with a diffId that is none": "is not a digest",
    "of another kind": "is not an artifact of type",
    "an image": "is not an artifact of type",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_note_that_lies_is_replaced(
    harness: PackagingHarness, front: FaultProxy, registry: Registry, path: str, lie: str
) -> None:
    harness.environ["SOURCE_DATE_EPOCH"] = "1234567890"  # the label names the model's time, which changes here
    to = f"docker://{front.host}/{path}:1"
    first = build(harness, to)
    cache = Cache(registry, path)
    (tag,) = cache.tags()
    note = cache.note(tag)
    document = json.loads(registry.blob(cache.path, note["config"]["digest"]))
    if lie == "of another environment":
        put_requirements(harness, "# another one\n")
        build(harness, to)
        (other,) = set(cache.tags()) - {tag}
        cache.put(tag, cache.note(other))
        put_requirements(harness, "# nothing\n")
    elif lie == "an image":
        image = registry.manifest(path, "1")
        harness.environ["PACKAGER_CACHE_REPO"] = f"{front.host}/{path}"
        cache.path = path
        cache.put(tag, image)
    else:
        if lie == "of another kind":
            note["config"]["mediaType"] = "application/json"
        else:
            note["config"] |= cache.put_document({**document, "diffId": "sha256:12"})
        cache.put(tag, note)
    second = build(harness, to)
    assert_made(second, said=LIES[lie])
    assert "WARNING" in second.err
    assert digest_of(second) == digest_of(first)
    assert_used(build(harness, to))


def test_two_jobs_at_once(harness: PackagingHarness, front: FaultProxy, registry: Registry, path: str) -> None:
    to = f"docker://{front.host}/{path}:1"
    (harness.model / "odahuflow_model/weights.bin").write_bytes(b"x" * (4 << 20))
    processes = [harness.start(*words(harness, to)) for _ in range(2)]
    ended = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    digests = {out.strip().rpartition("@")[2] for out, _ in ended}
    assert digests == {registry.digest(path, "1")}
    assert_used(build(harness, to))


def test_a_cache_that_may_not_be_written_is_no_failure(harness: PackagingHarness, front: FaultProxy, path: str) -> None:
    front.answers = lambda method, asked: (403, b"{}") if method != "GET" and "/cache/" in asked else None
    ran = build(harness, f"docker://{front.host}/{path}:1")
    assert "cannot cache the environment for the next run" in ran.err


def test_a_cache_that_can_not_be_read_is_no_failure(harness: PackagingHarness, front: FaultProxy, path: str) -> None:
    front.answers = lambda _method, asked: (403, b"{}") if "/cache/" in asked else None
    assert_made(build(harness, f"docker://{front.host}/{path}:1"), said="cannot read the environment cache")
