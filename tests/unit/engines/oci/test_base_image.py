"""A base image in a layout, whole or broken -> its documents, or one clear error."""

from __future__ import annotations

import hashlib
import json
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

from packager.engines.oci.base_image import open_base
from packager.errors import BuildError, ImageNotFoundError, PackagerError
from packager.models.reference import Reference
from packager.registry.access import RegistryAccess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from packager.models.image import Descriptor, RemoteImage

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYERS = [bytes([number]) * 3_000_000 for number in range(4)]


class Maker:
    """Writes a layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def put(self, content: Any, **more: Any) -> dict[str, Any]:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": MANIFEST, "digest": f"sha256:{digest}", "size": len(data), **more}

    def image(self, architecture: str = "amd64", **more: Any) -> dict[str, Any]:
        config = self.put({"architecture": architecture})
        layers = [self.put(layer) for layer in LAYERS]
        return self.put({"mediaType": MANIFEST, "config": config, "layers": layers}, **more)

    def index(self, *entries: dict[str, Any]) -> None:
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(entries)}))


def named(tag: str) -> dict[str, Any]:
    return {"annotations": {"org.opencontainers.image.ref.name": tag}}


def platform(architecture: str, system: str = "linux") -> dict[str, Any]:
    return {"platform": {"os": system, "architecture": architecture}}


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "layout")


def image(maker: Maker, text: str = "", architecture: str = "amd64") -> RemoteImage:
    reference = Reference.parse_base(text or f"oci:{maker.folder}")
    with open_base(reference, RegistryAccess(), architecture) as base:
        assert base.origin is None
        return base.image


def pack(maker: Maker, mode: str = "w", inside: str = "") -> Path:
    file = maker.folder.with_name("archive.tar")
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        archive.add(maker.folder, inside)
    return file


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("inside", ["", "."])
def test_layers_of_an_archive_can_be_read_at_the_same_time(maker: Maker, mode: str, inside: str) -> None:
    maker.index(maker.image())
    reference = Reference.parse_base(f"oci-archive:{pack(maker, mode, inside)}")
    read: dict[str, bytes] = {}
    together = threading.Barrier(len(LAYERS))

    def bring(blob: Descriptor) -> None:
        with base.layers.layer(blob) as layer:
            together.wait(30)
            data = b""
            while chunk := layer.read(1000):
                data += chunk
        read[blob.digest] = data

    with open_base(reference, RegistryAccess(), "amd64") as base:
        threads = [threading.Thread(target=bring, args=(blob,)) for blob in base.image.layers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [read.get(blob.digest) for blob in base.image.layers] == LAYERS


def test_a_tag_chooses_one_of_several(maker: Maker) -> None:
    first, second = maker.image(**named("1")), maker.image("arm64", **named("2"))
    maker.index(first, second)
    assert image(maker, f"oci:{maker.folder}:2").digest == second["digest"]
    for text in (f"oci:{maker.folder}", f"oci:{maker.folder}:3"):
        with pytest.raises(ImageNotFoundError, match="it holds: 1, 2"):
            image(maker, text)


@pytest.mark.parametrize("nested", [False, True])
def test_an_index_leads_to_the_platform(maker: Maker, nested: bool) -> None:
    arm, amd = maker.image("arm64"), maker.image()
    entries = [
        {**arm, **platform("arm64")},
        {**maker.image("other"), **platform("amd64", "windows")},
        {**amd, **platform("amd64")},
    ]
    index = maker.put({"manifests": entries})
    maker.index(maker.put({"manifests": [index]}) if nested else index)
    assert image(maker).digest == amd["digest"]
    assert image(maker, architecture="arm64").digest == arm["digest"]
    if not nested:
        with pytest.raises(ImageNotFoundError, match="no image for linux/riscv64"):
            image(maker, architecture="riscv64")


def spoil(path: str, content: str | None) -> Callable[[Maker], None]:
    def change(maker: Maker) -> None:
        file = maker.folder / path
        file.unlink()
        if content is not None:
            file.write_text(content)

    return change


def spoil_blob(maker: Maker) -> None:
    entry = json.loads((maker.folder / "index.json").read_text())["manifests"][0]
    (maker.folder / "blobs" / entry["digest"].replace(":", "/")).write_text("{}")


def put(content: Any) -> Callable[[Maker], None]:
    return lambda maker: maker.index(maker.put(content))


OUTSIDE = {"mediaType": MANIFEST, "digest": "sha256:../../../../etc/hostname", "size": 1}
BROKEN: dict[str, tuple[Callable[[Maker], None], str]] = {
    "no index": (spoil("index.json", None), "has no index.json"),
    "index no JSON": (spoil("index.json", "{"), "no JSON as index.json"),
    "index deep": (spoil("index.json", "[" * 100_000), "no JSON as index.json"),
    "index a list": (spoil("index.json", "[]"), "no document as index.json"),
    "entries no objects": (spoil("index.json", '{"manifests": [3]}'), "kind that we can't read"),
    "entry without digest": (spoil("index.json", '{"manifests": [{}]}'), "kind that we can't read"),
    "entry outside": (lambda maker: maker.index(OUTSIDE), "kind that we can't read"),
    "config outside": (put({"config": OUTSIDE, "layers": []}), "kind that we can't read"),
    "changed blob": (spoil_blob, "something else as sha256"),
    "no manifest": (put({"schemaVersion": 1}), "kind that we can't read"),
    "manifest no JSON": (put(b"x"), "no JSON as sha256"),
    "a huge document": (put(b" " * (5 << 20)), "more than"),
    "platforms no list": (put({"manifests": 3}), "kind that we can't read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_layout(maker: Maker, name: str) -> None:
    change, message = BROKEN[name]
    maker.index(maker.image())
    change(maker)
    with pytest.raises(BuildError, match=message) as caught:
        image(maker)
    assert caught.value.hint


def test_a_layer_that_was_changed(maker: Maker) -> None:
    maker.index(maker.image())
    with open_base(Reference.parse_base(f"oci:{maker.folder}"), RegistryAccess(), "amd64") as base:
        (maker.folder / "blobs" / base.image.layers[0].digest.replace(":", "/")).write_bytes(b"another")
        with (
            pytest.raises(BuildError, match="has a layer that isn't"),
            base.layers.layer(base.image.layers[0]) as layer,
        ):
            layer.read(10)


@pytest.mark.parametrize(
    "text", ["oci:/no/such/folder", "oci-archive:/no/such/file", "oci-archive:{}/layout/oci-layout"]
)
def test_nothing_there(maker: Maker, text: str) -> None:
    with pytest.raises(ImageNotFoundError, match="can't be opened") as caught:
        image(maker, text.format(maker.folder.parent))
    assert isinstance(caught.value, PackagerError)
