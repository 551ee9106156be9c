"""Notes of large layers: which layers are looked for before they are sent."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from packager.engines.oci.destinations import RegistrySink
from packager.engines.oci.layer_uploads import LARGE, LayerFingerprints, LayerUploader, PlanBlob, fingerprint
from packager.engines.oci.workers import Workers
from packager.errors import BuildError, RegistryUnreachableError
from packager.image.layers.blob import LayerBlob
from packager.image.layers.compression import Compression
from packager.image.layers.entries import LayerEntry
from packager.image.plan import BaseImage, Content, ImageConfig, ImagePlan, Layer
from packager.models.image import Descriptor
from packager.models.reference import Reference
from packager.registry.access import RegistryAccess
from packager.registry.artifacts import ArtifactStore
from packager.registry.uploads import Uploads
from packager.sources.file_list import Kind
from packager.sources.zip_member import ZipMember
from tests.unit.memory_registry import HOST, MemoryRegistry, anonymous_access, serve

IMAGE = Reference.parse(f"{HOST}/models/wine:1")
CACHE = Reference.parse(f"{HOST}/models/wine/cache", default_tag=None)


def blob(*entries: LayerEntry, compression: Compression = Compression.NONE) -> LayerBlob:
    return LayerBlob(name="model-1", entries=entries, timestamp=0, compression=compression)


def weights(folder: Path, first: bytes = b"a", size: int = LARGE) -> LayerEntry:
    path = folder / "weights.bin"
    with path.open("wb") as file:
        file.write(first)
        file.truncate(size)
    return LayerEntry(path="opt/weights.bin", kind=Kind.FILE, mode=0o644, size=size, source=path)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    made = MemoryRegistry()
    serve(monkeypatch, made)
    return made


@pytest.fixture
def access() -> RegistryAccess:
    return anonymous_access()


def test_a_fingerprint_tells_layers_apart(tmp_path: Path) -> None:
    member = ZipMember(archive=tmp_path / "a.zip", name=b"w", offset=0, method=0, packed=9, size=9, crc=1)
    entry = LayerEntry(path="w", kind=Kind.FILE, mode=0o644, size=9, source=member)
    other = LayerEntry(
        path="w", kind=Kind.FILE, mode=0o644, size=9,
        source=ZipMember(archive=tmp_path / "b.zip", name=b"w", offset=7, method=8, packed=3, size=9, crc=1),
    )  # fmt: skip
    changed = LayerEntry(
        path="w", kind=Kind.FILE, mode=0o644, size=9,
        source=ZipMember(archive=tmp_path / "a.zip", name=b"w", offset=0, method=0, packed=9, size=9, crc=2),
    )  # fmt: skip
    assert fingerprint(blob(entry)) == fingerprint(blob(other)), "where a file lies doesn't count"
    prints = {
        fingerprint(blob(entry)),
        fingerprint(blob(changed)),
        fingerprint(blob(entry, compression=Compression.GZIP)),
        fingerprint(blob(entry, LayerEntry(path="x", kind=Kind.LINK, mode=0o777, target="w"))),
        fingerprint(blob(weights(tmp_path))),
    }
    assert len(prints) == 5
    assert fingerprint(blob(weights(tmp_path, b"b"))) not in prints


def test_a_layer_without_a_note_is_sent_at_once(
    registry: MemoryRegistry, access: RegistryAccess, tmp_path: Path
) -> None:
    hints = LayerFingerprints(repository=CACHE, access=access)
    large = blob(weights(tmp_path))
    assert not hints.of(large).may_be_there()
    hints.of(large).remember(Descriptor(media_type="x", digest="sha256:" + "1" * 64, size=1))
    assert hints.of(large).may_be_there()
    assert not hints.of(blob(weights(tmp_path, b"b"))).may_be_there()
    assert any(path == "models/wine/cache" for path, _name in registry.manifests)


@pytest.mark.usefixtures("registry")
def test_small_layers_and_runs_without_a_cache_always_look(access: RegistryAccess, tmp_path: Path) -> None:
    small = blob(weights(tmp_path, size=LARGE - 1))
    assert LayerFingerprints(repository=CACHE, access=access).of(small).may_be_there()
    nowhere = LayerFingerprints(repository=None, access=access)
    assert nowhere.of(blob(weights(tmp_path))).may_be_there()
    nowhere.of(small).remember(Descriptor(media_type="x", digest="sha256:" + "1" * 64, size=1))


def test_notes_that_can_not_be_read_make_it_look(
    registry: MemoryRegistry, access: RegistryAccess, tmp_path: Path
) -> None:
    hints, large = LayerFingerprints(repository=CACHE, access=access), blob(weights(tmp_path))
    hints.of(large).remember(Descriptor(media_type="x", digest="sha256:" + "1" * 64, size=1))
    deep = b"[" * 100_000 + b"]" * 100_000
    for key in [key for key in registry.manifests if key[0] == CACHE.path]:
        registry.manifests[key] = ("x", deep)
    assert hints.of(large).may_be_there()
    (tmp_path / "weights.bin").unlink()
    assert hints.of(large).may_be_there(), "whoever reads it says what is wrong"


def test_a_cache_that_does_not_answer_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, access: RegistryAccess, tmp_path: Path
) -> None:
    asked = []

    def read(_notes: ArtifactStore, tag: str) -> None:
        asked.append(tag)
        raise RegistryUnreachableError("gone")

    monkeypatch.setattr(ArtifactStore, "read", read)
    monkeypatch.setattr(ArtifactStore, "write", lambda *words, **_more: asked.append(words))
    hints, large = LayerFingerprints(repository=CACHE, access=access), blob(weights(tmp_path))
    assert hints.of(large).may_be_there()
    assert hints.of(large).may_be_there()
    hints.of(large).remember(Descriptor(media_type="x", digest="sha256:" + "1" * 64, size=1))
    assert len(asked) == 1


def test_a_file_that_changes_between_two_readings_is_named(tmp_path: Path) -> None:
    source = PlanBlob(blob=blob(weights(tmp_path, size=3 << 20)))
    assert list(source.stream())
    weights(tmp_path, b"b", size=3 << 20)
    with pytest.raises(BuildError, match="a file of the layer model-1 was changed while it was read"):
        list(source.stream())


def carry(access: RegistryAccess, large: LayerBlob) -> str:
    plan = ImagePlan(
        base=BaseImage(reference=IMAGE),
        steps=(Layer(name="model-1", contents=(Content(source=b"", destination=PurePosixPath("/opt/x")),)),),
        config=ImageConfig(),
    )
    uploads = Uploads(IMAGE, access)
    with Workers() as workers:
        hints = LayerFingerprints(repository=CACHE, access=access)
        carrier = LayerUploader(plan, [large], RegistrySink(uploads), workers, access, hints)
        (work,) = carrier.carries()
        return work().descriptor.digest


def test_an_unchanged_large_layer_is_sent_once(
    registry: MemoryRegistry, access: RegistryAccess, tmp_path: Path
) -> None:
    first = carry(access, blob(weights(tmp_path)))
    begun = sum(1 for method, path in registry.asked if method == "POST" and "/models/wine/blobs" in path)
    assert begun == 1
    assert carry(access, blob(weights(tmp_path))) == first
    assert sum(1 for method, path in registry.asked if method == "POST" and "/models/wine/blobs" in path) == 1
    changed = carry(access, blob(weights(tmp_path, b"b")))
    assert changed != first
    registry.blobs.pop(("models/wine", first))  # the note is there, and the layer isn't
    assert carry(access, blob(weights(tmp_path))) == first
    assert ("models/wine", first) in registry.blobs
