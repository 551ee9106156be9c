from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import pickle
import shutil
import stat
import tarfile
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

import pytest

from packager.errors import ArtifactError, DependenciesError, DiskFullError, ManifestError, PackagerError
from packager.logs.progress import SilentReporter
from packager.settings import Settings
from packager.sources.artifact import Artifact, ArtifactLimits, open_artifact
from tests.unit.archives import MANIFEST, NOON, UTF8_FLAG, Member, link, wine, write_folder, write_zip, zip_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMITS = ArtifactLimits(max_bytes=50_000_000, max_entries=50, max_ratio=100)
ZEROS = bytes(11_000_000)
SAME_AS_FIRST = Member(name="odahuflow.project.yaml", claimed_offset=0)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def opened(source: Path, workspace: Path, limits: ArtifactLimits = LIMITS) -> Artifact:
    return open_artifact(source, workspace, limits=limits, reporter=SilentReporter())


class Bad(NamedTuple):
    says: tuple[str, ...]
    members: list[Member]
    error: type[PackagerError] = ArtifactError
    limits: ArtifactLimits = LIMITS


def backslashed(*more: Member, wrapped: bool = False) -> list[Member]:
    """Make a model as .NET Framework and PowerShell 5 pack it (icsharpcode/SharpZipLib#617)."""
    members = [*wine(prefix="wine/" if wrapped else ""), *more]
    return [replace(member, name=str(member.name).replace("/", "\\"), mode=0) for member in members]


