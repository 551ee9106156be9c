"""The oci engine with registries that fail, and with full disks: the image is whole, or the tag is what it was."""

from __future__ import annotations

import os
import subprocess
import threading
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from packager.errors import (
    BuildError,
    DiskFullError,
    ImageNotFoundError,
    PackagerError,
    RegistryAuthError,
    RegistryError,
    RegistryUnreachableError,
)
from packager.image.plan import ImageConfig, ImagePlan, RunStep
from packager.models.reference import Destination, Reference
from tests.integration.front import FaultProxy, serve_front
from tests.integration.oci import OciHarness, push
from tests.integration.packagings import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")

LARGE = 6 << 20


def place(folder: Path) -> str:
    """A path in the registry for a test's folder."""
    return f"faults/{zlib.crc32(folder.name.encode()):x}"


@pytest.fixture
def front(registry: Registry, storage: dict[str, str], tiny_base: str, tmp_path: Path) -> Iterator[FaultProxy]:
    """A front with the base behind it, in a repository of this test's own."""
    push(storage, tiny_base, registry.host, f"{place(tmp_path)}/base:1")
    with serve_front(registry) as front:
        yield front


@pytest.fixture
def harness(tmp_path: Path) -> OciHarness:
    (tmp_path / "work").mkdir()
    return OciHarness(tmp_path)


@pytest.fixture
def names(front: FaultProxy, tmp_path: Path) -> tuple[str, str]:
    return f"{front.host}/{place(tmp_path)}/base:1", f"docker://{front.host}/{place(tmp_path)}/wine:1"


def assert_whole(registry: Registry, path: str, digest: str) -> None:
    assert registry.digest(path, "1") == digest
    manifest = registry.manifest(path, "1")
    for blob in (manifest["config"], *manifest["layers"]):
        assert len(registry.blob(path, blob["digest"])) == blob["size"]


@pytest.mark.parametrize("cuts", [[3 << 20], [0], [1 << 20, 2 << 20, 0]], ids=str)
def test_an_upload_that_is_cut_is_brought_to_its_end(
    harness: OciHarness, front: FaultProxy, names: tuple[str, str], registry: Registry, cuts: list[int]
) -> None:
    front.cuts = list(cuts)
    built = harness.build(*names, {"model": os.urandom(LARGE)})
    assert not front.cuts
    assert front.count("PATCH", "/wine/") >= len(cuts) + 1
    assert_whole(registry, f"{place(harness.folder)}/wine", built.digest)
    harness.assert_nothing_left()


def test_a_registry_that_takes_no_blob_over(
    harness: OciHarness, front: FaultProxy, names: tuple[str, str], registry: Registry
) -> None:
    front.rewrites = lambda _method, path: path.split("?mount")[0]
    built = harness.build(*names, {"model": b"model"})
    assert front.count("POST", "mount=") == 1
    assert_whole(registry, f"{place(harness.folder)}/wine", built.digest)
    front.forget()
    assert harness.build(*names, {"model": b"model"}) == built
    assert front.count("POST", "") == 0  # everything is there


def test_a_registry_that_takes_a_blob_over(
    harness: OciHarness, front: FaultProxy, names: tuple[str, str], registry: Registry
) -> None:
    built = harness.build(*names, {"model": b"model"})
    base = registry.manifest(f"{place(harness.folder)}/base", "1")["layers"]
    assert front.count("POST", "mount=") == len(base)
    assert front.sent < 64 << 10 < sum(layer["size"] for layer in base)
    assert_whole(registry, f"{place(harness.folder)}/wine", built.digest)


def test_a_registry_that_takes_no_parts(
    harness: OciHarness, front: FaultProxy, names: tuple[str, str], registry: Registry
) -> None:
    front.answers = lambda method, _path: (405, b"{}") if method == "PATCH" else None
    built = harness.build(*names, {"model": os.urandom(LARGE), "small": b"x"})
    assert_whole(registry, f"{place(harness.folder)}/wine", built.digest)


def test_the_bases_registry_is_another_one(
    harness: OciHarness, front: FaultProxy, names: tuple[str, str], password_registry: Registry, registry: Registry
) -> None:
    """It refuses us here, as nobody gave a login for it: the error names it, and nothing is sent."""
    with pytest.raises(RegistryAuthError, match=password_registry.host):
        harness.build(names[0], f"docker://{password_registry.host}/models/wine:1", {"model": b"x"})
    built = harness.build(names[0], f"docker://{registry.host}/{place(harness.folder)}/other:1", {"model": b"x"})
    assert_whole(registry, f"{place(harness.folder)}/other", built.digest)
    assert front.count("POST", "") == 0


def refuse(method: str, words: str, status: int) -> Any:
    def change(front: FaultProxy, _registry: Registry, _path: str) -> None:
        front.answers = lambda asked, path: (status, b"{}") if asked == method and words in path else None

    return change


def remove_layer(_front: FaultProxy, registry: Registry, path: str) -> None:
    for name in ("base", "wine"):
        layer = registry.manifest(f"{path}/{name}", "1")["layers"][0]["digest"]
        assert registry.ask("DELETE", f"/v2/{path}/{name}/blobs/{layer}")[0] == 202


def change_layer(front: FaultProxy, registry: Registry, path: str) -> None:
    remove_layer(front, registry, path)
    push_again = registry.manifest(f"{path}/base", "1")["layers"][0]
    front.answers = lambda method, asked: (
        (200, b"x" * push_again["size"]) if method == "GET" and push_again["digest"] in asked else None
    )


