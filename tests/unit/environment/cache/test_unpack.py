"""The layer of a kept environment -> its files, or an error and nothing outside the folder."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import zstandard

from packager.environment.cache.unpack import TooLargeError, fetch_files
from packager.errors import RegistryError
from packager.image.plan import StoredLayer
from packager.models.image import Descriptor
from packager.models.reference import Reference
from tests.unit.memory_registry import HOST, MemoryRegistry, anonymous_access, digest_of, serve

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = PurePosixPath("/opt/env")
CACHE = Reference.parse(f"{HOST}/models/wine/cache", default_tag=None)
TAR = "application/vnd.oci.image.layer.v1.tar"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    TAR: bytes,
    f"{TAR}+gzip": gzip.compress,
    # One frame a block, as the layers are written.
    f"{TAR}+zstd": lambda data: b"".join(
        zstandard.ZstdCompressor().compress(data[at : at + 1024]) for at in range(0, len(data), 1024)
    ),
}


def tar(*members: tuple[str, bytes, str]) -> bytes:
    """Make a tar of names, types, and what is in files or where links lead."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(text)
            else:
                member.linkname = text
            archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    made = MemoryRegistry()
    serve(monkeypatch, made)
    return made


def fetch(folder: Path, layer: bytes, media_type: str = TAR) -> Path:
    descriptor = Descriptor(media_type=media_type, digest=digest_of(layer), size=len(layer))
    stored = StoredLayer(name="environment", descriptor=descriptor, diff_id=digest_of(b""), repository=CACHE)
    return fetch_files(stored, PREFIX, anonymous_access(), folder / "files")


FILES = tar(
    ("opt/env/lib", tarfile.DIRTYPE, ""),
    ("opt/env/lib/a", tarfile.REGTYPE, "a" * 5000),
    ("opt/env/lib64", tarfile.SYMTYPE, "lib"),
    ("opt/env/python", tarfile.SYMTYPE, "/usr/bin/python3"),
)


@pytest.mark.parametrize("media_type", PACKERS)
def test_files_and_links_are_unpacked(registry: MemoryRegistry, tmp_path: Path, media_type: str) -> None:
    layer = PACKERS[media_type](FILES)
    registry.put(CACHE.path, layer)
    root = fetch(tmp_path, layer, media_type)
    assert root == tmp_path / "files/opt/env"
    assert (root / "lib64/a").read_text() == "a" * 5000
    assert (root / "python").readlink() == Path("/usr/bin/python3")


@pytest.mark.parametrize(
    "layer",
    [
        tar(("../outside", tarfile.REGTYPE, "x")),
        tar(("a", tarfile.SYMTYPE, ".."), ("a/outside", tarfile.REGTYPE, "x")),
        tar(("a", tarfile.SYMTYPE, ".."), ("a/outside", tarfile.SYMTYPE, "x")),
        tar(("a", tarfile.LNKTYPE, "../precious"), ("a", tarfile.REGTYPE, "x")),
        tar(("a", tarfile.FIFOTYPE, "")),
        tar(("a", tarfile.CHRTYPE, "")),
        FILES[:2000],
        b"no tar",
    ],
)
def test_what_is_not_safe_or_damaged_is_refused(registry: MemoryRegistry, tmp_path: Path, layer: bytes) -> None:
    (tmp_path / "precious").write_text("as it was")
    registry.put(CACHE.path, layer)
    with pytest.raises(RegistryError, match="can't be unpacked"):
        fetch(tmp_path, layer)
    assert (tmp_path / "precious").read_text() == "as it was"
    assert not (tmp_path / "outside").is_symlink()
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("given", [FILES + bytes(512), FILES.replace(b"a" * 5000, b"b" * 5000)])
def test_other_bytes_than_the_digest_says(registry: MemoryRegistry, tmp_path: Path, given: bytes) -> None:
    registry.blobs[CACHE.path, digest_of(FILES)] = given
    with pytest.raises(RegistryError, match="sha256"):
        fetch(tmp_path, FILES)


def test_what_takes_half_of_the_free_disk_is_not_unpacked(
    registry: MemoryRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=9998))
    registry.put(CACHE.path, FILES)
    with pytest.raises(TooLargeError, match="more than half of the free space"):
        fetch(tmp_path, FILES)
    assert not (tmp_path / "files/opt/env/lib/a").exists()