BAD_ZIPS = {
    "absolute": Bad(("'/etc/passwd'", "absolute"), wine(Member(name="/etc/passwd"))),
    "absolute, backslash": Bad((r"'\\etc", "absolute"), wine(Member(name="\\\\etc\\passwd"))),
    "drive": Bad(("'C:/x'", "absolute"), wine(Member(name="C:/x"))),
    "drive, backslash": Bad(("absolute",), wine(Member(name="C:\\x"))),
    "parent": Bad(("'model/../../x'", "'..'"), wine(Member(name="model/../../x"))),
    "parent folder": Bad(("'../x/'", "'..'"), wine(Member(name="../x/"))),
    "parent, backslash": Bad(("'..'",), wine(Member(name="a\\..\\..\\x"))),
    "nul": Bad((r"'model/a\x00.txt'", "NUL"), wine(Member(name="model/a\0.txt"))),
    "no name": Bad(("no name",), wine(Member(name="./"), Member(name=".", data=b"x"))),
    "whiteout": Bad(("'model/.wh.entry.py'", "can't be in an image"), wine(Member(name="model/.wh.entry.py"))),
    "whiteout, opaque": Bad(("'model/.wh..wh..opq'", "image"), wine(Member(name="model/.wh..wh..opq"))),
    "whiteout, folder": Bad(("'.wh.d/x'", "image"), wine(Member(name=".wh.d/x"))),
    "too deep": Bad(("'d/d/d", "deep"), wine(Member(name="d/" * 300 + "x"))),
    "long name in message": Bad(("…'",), wine(Member(name="/" + "x" * 5000))),
    "name too long for a file": Bad(("can't be unpacked", "'xxxxx"), wine(Member(name="x" * 300))),
    "control characters": Bad((r"'/a\x1b[31m\nb'",), wine(Member(name="/a\x1b[31m\nb"))),
    "link out": Bad(("'model/out'", "leaves", "'../../etc'"), wine(link("model/out", "../../etc"))),
    "link absolute": Bad(("'model/out'", "absolute", "'/etc/passwd'"), wine(link("model/out", "/etc/passwd"))),
    "link out by links": Bad(
        ("leaves",), wine(link("model/up", ".."), link("up2", "model/up/.."), Member(name="model/x"))
    ),
    "link out of the wrapper": Bad(("'wine/out'", "leaves"), wine(link("wine/out", "../x"), prefix="wine/")),
    "link round": Bad(("circle",), wine(link("a", "b"), link("b", "a"))),
    "link to itself": Bad(("circle",), wine(link("a", "a/b"))),
    "link not utf-8": Bad((r"'\xff'", "UTF-8"), wine(link("a", b"\xff"))),
    "link with nul": Bad(("NUL",), wine(link("a", b"a\0b"))),
    "link empty": Bad(("link of 0 bytes",), wine(link("a", ""))),
    "link too long": Bad(("link of 5,000 bytes",), wine(link("a", "x" * 5000))),
    "through a link": Bad(
        ("'model/sub'", "folder and something else"), wine(link("model/sub", "."), Member(name="model/sub/x"))
    ),
    "through a link, before it": Bad(
        ("'model/sub'", "folder and something else"), wine(Member(name="model/sub/x"), link("model/sub", "."))
    ),
    "file and folder": Bad(("'a'", "folder and something else"), wine(Member(name="a"), Member(name="a/b"))),
    "fifo": Bad(("'a'", "device, pipe"), wine(Member(name="a", mode=stat.S_IFIFO | 0o644))),
    "device": Bad(("'a'", "device, pipe"), wine(Member(name="a", mode=stat.S_IFCHR | 0o644))),
    "folder with content": Bad(("'a/'", "bytes of its own"), wine(Member(name="a/", data=b"x"))),
    "twice": Bad(("'model/conda.yaml'", "twice"), wine(Member(name="model/conda.yaml", data=b"x"))),
    "twice, other spelling": Bad(("'model/conda.yaml'", "twice"), wine(Member(name="./model//conda.yaml"))),
    "case": Bad(("'Model'", "'model'", "only in case"), wine(Member(name="Model/x"))),
    "unicode form": Bad(("Unicode form",), wine(Member(name="caf\u00e9"), Member(name="cafe\u0301"))),
    "case beyond ascii": Bad(("only in case",), wine(Member(name="É"), Member(name="é"))),
    "not utf-8 though it says": Bad((r"'\xff'", "UTF-8"), wine(Member(name=b"\xff", flags=UTF8_FLAG))),
    "encrypted": Bad(("'secret'", "encrypted"), wine(Member(name="secret", data=b"x" * 20, flags=1))),
    "bzip2": Bad(("'a'", "method 12 (bzip2)"), wine(Member(name="a", claimed_method=12))),
    "unknown method": Bad(("method 77",), wine(Member(name="a", claimed_method=77))),
    "future version": Bad(("damaged",), wine(Member(name="a", claimed_version=250))),
    "crc, stored": Bad(("'a'", "damaged", "CRC"), wine(Member(name="a", data=b"abc", claimed_crc=1))),
    "crc, deflated": Bad(("'a'", "CRC"), wine(Member(name="a", data=b"abc", deflate=True, claimed_crc=1))),
    "crc, link": Bad(("'a'", "CRC"), wine(replace(link("a", "model"), claimed_crc=1))),
    "no deflate stream": Bad(("'a'", "damaged"), wine(Member(name="a", data=b"\xff" * 9, claimed_method=8))),
    "claims less": Bad(
        ("'a'", "more than the 5 bytes"), wine(Member(name="a", data=ZEROS, deflate=True, claimed_size=5))
    ),
    "claims less, with its crc": Bad(
        ("'a'", "more than the 0 bytes"), wine(Member(name="a", data=b"xy", claimed_size=0, claimed_crc=0))
    ),
    "claims more": Bad(("'a'", "less than the 5 bytes"), wine(Member(name="a", data=b"abc", claimed_size=5))),
    "ratio": Bad(("11,000,", "100 times", "bomb"), wine(Member(name="a", data=ZEROS, deflate=True))),
    "size": Bad(
        ("unpacked", "more than the 1,000,000"),
        wine(Member(name="a", data=ZEROS, deflate=True)),
        limits=replace(LIMITS, max_bytes=1_000_000),
    ),
    "size by its claim": Bad(("1,152,921,504",), wine(Member(name="a", zip64=True, claimed_size=1 << 60))),
    "entries": Bad(("more than 50 files",), wine(*(Member(name=str(number)) for number in range(60)))),
    "implied folders": Bad(("more than 50 files",), wine(Member(name="d/" * 60 + "x"))),
    "overlap": Bad(("overlaps",), wine(Member(name="a", data=b"x" * 100), Member(name="b", claimed_offset=210))),
    "one content for two": Bad(("overlaps",), [*wine(), SAME_AS_FIRST]),
    "packed beyond the end": Bad(("overlaps",), wine(Member(name="a", data=b"x", claimed_packed=10_000))),
    "offset beyond the end": Bad(("overlaps",), wine(Member(name="a", claimed_offset=1 << 30))),
    "no manifest": Bad(
        ("no manifest odahuflow.project.yaml or odahuflow.model.yaml",), [Member(name="a")], ManifestError
    ),
    "empty": Bad(("no manifest",), [], ManifestError),
    "manifest too deep": Bad(("there is one at 'a/b/odahu",), wine(prefix="a/b/"), ManifestError),
    "zip in a zip": Bad(
        ("but a zip in it: 'out/wine.ZIP'",), [Member(name="out/wine.ZIP"), Member(name="out/readme")], ManifestError
    ),
    "backslash, out": Bad(("'../x'", "'..'"), backslashed(Member(name="..\\x"))),
    "backslash, absolute": Bad(("'/x'", "absolute"), backslashed(Member(name="\\x"))),
    "backslash, drive": Bad(("'C:/x'", "absolute"), backslashed(Member(name="C:\\x"))),
    "backslash, whiteout": Bad(("can't be in an image",), backslashed(Member(name="model\\.wh.entry.py"))),
    "backslash, twice": Bad(("'model/entry.py'", "twice"), backslashed(Member(name="model\\entry.py"))),
    "backslashes and slashes": Bad(
        ("there is one at 'wine\\odahuflow.project.yaml'",),
        [*backslashed(wrapped=True), Member(name="docs/x")],
        ManifestError,
    ),
    "two wrappers": Bad(("no manifest",), wine(Member(name="other/x"), prefix="wine/"), ManifestError),
    "manifest is a folder": Bad(("no manifest",), [Member(name="odahuflow.project.yaml/x")], ManifestError),
    "manifest links to nothing": Bad(
        ("link to nothing",), [*wine()[1:], link("odahuflow.project.yaml", "none")], ManifestError
    ),
}


