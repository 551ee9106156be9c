"""The files of an environment that is kept in a registry, for whoever wants to run it."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from packager.errors import RegistryError
from packager.registry.blobs import RemoteBlob
from packager.registry.client import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path, PurePosixPath

    from packager.image.plan import StoredLayer
    from packager.registry.access import RegistryAccess

_DAMAGE = (tarfile.TarError, zlib.error, zstandard.ZstdError, EOFError, FileExistsError, NotADirectoryError)
_BLOCK = 1 << 20


class TooLargeError(Exception):
    """The environment would take too much of the disk."""


def fetch_files(layer: StoredLayer, prefix: PurePosixPath, access: RegistryAccess, folder: Path) -> Path:
    """Unpack an environment's layer into a new folder; return the place in it of what lies at `prefix` in the image.

    It is unpacked as it comes and checked against its digest at the end. It may take half of the disk's free space.

    Raises:
        ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: It can't be had, or is damaged.
        TooLargeError: It is too large for the disk.
        OSError: It can't be written.
    """
    folder.mkdir()
    with closing(Repository(layer.repository, access)) as repository:
        chunks = RemoteBlob(source=repository, known=layer.descriptor).stream()
        packed = cast("BinaryIO", _Chunks(chunks))
        if layer.descriptor.media_type.endswith("zstd"):
            packed = cast("BinaryIO", zstandard.ZstdDecompressor().stream_reader(packed))
        try:
            with tarfile.open(fileobj=packed, mode="r|*", bufsize=_BLOCK) as archive:
                _extract(archive, folder)
        except _DAMAGE as error:
            raise RegistryError(
                f"the environment kept in {layer.repository.repository} can't be unpacked: {error}",
                hint="--refresh-environment makes it anew",
            ) from error
        for _ in chunks:  # what is left, to the check of the digest
            pass
    return folder / prefix.relative_to("/")


class _Chunks:
    """Chunks of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    def read(self, size: int) -> bytes:
        self._held = self._held or next(self._chunks, b"")
        given, self._held = self._held[:size], self._held[size:]
        return given


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpack folders and files, then the links, so that nothing is written through one."""
    room = shutil.disk_usage(folder).free // 2
    links = []
    for member in archive:
        if member.issym():
            links.append(member)
            continue
        if not (member.isreg() or member.isdir()):
            raise tarfile.SpecialFileError(member)
        room -= member.size
        if room < 0:
            raise TooLargeError(f"its environment would take more than half of the free space in {folder.parent}")
        archive.extract(member, folder, filter="tar")
    for member in links:
        link = folder / tarfile.tar_filter(member, str(folder)).name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(member.linkname)
