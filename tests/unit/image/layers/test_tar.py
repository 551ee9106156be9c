from __future__ import annotations

import io
import tarfile

import pytest

from packager.image.layers.entries import LayerEntry
from packager.image.layers.tar import CHUNK, header, tar_chunks, tar_size
from packager.sources.file_list import Kind

TIME = 315532800
TYPES = {Kind.FILE: tarfile.REGTYPE, Kind.FOLDER: tarfile.DIRTYPE, Kind.LINK: tarfile.SYMTYPE}


def folder(path: str) -> LayerEntry:
    return LayerEntry(path=path, kind=Kind.FOLDER, mode=0o755)


def file(path: str, data: bytes = b"") -> LayerEntry:
    return LayerEntry(path=path, kind=Kind.FILE, mode=0o644, size=len(data), source=data)


def link(path: str, target: str) -> LayerEntry:
    return LayerEntry(path=path, kind=Kind.LINK, mode=0o777, target=target)


ENTRIES = [
    folder("opt"),
    file("opt/a", b"hello"),
    file("opt/empty"),
    file("opt/record", bytes(512)),
    file("opt/large", bytes(range(256)) * 4 * (3 * CHUNK // 1024) + b"x"),
    file(f"opt/{'d' * 90}/{'e' * 90}", b"x"),
    file(f"opt/{'n' * 250}"),
    link("opt/ü", "z" * 120),
    link("opt/l", "Straße"),
    file("opt/日本\n"),
    *(file("o/" + "x" * length) for length in range(90, 110)),
    *(folder("o" * length + "/" + "x" * 99) for length in range(145, 160)),
]


def test_pythons_own_reader_finds_every_entry() -> None:
    data = b"".join(tar_chunks(ENTRIES, TIME))
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for entry, member in zip(ENTRIES, archive.getmembers(), strict=True):
            assert (member.name, member.type, member.linkname) == (entry.path, TYPES[entry.kind], entry.target)
            assert (member.mode, member.size, member.mtime) == (entry.mode, entry.size, TIME)
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            if entry.kind is Kind.FILE:
                content = archive.extractfile(member)
                assert content is not None
                assert content.read() == entry.source


def test_plain_entries_are_what_python_writes() -> None:
    for entry in ENTRIES[:5]:
        info = tarfile.TarInfo(entry.path)
        info.type, info.mode, info.mtime, info.size = TYPES[entry.kind], entry.mode, TIME, entry.size
        theirs = info.tobuf(tarfile.USTAR_FORMAT)
        ours = header(entry, TIME)
        # Device numbers, which only devices have, are zeros or nothing: that depends on the version of Python.
        assert (ours[:148], ours[156:329], ours[345:]) == (theirs[:148], theirs[156:329], theirs[345:])


def test_chunks_are_of_one_size_and_the_whole_is_known_before() -> None:
    chunks = list(tar_chunks(ENTRIES, TIME))
    assert {len(chunk) for chunk in chunks[:-1]} == {CHUNK}
    assert 0 < len(chunks[-1]) <= CHUNK
    assert sum(map(len, chunks)) == tar_size(ENTRIES)


@pytest.mark.parametrize(
    ("entry", "time"),
    [
        (LayerEntry(path="big", kind=Kind.FILE, mode=0o644, size=9 << 30), TIME),
        (LayerEntry(path="most", kind=Kind.FILE, mode=0o644, size=8**11 - 1), TIME),
        (LayerEntry(path="least beyond", kind=Kind.FILE, mode=0o644, size=8**11), TIME),
        (LayerEntry(path="owner", kind=Kind.FILE, mode=0o644, uid=1 << 30, gid=1 << 21), TIME),
        (LayerEntry(path="late", kind=Kind.FILE, mode=0o644), 1 << 34),
    ],
    ids=lambda value: value.path if isinstance(value, LayerEntry) else "",
)
def test_numbers_that_ustar_can_not_hold(entry: LayerEntry, time: int) -> None:
    with tarfile.open(fileobj=io.BytesIO(header(entry, time)), mode="r:") as archive:
        member = archive.next()
    assert member is not None
    assert (member.name, member.size, member.uid, member.gid, member.mtime) == (
        entry.path, entry.size, entry.uid, entry.gid, time,
    )  # fmt: skip


def test_the_length_of_a_pax_line_counts_its_own_digits() -> None:
    for length in (*range(80, 110), *range(975, 1000)):
        entry = file("ü" + "x" * length)
        with tarfile.open(fileobj=io.BytesIO(header(entry, TIME) + bytes(1024)), mode="r:") as archive:
            assert archive.getnames() == [entry.path]


def test_a_name_of_other_bytes_than_utf_8_stays_as_it_is() -> None:
    name = b"opt/\xff".decode(errors="surrogateescape")
    assert b"path=opt/\xff\n" in header(file(name), TIME)
