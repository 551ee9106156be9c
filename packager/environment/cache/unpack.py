"""The files of an environment that is kept in a registry, for whoever wants to run it."""

from __future__ import annotations

import tarfile
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from packager.errors import RegistryError
from packager.registry.client import Repository

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from packager.image.plan import StoredLayer
    from packager.registry.access import RegistryAccess


def fetch_files(layer: StoredLayer, prefix: PurePosixPath, access: RegistryAccess, folder: Path) -> Path:
    """Unpack an environment's layer into a new folder; return the place in it of what lies at `prefix` in the image.

    Raises:
        ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: It can't be had, or is damaged.
        OSError: It can't be written.
    """
    folder.mkdir()
    with closing(Repository(layer.repository, access)) as repository, repository.layer(layer.descriptor) as stream:
        packed = cast("BinaryIO", stream)
        if layer.descriptor.media_type.endswith("zstd"):
            packed = cast("BinaryIO", zstandard.ZstdDecompressor().stream_reader(packed))
        try:
            with tarfile.open(fileobj=packed, mode="r|*") as archive:
                archive.extractall(folder, filter="tar")
        except (tarfile.TarError, zlib.error, zstandard.ZstdError, EOFError) as error:
            raise RegistryError(
                f"the environment kept in {layer.repository.repository} can't be unpacked: {error}",
                hint="--refresh-environment makes it anew",
            ) from error
    return folder / prefix.relative_to("/")
