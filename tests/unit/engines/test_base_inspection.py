"""Facts of layers that are only streamed; hostile ones too."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from packager.engines.base_inspection import RootSkeleton, inspect_image
from packager.engines.rootfs import find_glibc, find_python
from packager.errors import BuildError
from packager.image.plan import BaseFolder
from packager.models.image import Descriptor, RemoteImage
from packager.models.reference import Reference
from packager.registry.blobs import LayerStream
from packager.settings import Settings
from tests.unit.engines.test_rootfs import GLIBC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

Entry = tuple[str, "bytes | str | None"]  # a file's bytes, a link's target, or None for a folder

DEBIAN: list[Entry] = [
    ("lib", "usr/lib"),
    ("usr/lib/x86_64-linux-gnu", None),
    ("usr/lib/x86_64-linux-gnu/libc.so.6", GLIBC),
    ("usr/bin/python3", "python3.11"),
    ("usr/bin/python3.11", b"elf"),
    ("usr/share/doc/readme", b"text" * 1000),
]


def layer(entries: list[Entry], *, packing: str = "gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{packing}") as archive:  # type: ignore[call-overload]
        for name, content in entries:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def stream(data: bytes) -> LayerStream:
    return LayerStream(iter([data[at : at + 100] for at in range(0, len(data), 100)]))


def skeleton_of(folder: Path, *layers: list[Entry]) -> RootSkeleton:
    folder.mkdir(exist_ok=True)
    skeleton = RootSkeleton(folder)
    for entries in layers:
        skeleton.add(stream(layer(entries)))
    return skeleton


@pytest.mark.parametrize(
    ("layers", "glibc", "python"),
    [
        ([DEBIAN], "2.36", "3.11"),
        ([[]], None, None),
        ([DEBIAN, [("usr/lib/x86_64-linux-gnu/libc.so.6", GLIBC.replace(b"2.36", b"2.41"))]], "2.41", "3.11"),
        ([DEBIAN, [("usr/local/bin/python3", "python3.13"), ("usr/local/bin/python3.13", b"")]], "2.36", "3.13"),
        ([DEBIAN, [("usr/bin/.wh.python3", b"")]], "2.36", None),
        ([DEBIAN, [("usr/bin/.wh..wh..opq", b""), ("usr/bin/python3", "python3.9"), ("usr/bin/python3.9", b"")]],
         "2.36", "3.9"),
        ([DEBIAN, [(".wh.usr", b"")]], None, None),
        ([DEBIAN, [("lib/x86_64-linux-gnu/libc.so.6", b"musl")]], None, "3.11"),
        ([DEBIAN, [("usr/bin/python3", b"elf"), ("usr/lib/python3.12/os.py", b"")]], "2.36", "3.12"),
        ([DEBIAN, [("lib", None)]], "2.36", "3.11"),
        ([[("lib64/libc-2.17.so", GLIBC.replace(b"2.36", b"2.17")), ("lib64/libc.so.6", "libc-2.17.so")]],
         "2.17", None),
        ([[("./lib64/libc.so.6", GLIBC), ("./usr/bin/python3.8", b""), ("./usr/bin/python3", "/etc/alternatives/p"),
           ("./etc/alternatives/p", "/usr/bin/python3.8")]], "2.36", "3.8"),
    ],
)  # fmt: skip
def test_facts(tmp_path: Path, layers: list[list[Entry]], glibc: str | None, python: str | None) -> None:
    root = skeleton_of(tmp_path / "root", *layers).root
    assert (find_glibc(root), find_python(root)) == (glibc, python)


@pytest.mark.parametrize("packing", ["", "gz", "bz2", "xz"])
def test_packings(tmp_path: Path, packing: str) -> None:
    skeleton = RootSkeleton(tmp_path)
    skeleton.add(stream(layer(DEBIAN, packing=packing)))
    assert find_glibc(tmp_path) == "2.36"


def test_only_what_is_looked_at_is_kept(tmp_path: Path) -> None:
    root = skeleton_of(tmp_path / "root", DEBIAN).root
    kept = {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}
    assert kept == {"lib", "usr/bin/python3", "usr/bin/python3.11", "usr/lib/x86_64-linux-gnu/libc.so.6"}


@pytest.mark.parametrize(
    "entries",
    [
        [("../outside/python3", b"x")],
        [("/../outside/python3", b"x")],
        [("up", "../outside"), ("up/python3", b"x")],
        [("up", "/"), ("up/outside/libc.so.6", GLIBC)],
        [("up", "{outside}"), ("up/libc.so.6", GLIBC), ("up/.wh.keep", b"")],
        [("up", "{outside}"), ("up/.wh..wh..opq", b"")],
        [("python3", "{outside}/keep"), ("python3", b"x")],
        [("usr/.wh...", b""), (".wh..", b"")],
        [("a/" * 300 + "python3", b"x")],
        [("loop", "loop"), ("loop/python3", b"x")],
        [("nowhere", "not/there"), ("nowhere/python3", b"x")],
    ],
)
def test_nothing_is_written_outside(tmp_path: Path, entries: list[Entry]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("kept")
    placed: list[Entry] = [
        (name, content.format(outside=outside) if isinstance(content, str) else content) for name, content in entries
    ]
    skeleton_of(tmp_path / "root", placed)
    assert [path.name for path in outside.iterdir()] == ["keep"]
    assert (outside / "keep").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "root"]


class FakeRepository:
    """A repository of layers in memory."""

    def __init__(
        self, layers: list[bytes], *, env: list[str], media_type: str = "tar+gzip", arch: str = "amd64"
    ) -> None:
        self.layers = layers
        self.fetched: list[int] = []
        blobs = tuple(Descriptor(size=1, digest=str(at), media_type=media_type) for at, _ in enumerate(layers))
        config = {"architecture": arch, "config": {"Env": env, "User": "app"}}
        self.found = RemoteImage(digest="sha256:" + "a" * 64, config=config, layers=blobs)

    def image(self, architecture: str) -> RemoteImage:
        assert architecture == "amd64"
        return self.found

    def layer(self, blob: Descriptor) -> AbstractContextManager[LayerStream]:
        from contextlib import contextmanager  # noqa: PLC0415

        @contextmanager
        def give() -> Iterator[LayerStream]:
            self.fetched.append(int(blob.digest))
            yield stream(self.layers[int(blob.digest)])

        return give()


def inspect(repository: FakeRepository, folder: Path) -> tuple[str | None, str | None]:
    settings = Settings(work_dir=folder, cache_dir=folder / "cache")
    image = repository.image("amd64")
    base = inspect_image(Reference.parse("r.io/base:1"), image, repository, settings)
    assert base.digest == "sha256:" + "a" * 64
    assert base.user == "app"
    assert not list(folder.glob("packager-base-*"))
    return base.glibc, base.python


def test_what_was_found_is_kept_by_digest(tmp_path: Path) -> None:
    repository = FakeRepository([layer(DEBIAN), layer([])], env=["PATH=/usr/bin"])
    assert inspect(repository, tmp_path) == ("2.36", "3.11")
    assert inspect(repository, tmp_path) == ("2.36", "3.11")
    assert repository.fetched == [0, 1]


def test_a_python_image_says_its_python_and_needs_one_layer(tmp_path: Path) -> None:
    repository = FakeRepository([layer(DEBIAN), layer([])], env=["PYTHON_VERSION=3.12.4"])
    assert inspect(repository, tmp_path) == ("2.36", "3.12")
    assert repository.fetched == [0]


def test_a_layer_that_cannot_be_read_gives_no_facts(tmp_path: Path) -> None:
    assert inspect(FakeRepository([b"no tar at all" * 100], env=[]), tmp_path) == (None, None)
    assert not (tmp_path / "cache").exists()


def test_a_zstd_layer_is_not_looked_into(tmp_path: Path) -> None:
    repository = FakeRepository([b""], env=["PYTHON_VERSION=3.12.4"], media_type="tar+zstd")
    assert inspect(repository, tmp_path) == (None, "3.12")


def test_a_cache_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert inspect(FakeRepository([layer(DEBIAN)], env=[]), tmp_path) == ("2.36", "3.11")


def test_damaged_facts_are_found_again(tmp_path: Path) -> None:
    repository = FakeRepository([layer(DEBIAN)], env=[])
    inspect(repository, tmp_path)
    (kept,) = (tmp_path / "cache" / "base-images").iterdir()
    assert json.loads(kept.read_text()) == {
        "glibc": "2.36",
        "python": "3.11",
        "folders": [
            {"path": "lib", "mode": 0o755, "uid": 0, "gid": 0, "target": "usr/lib"},
            {"path": "usr/bin/python3", "mode": 0o755, "uid": 0, "gid": 0, "target": "python3.11"},
            {"path": "usr/lib/x86_64-linux-gnu", "mode": 0o644, "uid": 0, "gid": 0, "target": ""},
        ],
    }
    kept.write_text("{")
    assert inspect(repository, tmp_path) == ("2.36", "3.11")
    kept.write_text("[]")
    assert inspect(repository, tmp_path) == ("2.36", "3.11")


def test_another_platform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is for arm64"):
        inspect(FakeRepository([], env=[], arch="arm64"), tmp_path)


def folder(name: str, mode: int = 0o755, uid: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.uid = tarfile.DIRTYPE, mode, uid
    return member


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def file(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


A, B = BaseFolder(path="opt", mode=0o711, uid=5), BaseFolder(path="opt/a", mode=0o2775)
FIRST = [folder("./opt", 0o711, 5), folder("opt/a", 0o2775), folder("opt/b"), link("data", "/opt/b")]
LINK = BaseFolder(path="data", target="/opt/b")


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([], [LINK, A, B]),
        ([folder("opt")], [LINK, B]),
        ([folder("opt", 0o700)], [LINK, BaseFolder(path="opt", mode=0o700), B]),
        ([file("opt/.wh.a")], [LINK, A]),
        ([file(".wh.opt")], [LINK]),
        ([file("opt/.wh..wh..opq")], [LINK, A]),
        ([file(".wh..wh..opq")], []),
        ([file("opt/.wh.")], [LINK, A, B]),
        ([folder("data")], [A, B]),
        ([file("opt/a")], [LINK, A]),
        ([folder("a/b/c/d/e/f", 0o700)], [BaseFolder(path="a/b/c/d/e/f", mode=0o700), LINK, A, B]),
        ([folder("a/b/c/d/e/f/g", 0o700), link("a/b/c/d", "x")], [LINK, A, B]),
    ],
    ids=lambda found: ",".join(each.name if isinstance(each, tarfile.TarInfo) else each.path for each in found),
)
def test_folders_that_are_special(tmp_path: Path, second: list[tarfile.TarInfo], expected: list[BaseFolder]) -> None:
    skeleton = RootSkeleton(tmp_path)
    for members in (FIRST, second):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for member in members:
                archive.addfile(member)
        skeleton.add(stream(buffer.getvalue()))
    assert list(skeleton.folders()) == expected
