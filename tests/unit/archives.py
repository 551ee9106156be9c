"""Make model archives, the good and the bad: a zip writer that checks nothing and lies when told to."""

from __future__ import annotations

import stat
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MANIFEST = """\
binaries: {type: python, dependencies: conda, conda_path: model/conda.yaml}
model: {name: wine, version: 1.10, workDir: model, entrypoint: entry}
odahuflowVersion: 1.0
toolchain: {name: mlflow, version: 1.0.0}
output: {run_id: null}
"""
NOON = (2024, 5, 6, 12, 0, 0)
UTF8_FLAG = 0x800


@dataclass(frozen=True, kw_only=True)
class Member:
    """One entry to write; each `claimed_…` is written instead of the truth."""

    name: str | bytes
    data: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    time: tuple[int, int, int, int, int, int] = NOON
    deflate: bool = False
    flags: int = 0
    zip64: bool = False
    claimed_method: int | None = None
    claimed_size: int | None = None
    claimed_packed: int | None = None
    claimed_crc: int | None = None
    claimed_offset: int | None = None
    claimed_version: int = 20


def link(name: str, target: str | bytes) -> Member:
    """Make a symbolic link, as Info-ZIP stores it: the target is the content."""
    data = target if isinstance(target, bytes) else target.encode()
    return Member(name=name, data=data, mode=stat.S_IFLNK | 0o777)


def wine(*more: Member, manifest: str = MANIFEST, prefix: str = "") -> list[Member]:
    """Make the members of a good model, and `more` after them."""
    return [
        Member(name=f"{prefix}odahuflow.project.yaml", data=manifest.encode()),
        Member(name=f"{prefix}model/conda.yaml", data=b"dependencies: [python=3.11]\n"),
        Member(name=f"{prefix}model/entry.py", data=b"def init():\n    return 'matrix'\n", deflate=True),
        *more,
    ]


def write_zip(path: Path, members: Iterable[Member]) -> Path:
    """Write the members as a zip."""
    path.write_bytes(zip_bytes(members))
    return path


def write_folder(folder: Path, members: Iterable[Member]) -> Path:
    """Write the members as an unpacked model."""
    for member in members:
        path = folder / (member.name if isinstance(member.name, str) else member.name.decode())
        path.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISLNK(member.mode):
            path.symlink_to(member.data.decode())
        else:
            path.write_bytes(member.data)
    return folder


def zip_bytes(members: Iterable[Member]) -> bytes:
    """Put a zip together (APPNOTE.TXT 4.3); zip64 records when any member asks for them."""
    members = list(members)
    body = bytearray()
    directory = bytearray()
    for member in members:
        local, central = _headers(member, len(body))
        body += local
        directory += central
    start, count = len(body), len(members)
    tail = b""
    if any(member.zip64 for member in members):
        tail += struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start
        ) + struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
        tail += struct.pack("<4s4HLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    else:
        tail += struct.pack("<4s4HLLH", b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
    return bytes(body + directory + tail)


def _headers(member: Member, offset: int) -> tuple[bytes, bytes]:
    name, flags = member.name, member.flags
    if isinstance(name, str):
        name, flags = name.encode(), flags | UTF8_FLAG
    packed = _deflated(member.data) if member.deflate else member.data
    method = _told(member.claimed_method, 8 if member.deflate else 0)
    crc = _told(member.claimed_crc, zlib.crc32(member.data))
    size = _told(member.claimed_size, len(member.data))
    packed_size = _told(member.claimed_packed, len(packed))
    year, month, day, hour, minute, second = member.time
    clock, date = hour << 11 | minute << 5 | second >> 1, (year - 1980) << 9 | month << 5 | day
    common = (member.claimed_version, flags, method, clock, date, crc)
    at = _told(member.claimed_offset, offset)
    extra = b""
    if member.zip64:
        extra = struct.pack("<HH3Q", 1, 24, size, packed_size, at)
        size = packed_size = at = 0xFFFFFFFF
    local_extra = extra and struct.pack("<HH", 1, 16) + extra[4:20]
    local = struct.pack("<4s5H3L2H", b"PK\3\4", *common, packed_size, size, len(name), len(local_extra))
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 3 << 8 | 20, *common, packed_size, size, len(name), len(extra), 0, 0, 0,
        member.mode << 16, at,
    )  # fmt: skip
    return local + name + local_extra + packed, central + name + extra


def _told(claimed: int | None, true: int) -> int:
    return true if claimed is None else claimed


def _deflated(data: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(data) + squeeze.flush()