def claim_another_digest(front: FaultProxy, _registry: Registry, _path: str) -> None:
    def change(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        if method == "PUT" and "/blobs/" in path:
            headers["Docker-Content-Digest"] = "sha256:" + "0" * 64
        return body

    front.changes = change


def lose_the_end(front: FaultProxy, _registry: Registry, _path: str) -> None:
    front.rewrites = lambda method, path: (
        path.replace("digest=sha256%3A", "digest=sha256%3A0") if method == "PUT" else path
    )


def always_cut(front: FaultProxy, _registry: Registry, _path: str) -> None:
    front.cuts = [100] * 1000


FAULTS: dict[str, tuple[Any, type[PackagerError], str]] = {
    "a layer of the base is gone": (remove_layer, ImageNotFoundError, "has no layer sha256:.* of .*/base"),
    "a layer of the base is another": (change_layer, RegistryError, "gave a layer whose digest isn't sha256"),
    "the registry stores something else": (claim_another_digest, RegistryError, "stored sha256:000"),
    "the registry refuses what was sent": (lose_the_end, RegistryError, "doesn't accept|answered"),
    "every upload is cut": (always_cut, RegistryUnreachableError, "can't be reached"),
    "uploads fail": (refuse("PATCH", "", 500), RegistryError, "500"),
    "uploads are forbidden": (refuse("POST", "uploads", 403), RegistryAuthError, "refused"),
    "the manifest is refused": (refuse("PUT", "manifests", 400), RegistryError, "400"),
    "the registry can't say what it has": (refuse("HEAD", "blobs", 503), RegistryError, "503"),
}


def own_threads() -> set[threading.Thread]:
    """The threads of this process but for those of the front's connections, which wait for the registry behind it."""
    return {thread for thread in threading.enumerate() if "process_request_thread" not in thread.name}


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_the_tag_is_what_it_was(
    harness: OciHarness, front: FaultProxy, names: tuple[str, str], registry: Registry, fault: str
) -> None:
    path = place(harness.folder)
    threads = own_threads()
    before = harness.build(*names, {"model": b"the first"}).digest
    change, kind, words = FAULTS[fault]
    change(front, registry, path)
    harness.retry_seconds = 1
    with pytest.raises(PackagerError, match=words) as caught:
        harness.build(*names, {"model": os.urandom(LARGE), "more": b"x"})
    assert type(caught.value) is kind or isinstance(caught.value, kind)
    assert caught.value.hint
    assert registry.digest(f"{path}/wine", "1") == before
    wait_until(lambda: own_threads() <= threads)
    harness.assert_nothing_left()


def test_a_command_during_the_build_is_beyond_it(
    harness: OciHarness, front: FaultProxy, names: tuple[str, str]
) -> None:
    to = Destination.parse(names[1], Reference.parse("r.io/x"))
    with harness.access(to.reference) as access:
        plan = ImagePlan(
            base=harness.engine.inspect_base(Reference.parse(names[0]), access),
            steps=(RunStep(name="conda env update", argv=("true",)),),
            config=ImageConfig(),
        )
        front.forget()
        with pytest.raises(BuildError, match="needs `conda env update`") as caught:
            harness.engine.build(plan, harness.folder, to, access)
    assert "--engine buildah" in caught.value.hint
    assert front.asked == []


def test_two_builds_at_once(harness: OciHarness, front: FaultProxy, names: tuple[str, str], registry: Registry) -> None:
    files: dict[str, bytes | Path] = {"model": os.urandom(LARGE), "small": b"x"}
    front.slow = True
    digests: list[str] = []
    threads = [threading.Thread(target=lambda: digests.append(harness.build(*names, files).digest)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 3
    assert len(set(digests)) == 1
    assert_whole(registry, f"{place(harness.folder)}/wine", digests[0])


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("output", "size"),
    [
        *((output, 2) for output in ("oci:{}/layout", "oci-archive:{}/a.tar", "docker-archive:{}/a.tar")),
        *((output, 9) for output in ("oci-archive:{}/a.tar", "docker-archive:{}/a.tar")),
    ],
)
def test_a_full_disk(harness: OciHarness, names: tuple[str, str], output: str, size: int) -> None:
    """Too small for the layers, and too small for the archive beside them."""
    disk = harness.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", disk], check=True)
    try:
        (disk / "there").write_text("x")
        with pytest.raises(DiskFullError, match="no space left") as caught:
            harness.build(names[0], output.format(disk), {"model": os.urandom(LARGE)})
        assert caught.value.hint
        assert [path.name for path in disk.iterdir()] == ["there"]
    finally:
        subprocess.run(["umount", disk], check=True)
    harness.assert_nothing_left("disk")


def test_a_base_that_is_not_there(harness: OciHarness, names: tuple[str, str]) -> None:
    harness.settings = {"platform": "linux-aarch64"}
    with pytest.raises(BuildError, match="is for amd64, not for linux-aarch64"):
        harness.build(*names, {"model": b"x"})
    with pytest.raises(ImageNotFoundError, match="has no image"):
        harness.build(names[0].replace(":1", ":2"), names[1], {"model": b"x"})


def test_a_docker_archive_of_zstd_layers_is_refused(harness: OciHarness, names: tuple[str, str]) -> None:
    harness.settings["layer_compression"] = "zstd"
    with pytest.raises(BuildError, match="a docker archive has no layers of zstd"):
        harness.build(names[0], f"docker-archive:{harness.folder}/a.tar", {"model": b"1"})
    harness.assert_nothing_left()
