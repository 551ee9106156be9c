"""Extraction of untrusted zip archives: all checks are made before the first byte is written.

Format: APPNOTE.TXT 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import struct
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING

from packager.errors import ArtifactError, DiskFullError, is_disk_full
from packager.sources.file_kinds import HEAD, find_file_kind
from packager.sources.file_list import (
    Entry,
    Kind,
    below,
    check_links,
    check_names,
    check_path,
    find_root,
    quoted,
    refusal,
)
from packager.sources.zip_member import COPY_AGAIN, ZipMember, read_member

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from packager.logs.progress import Reporter
    from packager.sources.file_list import ArtifactLimits

log = logging.getLogger(__name__)

MAX_LINK_TEXT = 4095  # bytes; Linux's PATH_MAX without the closing NUL

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_METHOD_NAMES = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 98: "ppmd", 99: "AES"}
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # general purpose bits 0, 6 and 13
_UTF8 = 0x800  # bit 11

_END = struct.Struct("<4s4HLLH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64_SIZE = 20
_LOCAL_SIZE = 30
_CENTRAL = struct.Struct("<4s24x3H12x")
_MAX_COMMENT = 0xFFFF

# Exceptions of zipfile for damaged or malicious archives.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, struct.error, OverflowError)


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """The content of an archive; everything except `packed` is on disk.

    Attributes:
        root: The folder with the manifest, relative to the folder of the unpacked files.
        entries: All entries below it.
        packed: The files that stay in the archive, by path.
    """

    root: str
    entries: Sequence[Entry]
    packed: Mapping[str, ZipMember]


def unpack(
    source: Path,
    folder: Path,
    *,
    limits: ArtifactLimits,
    reporter: Reporter,
    leave: Callable[[Sequence[Entry]], Collection[str]] = lambda _entries: (),
) -> Unpacked:
    """Unpack the model of a zip into `folder`, which must not exist, with constant memory.

    Files get the mode 0644 or 0755, folders 0755. Links are created last, so that nothing is written through a link.
    `leave` returns the paths of files that stay in the archive. Their metadata is checked as well; their real size and
    CRC-32 are verified when they are read (`ZipMember.read`).

    Raises:
        ArtifactError: The archive can't be read or is not safe to unpack. The caller removes the written files.
        ManifestError: It contains no manifest.
        DiskFullError: The disk is full.
    """
    with _damage_reported(source), source.open("rb") as file:
        if kind := find_file_kind(source.name, file.read(HEAD)):
            raise ArtifactError(f"{source} is {kind.name}, not a zip archive", hint=kind.hint)
        start = _check_directory(file, limits)
        with zipfile.ZipFile(file) as archive:
            members = _read_members(archive, file, source.absolute(), start)
        check_names(members.values(), limits)
        unpacked = sum(member.size for member in members)
        limits.check_bytes(unpacked)
        limits.check_ratio(unpacked, source.stat().st_size)
        root = find_root(list(members.values()))
        entries = below(members.values(), root)
        check_links(entries, root)
        left = frozenset(leave(entries))
        here = {entry.path: entry.size for entry in entries if entry.kind is Kind.FILE and entry.path not in left}
        with _writing_reported(folder), reporter.task(f"Unpacking {source.name}", sum(here.values())) as advance:
            _make_folders(folder, entries, needed=sum(here.values()))
            for member, entry in members.items():
                if entry.path in here:
                    _write_file(file, member, folder / entry.path, advance=advance)
            for entry in entries:
                if entry.kind is Kind.LINK:
                    (folder / entry.path).symlink_to(entry.target)
    packed = {entry.path: member for member, entry in members.items() if entry.path in left}
    return Unpacked(root=root, entries=entries, packed=packed)


@contextmanager
def _damage_reported(source: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise _not_utf8(bytes(error.object)) from error
    except OSError as error:
        raise ArtifactError(f"the archive {source} can't be read: {error.strerror}", hint=COPY_AGAIN) from error
    except _DAMAGE as error:
        raise ArtifactError(f"the archive {source} is damaged: {quoted(str(error))}", hint=COPY_AGAIN) from error


@contextmanager
def _writing_reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise _disk_full(folder) from error
        name = os.path.relpath(str(error.filename2 or error.filename or folder), folder)
        raise ArtifactError(
            f"the model can't be unpacked to {folder}: {error.strerror} ({quoted(name)})",
            hint="pack the model again without this entry, or set PACKAGER_WORK_DIR to another folder",
        ) from error


def _disk_full(folder: Path, needed: str = "") -> DiskFullError:
    return DiskFullError(
        f"no space left to unpack the model in {folder.parent}{needed}",
        hint="free disk space there, or set PACKAGER_WORK_DIR to a folder on a larger disk",
    )


def _not_utf8(name: bytes) -> ArtifactError:
    return refusal(name, "has a name that is not UTF-8", "pack the model again with a tool that writes names as UTF-8")


def _check_directory(file: IO[bytes], limits: ArtifactLimits) -> int:
    """Count the central directory's entries before zipfile loads them all; return its start."""
    size = file.seek(0, os.SEEK_END)
    tail_start = max(0, size - _MAX_COMMENT - _END.size - _LOCATOR64_SIZE - _END64.size)
    file.seek(tail_start)
    tail = file.read()
    at = len(tail) - _END.size
    if not (tail[at : at + 4] == b"PK\5\6" and tail.endswith(b"\0\0")):
        at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        file.seek(0)
        if file.read(4) == b"PK\3\4":
            raise ArtifactError(
                f"the archive {file.name} is truncated: the directory at its end is missing", hint=COPY_AGAIN
            )
        raise ArtifactError(
            f"{file.name} is not a zip archive", hint="use the zip of a trained model, or its unpacked folder"
        )
    length: int = _END.unpack_from(tail, at)[5]
    at64 = at - _LOCATOR64_SIZE - _END64.size
    if at64 >= 0 and tail[at64 : at64 + 4] == b"PK\6\6" and tail[at - _LOCATOR64_SIZE :][:4] == b"PK\6\7":
        length = _END64.unpack_from(tail, at64)[8]
        at = at64
    end = tail_start + at
    start = end - length
    if start < 0:
        raise zipfile.BadZipFile("its directory does not fit into it")
    position, count = start, 0
    while position < end:
        file.seek(position)
        signature, *lengths = _CENTRAL.unpack(file.read(_CENTRAL.size))
        if signature != b"PK\1\2":
            raise zipfile.BadZipFile("its directory is not where it should be")
        position += _CENTRAL.size + sum(lengths)
        count += 1
        limits.check_entries(count)
    return start


