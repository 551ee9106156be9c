"""A file of a zip archive as a value, with its bytes as a stream.

So a large file of a model can stay in its archive until its bytes are needed. Format: APPNOTE.TXT 6.3.10, 4.3.7,
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
STORED, DEFLATED = 0, 8  # the supported compression methods
COPY_AGAIN = "copy or download the archive again; `unzip -t` checks whether it is complete"

_LOCAL = struct.Struct("<4s22xHH")
_INPUT = 1 << 18
_INFLATE_ERROR: type[Exception] = vars(zlib_ng)["error"]  # its stub declares an instance


@dataclass(frozen=True, kw_only=True)
class ZipMember:
    """A file in a zip, as described by the archive's directory; its content was not read yet.

    Attributes:
        archive: The absolute path of the zip.
        name: The raw name in the archive.
        offset: The offset of its local header.
        method: `STORED` or `DEFLATED`.
        packed: The compressed size in bytes.
        size: The uncompressed size in bytes.
        crc: CRC-32 of the unpacked bytes.
        executable: Whether it has an executable mode.
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
        """Yield the uncompressed bytes in chunks of at most 1 MiB, verified as by `read_member`.

        Raises:
            ArtifactError: The archive can no longer be read, or doesn't match its directory.
        """
        try:
            with self.archive.open("rb") as file:
                yield from read_member(file, self)
        except OSError as error:
            raise ArtifactError(
                f"the archive {self.archive} can't be read: {error.strerror}", hint=COPY_AGAIN
            ) from error


def read_member(file: IO[bytes], member: ZipMember) -> Iterator[bytes]:
    """Yield a member's uncompressed bytes; stop when they exceed the size in the directory.

    Raises:
        ArtifactError: The header, size or CRC-32 doesn't match the directory.
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
        # A full chunk may be followed by more output, even if all input is consumed.
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
        file.seek(position)  # other readers of the file may have moved its position
        data = file.read(min(size, left))
        if not data:
            raise EOFError("it ends too early")
        position, left = position + len(data), left - len(data)
        yield data
