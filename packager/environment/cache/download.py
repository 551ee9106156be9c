"""Download of a cached environment's layer from a registry, unpacked to run on this machine."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from contextlib import closing
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from packager.errors import RegistryError
from packager.registry.blobs import RemoteBlob
from packager.registry.client import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from packager.image.plan import StoredLayer
    from packager.registry.access import RegistryAccess

_DAMAGE = (tarfile.TarError, zlib.error, zstandard.ZstdError, EOFError, FileExistsError, NotADirectoryError)
_BLOCK = 1 << 20


class EnvironmentTooLargeError(Exception):
    """The environment would take more than half of the free disk space."""


def download_environment(layer: StoredLayer, prefix: PurePosixPath, access: RegistryAccess, folder: Path) -> Path:
    """Unpack an environment's layer into a new folder; return the subfolder for `prefix` in the image.

    The layer is unpacked while it is received, and its digest is verified at the end. It may take half of the free disk
    space.

    Raises:
        ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: The download failed, or the
            layer is damaged.
        EnvironmentTooLargeError: It is too large for the disk.
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
                f"cannot unpack the cached environment in {layer.repository.repository}: {error}",
                hint="use --refresh-environment to install it again",
            ) from error
        for _ in chunks:  # the rest, for the digest check at the end
            pass
    return folder / prefix.relative_to("/")


class _Chunks:
    """A readable file over chunks of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    def read(self, size: int) -> bytes:
        self._held = self._held or next(self._chunks, b"")
        given, self._held = self._held[:size], self._held[size:]
        return given


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract folders and files first and links last, so that nothing is written through a link."""
    room = shutil.disk_usage(folder).free // 2
    links = []
    for member in archive:
        if member.issym():
            links.append(member)
            continue
        if not (member.isreg() or member.isdir()):
            raise tarfile.ExtractError(f"{member.name!r} is neither a file, a folder nor a symbolic link")
        room -= member.size
        if room < 0:
            raise EnvironmentTooLargeError(
                f"its environment would take more than half of the free space in {folder.parent}"
            )
        target = _target(member, folder)
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with cast("BinaryIO", archive.extractfile(member)) as packed, target.open("xb") as file:
            shutil.copyfileobj(packed, file, _BLOCK)
        target.chmod(member.mode & 0o755)
    for member in links:
        link = _target(member, folder)
        if not link.parent.resolve().is_relative_to(folder.resolve()):  # below a link that was just made
            raise tarfile.ExtractError(f"{member.name!r} leads out of its folder")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(member.linkname)


def _target(member: tarfile.TarInfo, folder: Path) -> Path:
    """Return the path of a member in the folder; `tarfile`'s own filters need Python 3.11.4."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise tarfile.ExtractError(f"{member.name!r} leads out of its folder")
    return folder / path