def _read_members(
    archive: zipfile.ZipFile, file: IO[bytes], path: Path, directory_start: int
) -> dict[ZipMember, Entry]:
    infos = archive.infolist()
    _check_overlaps(infos, directory_start)
    members = {}
    for info, name in zip(infos, _read_names(infos), strict=True):
        member = ZipMember(
            archive=path,
            name=_raw_name(info),
            offset=info.header_offset,
            method=info.compress_type,
            packed=info.compress_size,
            size=info.file_size,
            crc=info.CRC,
            executable=bool(info.external_attr >> 16 & 0o111),
        )
        entry = _read_entry(file, info, member, name)
        if entry.path:
            members[member] = entry
        elif entry.kind is not Kind.FOLDER:
            raise refusal(info.orig_filename, "has no name")
    return members


def _check_overlaps(infos: list[zipfile.ZipInfo], directory_start: int) -> None:
    following = directory_start
    for info in sorted(infos, key=lambda info: info.header_offset, reverse=True):
        if info.header_offset + _LOCAL_SIZE + len(_raw_name(info)) + info.compress_size > following:
            raise refusal(_raw_name(info), "overlaps another; the archive looks like a zip bomb", COPY_AGAIN)
        following = info.header_offset
    if following < 0:
        raise zipfile.BadZipFile("its beginning is missing")