@pytest.mark.parametrize("case", BAD_ZIPS.values(), ids=BAD_ZIPS)
def test_bad_zip_is_refused_and_leaves_nothing(case: Bad, tmp_path: Path, workspace: Path) -> None:
    source = write_zip(tmp_path / "model.zip", case.members)

    with pytest.raises(PackagerError) as caught:
        opened(source, workspace, case.limits)

    assert type(caught.value) is case.error
    for part in case.says:
        assert part in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"#!/bin/sh\n" * 100, "is not a zip archive"),
        (zip_bytes(wine())[:-30], "truncated"),
        (zip_bytes(wine())[:200], "truncated"),
        (zip_bytes(wine())[100:], "damaged"),
        (zip_bytes(wine())[:-10] + b"\xff" * 10, "damaged"),
        (zip_bytes(wine()).replace(b"PK\1\2", b"PK\1\3"), "damaged"),
        (zip_bytes(wine()).replace(b"PK\3\4", b"PK\3\5"), "damaged"),
        (zip_bytes(wine()).replace(b"entry.py", b"enter.py", 1), "damaged"),
        (zip_bytes(wine())[:60] + zip_bytes(wine())[90:], "damaged"),
    ],
    ids=[
        "script",
        "cut at the end",
        "cut early",
        "cut at the start",
        "end",
        "directory",
        "header",
        "name",
        "middle gone",
    ],
)
def test_what_is_no_whole_zip_is_refused(data: bytes, says: str, tmp_path: Path, workspace: Path) -> None:
    source = tmp_path / "model.zip"
    source.write_bytes(data)

    with pytest.raises(ArtifactError, match=says) as caught:
        opened(source, workspace)

    assert str(source) in caught.value.message or "entry" in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 10
    assert list(workspace.iterdir()) == []


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in (("odahuflow.project.yaml", MANIFEST.encode()), ("wheel.zip", zip_bytes(wine()))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


OTHER_FILES = {
    "empty": (b"", "an empty file", "download the model again"),
    "tar.gz": (gzip.compress(tar()), "a gzip file, such as a .tar.gz", "unpack it and use the folder"),
    "tar.bz2": (bz2.compress(tar()), "a bzip2 file", "unpack it and use the folder"),
    "tar.xz": (lzma.compress(tar()), "an xz file", "unpack it and use the folder"),
    "tar with a zip in it": (tar(), "a tar archive", "unpack it and use the folder"),
    "zst": (b"\x28\xb5\x2f\xfd\x04\x00", "a zstd file", "unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive", "pack its files as a zip"),
    "rar": (b"Rar!\x1a\x07\x01\x00", "a RAR archive", "pack its files as a zip"),
    "split": (b"PK\7\x08" + zip_bytes(wine()), "one part of a split zip", "join the parts"),
    "pickle": (pickle.dumps({"weights": [1.0]}), "a pickled Python object", "with odahuflow.project.yaml and"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x032.1:", "an ONNX model", "the zip or the folder from the training"),
    "keras": (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file", "the zip or the folder from the training"),
    "login page": (b"\n<!DOCTYPE html>\n<html><title>Sign in</title>", "an HTML page", "may be a login or error page"),
    "page": (b"<HTML><body>", "an HTML page", "download the model again"),
    "s3 error": (b"\xef\xbb\xbf<?xml version='1.0'?><Error>", "an XML document", "error page of the server"),
    "json error": (b'{"message": "401 Unauthorized"}', "a JSON document", "error page of the server"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "the pointer that Git LFS", "git lfs pull"),
}


@pytest.mark.parametrize(("data", "says", "hint"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_another_kind_of_file_is_named(data: bytes, says: str, hint: str, tmp_path: Path, workspace: Path) -> None:
    source = tmp_path / "model.zip"
    source.write_bytes(data)

    with pytest.raises(ArtifactError) as caught:
        opened(source, workspace)

    assert caught.value.message.startswith(f"{source} is {says}")
    assert caught.value.message.endswith(", not a zip archive")
    assert hint in caught.value.hint
    assert caught.value.exit_code == 10


def test_a_manifest_in_the_model_s_place_is_named(tmp_path: Path, workspace: Path) -> None:
    folder = write_folder(tmp_path / "model", wine())

    with pytest.raises(ArtifactError, match="is a model's manifest alone") as caught:
        opened(folder / "odahuflow.project.yaml", workspace)

    assert "give the folder that it lies in" in caught.value.hint


def test_every_cut_and_many_flips_of_a_zip_give_our_errors_only(tmp_path: Path) -> None:
    whole = zip_bytes(wine(link("model/again", "entry.py")))
    source = tmp_path / "model.zip"
    broken = [whole[:length] for length in range(0, len(whole), 7)]
    broken += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(0, len(whole), 3)]
    refused = 0
    for number, data in enumerate(broken):
        source.write_bytes(data)
        try:
            opened(source, tmp_path / str(number))
        except PackagerError:
            refused += 1
            assert not (tmp_path / str(number) / "artifact").exists()
    assert refused > len(broken) // 2


def test_directory_is_counted_before_it_is_read(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the whole directory was read")

    source = write_zip(tmp_path / "model.zip", wine(*(Member(name=str(number)) for number in range(60))))
    monkeypatch.setattr(zipfile.ZipFile, "__init__", fail)

    with pytest.raises(ArtifactError, match="more than 50 files"):
        opened(source, workspace)


def test_zip_is_unpacked(tmp_path: Path, workspace: Path) -> None:
    more = [
        Member(name="model/run.sh", data=b"#!/bin/sh\n", mode=stat.S_IFREG | stat.S_ISUID | 0o777),
        Member(name="model/loose", mode=stat.S_IFREG | 0o666),
        Member(name="model/secret", mode=stat.S_IFREG),
        Member(name="model/dos", mode=0),
        Member(name="model/empty/", mode=stat.S_IFDIR | 0o777),
        Member(name="model/bare", mode=stat.S_IFDIR | 0o700),
        Member(name="model/we\\ird w:0 \n name"),
        Member(name="модель/日本.txt".encode(), data="да".encode()),
        link("model/again.py", "entry.py"),
        link("model/bare2", "../model/bare"),
        link("model/by-link", "bare2/../entry.py"),
        link("nothing", "model/none"),
    ]
    before = os.umask(0o077)
    try:
        artifact = opened(write_zip(tmp_path / "model.zip", wine(*more)), workspace)
    finally:
        os.umask(before)

    assert artifact.root == workspace / "artifact"
    assert artifact.owned
    assert artifact.manifest.model.version == "1.10"
    found = {str(path.relative_to(artifact.root)): path for path in artifact.root.rglob("*")}
    assert len(found) == 3 + len(more) + 2
    modes = {name: stat.S_IMODE(path.lstat().st_mode) for name, path in found.items() if not path.is_symlink()}
    assert {name for name, mode in modes.items() if mode == 0o755} == {
        "model", "model/run.sh", "model/empty", "model/bare", "модель",
    }  # fmt: skip
    assert set(modes.values()) == {0o644, 0o755}
    assert found["модель/日本.txt"].read_text() == "да"
    assert found["model/again.py"].readlink().as_posix() == "entry.py"
    assert found["model/by-link"].read_bytes() == found["model/entry.py"].read_bytes()
    assert found["nothing"].is_symlink()


def test_python_s_own_zip_is_unpacked(tmp_path: Path, workspace: Path) -> None:
    folder = write_folder(tmp_path / "wine", wine(Member(name="model/weights.bin", data=os.urandom(3_000_000))))
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "wine")

    artifact = opened(tmp_path / archive, workspace)

    assert artifact.root == workspace / "artifact" / "wine"
    for path in folder.rglob("*"):
        copy = artifact.root / path.relative_to(folder)
        assert copy.is_dir() if path.is_dir() else copy.read_bytes() == path.read_bytes()


def test_zip_written_to_a_pipe_is_unpacked(tmp_path: Path, workspace: Path) -> None:
    source = tmp_path / "model.zip"
    with source.open("wb") as file:
        file.seekable = lambda: False  # type: ignore[method-assign]
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for member in wine():
                archive.writestr(str(member.name), member.data)

    assert opened(source, workspace).manifest.model.name == "wine"


def test_zip_with_something_before_and_a_comment_is_unpacked(tmp_path: Path, workspace: Path) -> None:
    source = tmp_path / "model.zip"
    source.write_bytes(b"#!/bin/sh\nexit\n" + zip_bytes(wine())[:-2] + b"\5\0hello")

    assert opened(source, workspace).manifest.model.name == "wine"


def test_zip64_is_unpacked(tmp_path: Path, workspace: Path) -> None:
    members = [replace(member, zip64=True) for member in wine(Member(name="a", data=b"abc"))]

    artifact = opened(write_zip(tmp_path / "model.zip", members), workspace)

    assert (artifact.root / "a").read_bytes() == b"abc"


@pytest.mark.parametrize("wrapped", [True, False])
def test_zip_with_backslashes_is_unpacked(tmp_path: Path, workspace: Path, *, wrapped: bool) -> None:
    members = backslashed(Member(name="wine\\none\\" if wrapped else "none\\"), wrapped=wrapped)

    artifact = opened(write_zip(tmp_path / "model.zip", members), workspace)

    assert artifact.root == workspace / "artifact" / ("wine" if wrapped else "")
    assert (artifact.root / "model/entry.py").is_file()
    assert (artifact.root / "none").is_dir()


def test_folder_entries_may_come_twice(tmp_path: Path, workspace: Path) -> None:
    members = [
        Member(name="./"),
        Member(name="model/"),
        Member(name="model/", mode=0),
        *wine(),
        Member(name="./model/"),
    ]

    artifact = opened(write_zip(tmp_path / "model.zip", members), workspace)

    assert sorted(artifact.sizes) == ["model/conda.yaml", "model/entry.py", "odahuflow.project.yaml"]


def test_names_without_the_utf_8_flag(tmp_path: Path, workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    """UTF-8 as Info-ZIP and Go write it, CP437 as Explorer does."""
    members = wine(Member(name="größe.txt".encode()), Member(name="grün.txt".encode("cp437")))

    artifact = opened(write_zip(tmp_path / "model.zip", members), workspace)

    assert sorted(path.name for path in artifact.root.glob("gr*")) == ["größe.txt", "grün.txt"]
    (record,) = caplog.records
    assert "1 names in the archive aren't UTF-8 and are read as CP437, such as 'grün.txt'" in record.getMessage()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_manifest_with_a_byte_order_mark(encoding: str, tmp_path: Path, workspace: Path) -> None:
    manifest = Member(name="odahuflow.project.yaml", data=MANIFEST.encode(encoding))

    artifact = opened(write_zip(tmp_path / "model.zip", [manifest, *wine()[1:]]), workspace)

    assert artifact.manifest.model.name == "wine"


def test_what_macos_packs_beside_the_wrapping_folder_is_left_out(tmp_path: Path, workspace: Path) -> None:
    beside = [
        Member(name="__MACOSX/wine/._x"),
        link("__MACOSX/out", "../x"),
        Member(name=".DS_Store"),
        Member(name="._wine"),
    ]

    artifact = opened(write_zip(tmp_path / "model.zip", wine(*beside, prefix="wine/")), workspace)

    assert artifact.root.name == "wine"
    assert [path.name for path in (workspace / "artifact").iterdir()] == ["wine"]


def test_the_time_is_the_newest_entry_s_wherever_we_are(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    members = wine(
        Member(name="new", time=(2025, 1, 2, 3, 4, 6)),
        Member(name="none", time=(1980, 0, 0, 0, 0, 0)),
        Member(name="wrong", time=(2026, 13, 1, 0, 0, 0)),
    )

    assert opened(write_zip(tmp_path / "a.zip", members), workspace).created == datetime(
        2025, 1, 2, 3, 4, 6, tzinfo=timezone.utc
    )
    assert opened(write_zip(tmp_path / "b.zip", wine()), workspace / "b").created == datetime(
        *NOON, tzinfo=timezone.utc
    )


@pytest.mark.parametrize("name", [".wh", "a.wh.b", "x/.when"])
def test_a_name_like_a_whiteout_s_is_kept(name: str, tmp_path: Path, workspace: Path) -> None:
    artifact = opened(write_zip(tmp_path / "model.zip", wine(Member(name=name))), workspace)
    assert (artifact.root / name).is_file()


@pytest.mark.parametrize("differs", [True, False])
def test_two_manifests(tmp_path: Path, workspace: Path, caplog: pytest.LogCaptureFixture, *, differs: bool) -> None:
    other = MANIFEST.replace("wine", "beer") if differs else MANIFEST
    members = wine(Member(name="odahuflow.model.yaml", data=other.encode()))

    artifact = opened(write_zip(tmp_path / "model.zip", members), workspace)

    assert artifact.manifest.model.name == "wine"
    said = ["two manifests that differ: odahuflow.project.yaml counts, odahuflow.model.yaml is ignored"]
    assert [record.getMessage().partition("has ")[2] for record in caplog.records] == said * differs


def test_a_folder_is_opened_as_it_is(tmp_path: Path, workspace: Path) -> None:
    folder = write_folder(tmp_path / "model", wine(link("model/x.py", "entry.py"), link("nothing", "none")))
    for path in folder.rglob("*"):
        os.utime(path, (1000, 1000), follow_symlinks=False)
    os.utime(folder / "model/entry.py", (1_700_000_000, 1_700_000_000.9))

    artifact = opened(folder, workspace)

    assert artifact.root == folder.resolve()
    assert not artifact.owned
    assert artifact.created == datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc)
    assert list(workspace.iterdir()) == []


def test_a_folder_from_before_1970_is_from_1970(tmp_path: Path, workspace: Path) -> None:
    folder = write_folder(tmp_path / "model", wine())
    for path in folder.rglob("*"):
        os.utime(path, (-1000, -1000))

    assert opened(folder, workspace).created == datetime(1970, 1, 1, tzinfo=timezone.utc)


def test_a_wrapped_folder_reached_by_a_link_is_opened(tmp_path: Path, workspace: Path) -> None:
    folder = write_folder(tmp_path / "data", wine(prefix="wine/"))
    (folder / ".DS_Store").touch()
    (tmp_path / "latest").symlink_to("data")

    assert opened(tmp_path / "latest", workspace).root == folder.resolve() / "wine"


def make_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def make_same_but_case(folder: Path) -> None:
    (folder / "MODEL").mkdir()


def make_same_but_form(folder: Path) -> None:
    (folder / "caf\u00e9").touch()
    (folder / "cafe\u0301").touch()


def pack_into_a_zip(folder: Path) -> None:
    shutil.rmtree(folder)
    write_zip(folder.with_suffix(".zip"), wine())
    folder.mkdir()
    folder.with_suffix(".zip").rename(folder / "wine.zip")


def make_whiteout(folder: Path) -> None:
    (folder / ".wh.conda.yaml").touch()


def make_bad_name(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9")).touch()


def make_bad_target(folder: Path) -> None:
    (folder / "link").symlink_to(os.fsdecode(b"caf\xe9"))


def make_link_out(folder: Path) -> None:
    (folder / "model/out").symlink_to("../../secret")


def make_absolute_link(folder: Path) -> None:
    (folder / "model/out").symlink_to(folder / "model")


def make_many(folder: Path) -> None:
    for number in range(60):
        (folder / str(number)).mkdir()


def make_large(folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        file.truncate(60_000_000)


def remove_manifest(folder: Path) -> None:
    (folder / "odahuflow.project.yaml").unlink()


@pytest.mark.parametrize(
    ("spoil", "says", "code"),
    [
        (make_pipe, "'pipe' is a device, pipe", 10),
        (make_whiteout, "'.wh.conda.yaml' can't be in an image", 10),
        (make_bad_name, r"'caf\xe9' has a name that is not UTF-8", 10),
        (make_bad_target, r"'link' is a link to 'caf\xe9', which is not UTF-8", 10),
        (make_link_out, "'model/out' is a link that leaves the model, to '../../secret'", 10),
        (make_absolute_link, "'model/out' is a link to the absolute path", 10),
        (make_many, "more than 50 files", 10),
        (make_large, "more than the 50,000,000 allowed", 10),
        (remove_manifest, "no manifest", 11),
        (make_same_but_case, "'model' differs from 'MODEL' only in case or Unicode form", 10),
        (make_same_but_form, "only in case or Unicode form", 10),
        (pack_into_a_zip, "but a zip in it: 'wine.zip'", 11),
    ],
)
def test_bad_folder_is_refused(
    spoil: Callable[[Path], None], says: str, code: int, tmp_path: Path, workspace: Path
) -> None:
    folder = write_folder(tmp_path / "model", wine())
    spoil(folder)

    with pytest.raises(PackagerError) as caught:
        opened(folder, workspace)

    assert says in caught.value.message
    assert caught.value.exit_code == code
    assert caught.value.hint


def test_source_that_can_t_be_opened(tmp_path: Path, workspace: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for source, says in {
        tmp_path / "none.zip": "none.zip can't be opened: No such file",
        tmp_path / "a\0b": "can't be opened",
        pipe: "neither a file nor a folder",
    }.items():
        with pytest.raises(ArtifactError) as caught:
            opened(source, workspace)
        assert says in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("error", [ManifestError, DependenciesError])
def test_backslashes_are_named_where_a_file_is_missing(
    packed: bool, error: type[PackagerError], tmp_path: Path, workspace: Path
) -> None:
    """A folder that another tool unpacked has them in its files' names; so has a zip of such a folder."""
    manifest, _, entry = wine()
    _, conda, other = backslashed()
    members = [manifest, conda, *((entry,) if error is DependenciesError else (other, Member(name="docs/x")))]
    source = write_zip(tmp_path / "m.zip", members) if packed else write_folder(tmp_path / "m", members)

    with pytest.raises(error) as caught:
        opened(source, workspace)

    assert "'model" in caught.value.message
    assert r"names such as 'model\conda.yaml' have a '\'" in caught.value.hint


@pytest.mark.parametrize("packed", [True, False])
def test_unreadable_source(packed: bool, tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: object, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    source = write_zip(tmp_path / "m.zip", wine()) if packed else write_folder(tmp_path / "m", wine())
    monkeypatch.setattr(*((type(source), "open", deny) if packed else (os, "scandir", deny)))

    with pytest.raises(ArtifactError, match="can't be read: Permission denied") as caught:
        opened(source, workspace)

    assert str(source) in caught.value.message


def test_unreadable_file_in_a_folder(tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "model", wine())
    monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).endswith("entry.py"))

    with pytest.raises(ArtifactError, match=r"'model/entry.py' can't be read"):
        opened(folder, workspace)


class FailingReporter(SilentReporter):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "B") -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        def fail(_amount: int) -> None:
            raise self.error

        yield fail


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskFullError),
        (OSError(errno.EDQUOT, "Quota exceeded"), DiskFullError),
        (OSError(errno.EIO, "Input/output error"), ArtifactError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_failure_in_the_middle_leaves_nothing(
    raised: BaseException, expected: type[BaseException], tmp_path: Path, workspace: Path
) -> None:
    source = write_zip(tmp_path / "model.zip", wine())

    with pytest.raises(expected) as caught:
        open_artifact(source, workspace, limits=LIMITS, reporter=FailingReporter(raised))

    if isinstance(caught.value, PackagerError):
        assert str(workspace) in caught.value.message
    assert list(workspace.iterdir()) == []


def test_disk_that_has_too_little_space_is_not_even_started_on(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    source = write_zip(tmp_path / "model.zip", wine(Member(name="a", data=b"x" * 5000)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(4000))

    with pytest.raises(DiskFullError, match="4,000 are free") as caught:
        opened(source, workspace)

    assert str(workspace) in caught.value.message
    assert caught.value.exit_code == 50
    assert list(workspace.iterdir()) == []


class Counter(SilentReporter):
    total: int | None = None
    done = 0

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "B") -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        self.total = total
        yield self.count

    def count(self, amount: int) -> None:
        self.done += amount


def test_progress_counts_every_byte(tmp_path: Path, workspace: Path) -> None:
    reporter = Counter()
    members = wine(Member(name="a", data=os.urandom(2_500_000), deflate=True), link("b", "a"))
    source = write_zip(tmp_path / "model.zip", members)

    open_artifact(source, workspace, limits=LIMITS, reporter=reporter)

    assert reporter.total == reporter.done > 2_500_000


def test_an_entry_that_is_larger_than_it_claims_is_not_written(tmp_path: Path, workspace: Path) -> None:
    reporter = Counter()
    members = [Member(name="bomb", data=ZEROS, deflate=True, claimed_size=1_500_000), *wine()]

    with pytest.raises(ArtifactError, match="more than the 1,500,000 bytes"):
        open_artifact(write_zip(tmp_path / "m.zip", members), workspace, limits=LIMITS, reporter=reporter)

    assert reporter.done == 1 << 20


def test_a_workspace_in_use_is_left_alone(tmp_path: Path, workspace: Path) -> None:
    (workspace / "artifact").mkdir()
    (workspace / "artifact" / "mine").touch()

    with pytest.raises(ArtifactError, match="exists already"):
        opened(write_zip(tmp_path / "model.zip", wine()), workspace)

    assert (workspace / "artifact" / "mine").exists()


def test_limits_come_from_the_settings() -> None:
    settings = Settings.from_env({"PACKAGER_ARTIFACT_MAX_BYTES": "7", "PACKAGER_ARTIFACT_MAX_RATIO": "9"})

    assert ArtifactLimits.from_settings(settings) == ArtifactLimits(max_bytes=7, max_entries=200_000, max_ratio=9)


WRONG_FILES: dict[str, tuple[list[Member], type[PackagerError], list[str]]] = {
    "no conda file": (
        [member for member in wine() if member.name != "model/conda.yaml"],
        DependenciesError,
        ["conda dependencies from 'model/conda.yaml', which is not a file"],
    ),
    "conda file is a folder": (
        [*(member for member in wine() if member.name != "model/conda.yaml"), Member(name="model/conda.yaml/x")],
        DependenciesError,
        ["'model/conda.yaml'"],
    ),
    "no workDir": (
        [Member(name="odahuflow.project.yaml", data=wine()[0].data), Member(name="x")],
        ManifestError,
        ["model.workDir is 'model', which is not a folder", "'model/conda.yaml', which is not a file"],
    ),
    "no entrypoint": (
        [member for member in wine() if member.name != "model/entry.py"],
        ManifestError,
        ["model.entrypoint is 'entry'", "in 'model'"],
    ),
    "entrypoint without __init__": (
        [*(member for member in wine() if member.name != "model/entry.py"), Member(name="model/entry/x.py")],
        ManifestError,
        ["model.entrypoint is 'entry'"],
    ),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("case", WRONG_FILES.values(), ids=WRONG_FILES)
def test_manifest_that_does_not_fit_the_files(
    packed: bool,
    case: tuple[list[Member], type[PackagerError], list[str]],
    tmp_path: Path,
    workspace: Path,
) -> None:
    members, error, says = case
    source = write_zip(tmp_path / "m.zip", members) if packed else write_folder(tmp_path / "m", members)

    with pytest.raises(error) as caught:
        opened(source, workspace)

    assert caught.value.exit_code == {DependenciesError: 20, ManifestError: 11}[error]
    for part in says:
        assert part in caught.value.message
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("entrypoint", "file"),
    [
        ("entry", "model/entry.py"),
        ("entry", "model/entry/__init__.py"),
        ("entry", "model/entry.cpython-311-x86_64-linux-gnu.so"),
        ("entry", "model/entry.so"),
        ("a.b.entry", "model/a/b/entry.py"),
        ("a.entry", "model/a/entry/__init__.py"),
    ],
)
def test_entrypoints_of_every_form(entrypoint: str, file: str, tmp_path: Path, workspace: Path) -> None:
    manifest, conda, _ = wine()
    manifest = replace(manifest, data=manifest.data.replace(b"entrypoint: entry", f"entrypoint: {entrypoint}".encode()))

    artifact = opened(write_zip(tmp_path / "m.zip", [manifest, conda, Member(name=file)]), workspace)

    assert artifact.manifest.model.entrypoint == entrypoint


def test_manifest_of_either_name_the_project_one_first(tmp_path: Path, workspace: Path) -> None:
    project = wine()[0]
    alias = Member(name="odahuflow.model.yaml", data=project.data.replace(b"wine", b"beer"))

    only = opened(write_zip(tmp_path / "a.zip", [*wine()[1:], alias]), workspace / "a")
    both = opened(write_zip(tmp_path / "b.zip", [alias, *wine()]), workspace / "b")

    assert only.manifest.model.name == "beer"
    assert both.manifest.model.name == "wine"


def test_huge_manifest_is_not_read(tmp_path: Path, workspace: Path) -> None:
    members = wine(manifest="# " + "x" * 2_000_000)

    with pytest.raises(ManifestError, match="larger than 1,048,576 bytes"):
        opened(write_zip(tmp_path / "m.zip", members), workspace)
