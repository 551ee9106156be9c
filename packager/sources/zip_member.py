"""One file of a zip archive, as a value, and its bytes as a stream.

A large file of a model can so stay in its archive until the bytes are needed. Format: APPNOTE.TXT 6.3.10, 4.3.7,
https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from zlib_ng import zlib_ng

from packager.errors import ArtifactError
from packager.sources.file_list import quoted, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 20  # bytes in memory at a time
STORED, DEFLATED = 0, 8  # the compression methods that are read
COPY_AGAIN = "copy or download the archive again; `unzip -t` tells whether it is whole"

_LOCAL = struct.Struct("<4s22xHH")
_INPUT = 1 << 18
_INFLATE_ERROR: type[Exception] = vars(zlib_ng)["error"]  # its stub says that this is an instance


@dataclass(frozen=True, kw_only=True)
class ZipMember:
    """A file that lies in a zip, as the archive's directory describes it; nothing of it was read yet.

    Attributes:
        archive: The absolute path of the zip.
        name: Its name there, as the archive writes it.
        offset: Where its local header begins.
        method: `STORED` or `DEFLATED`.
        packed: Its bytes in the archive.
        size: Its bytes unpacked.
        crc: CRC-32 of the unpacked bytes.
        executable: Whether anyone may execute it.
    """

    archive: Path
    name: bytes
    offset: int
    method: int
    packed: int
    size: int
    crc: int
    executable: bool = False

    def read(self) -> Iterator[bytes]:
        """Give the unpacked bytes in chunks of at most 1 MiB, checked as `read_member` does.

        Raises:
            ArtifactError: The archive can't be read any more, or the bytes aren't what its directory says.
        """
        try:
            with self.archive.open("rb") as file:
                yield from read_member(file, self)
        except OSError as error:
            raise ArtifactError(
                f"the archive {self.archive} can't be read: {error.strerror}", hint=COPY_AGAIN
            ) from error


def read_member(file: IO[bytes], member: ZipMember) -> Iterator[bytes]:
    """Give what really is in a member, and stop as soon as it is more than the directory says.

    Raises:
        ArtifactError: It's damaged: its header, its size or its CRC-32 is not what the directory says.
        OSError: The file can't be read.
    """
    left, crc = member.size, 0
    try:
        for chunk in _unpacked(file, member):
            left -= len(chunk)
            if left < 0:
                break
            crc = zlib_ng.crc32(chunk, crc)
            yield chunk
    except (_INFLATE_ERROR, EOFError, ValueError) as error:
        raise _damaged(member, str(error)) from error
    if left:
        raise refusal(
            member.name, f"holds {'more' if left < 0 else 'less'} than the {member.size:,} bytes it says", COPY_AGAIN
        )
    if crc != member.crc:
        raise _damaged(member, "its bytes don't have the CRC-32 that the archive's directory says")


def _damaged(member: ZipMember, what: str) -> ArtifactError:
    return refusal(member.name, f"is damaged: {quoted(what)}", COPY_AGAIN)


def _unpacked(file: IO[bytes], member: ZipMember) -> Iterator[bytes]:
    packed = _packed(file, member)
    if member.method == STORED:
        yield from packed
        return
    inflater = zlib_ng.decompressobj(-15)
    for data in packed:
        pending, more = data, False
        # With as much given as was asked for there may be more, even if all input is used up.
        while pending or more:
            chunk = inflater.decompress(pending, CHUNK)
            more = len(chunk) == CHUNK and not inflater.eof
            pending = inflater.unconsumed_tail
            if chunk:
                yield chunk
            if inflater.eof:
                return
    raise EOFError("it ends too early")


def _packed(file: IO[bytes], member: ZipMember) -> Iterator[bytes]:
    file.seek(member.offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
        raise EOFError("it does not begin where the archive's directory says")
    _, name_length, extra_length = _LOCAL.unpack(header)
    if file.read(name_length) != member.name:
        raise EOFError("its name differs from that in the archive's directory")
    position, left = file.seek(extra_length, 1), member.packed
    size = CHUNK if member.method == STORED else _INPUT
    while left:
        file.seek(position)  # whoever shares the file may have moved it meanwhile
        data = file.read(min(size, left))
        if not data:
            raise EOFError("it ends too early")
        position, left = position + len(data), left - len(data)
        yield data