def _read_names(infos: list[zipfile.ZipInfo]) -> list[str]:
    r"""Decode the entries' names as other tools do.

    Some Windows tools write `\` for `/` (icsharpcode/SharpZipLib#617): if no name has a `/`, `\` is the separator. Many
    tools write UTF-8 without its flag; names that aren't UTF-8 are CP437 (APPNOTE.TXT, appendix D).
    """
    names = [_read_name(info) for info in infos]
    others = [name for info, name in zip(infos, names, strict=True) if name.encode() != _raw_name(info)]
    if others:
        log.warning(
            "%d names in the archive aren't UTF-8 and are read as CP437, such as %s; where the model doesn't find its "
            "files, pack it again with a tool that writes names as UTF-8",
            len(others),
            quoted(others[0]),
        )
    if any("/" in name for name in names):
        return names
    return [name.replace("\\", "/") for name in names]


def _read_name(info: zipfile.ZipInfo) -> str:
    try:
        return _raw_name(info).decode()
    except UnicodeDecodeError:
        return info.orig_filename


def _read_entry(file: IO[bytes], info: zipfile.ZipInfo, member: ZipMember, name: str) -> Entry:
    path = check_path(name)
    mode = info.external_attr >> 16
    if info.flag_bits & _ENCRYPTED:
        raise refusal(name, "is encrypted", "pack the model again without a password")
    if info.compress_type not in _METHODS:
        method = _METHOD_NAMES.get(info.compress_type, "unknown")
        raise refusal(
            name,
            f"is compressed by method {info.compress_type} ({method}), which is not supported",
            "pack the model again with deflate, as `zip -r` does",
        )
    kind, target = Kind.FILE, ""
    if name.endswith("/") or stat.S_ISDIR(mode):
        kind = Kind.FOLDER
        if info.file_size:
            raise refusal(name, "is a folder that holds bytes of its own")
    elif stat.S_ISLNK(mode):
        kind, target = Kind.LINK, _read_link(file, member)
    elif stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        raise refusal(name, "is a device, pipe or socket")
    return Entry(
        path=path,
        kind=kind,
        size=info.file_size,
        modified=_read_time(info),
        executable=member.executable,
        target=target,
    )


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    """Undo zipfile's decoding, which is cp437 without the UTF-8 flag."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")


def _read_time(info: zipfile.ZipInfo) -> int:
    """Return the entry's DOS time as UTC: it has no time zone, and must be the same on every machine."""
    try:
        return int(datetime(*info.date_time, tzinfo=timezone.utc).timestamp())
    except ValueError:  # month 0, second 62: written by tools without a time
        return int(datetime(1980, 1, 1, tzinfo=timezone.utc).timestamp())


def _read_link(file: IO[bytes], member: ZipMember) -> str:
    if not 0 < member.size <= MAX_LINK_TEXT:
        raise refusal(member.name, f"is a link of {member.size:,} bytes", "pack the file itself")
    target = b"".join(read_member(file, member))
    if b"\0" in target:
        raise refusal(member.name, "is a link with a NUL character in it")
    try:
        return target.decode()
    except UnicodeDecodeError as error:
        raise refusal(member.name, f"is a link to {quoted(target)}, which is not UTF-8") from error


def _make_folders(folder: Path, entries: list[Entry], *, needed: int) -> None:
    folder.mkdir(parents=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise _disk_full(folder, f": it needs {needed:,} bytes and {free:,} are free")
    paths = {entry.path for entry in entries if entry.kind is Kind.FOLDER}
    for entry in entries:
        parent = entry.path.rpartition("/")[0]
        while parent and parent not in paths:
            paths.add(parent)
            parent = parent.rpartition("/")[0]
    for path in sorted(paths):
        (folder / path).mkdir()
        (folder / path).chmod(0o755)


def _write_file(file: IO[bytes], member: ZipMember, path: Path, *, advance: Callable[[int], None]) -> None:
    with path.open("xb") as out:
        os.fchmod(out.fileno(), 0o755 if member.executable else 0o644)
        for chunk in read_member(file, member):
            out.write(chunk)
            advance(len(chunk))
