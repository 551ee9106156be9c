"""Blobs: where their bytes come from, whether memory, a file, another repository or a layer that is being read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from packager.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from packager.models.image import Descriptor

_CHUNK = 1 << 20


class BlobSource(Protocol):
    """Some bytes to upload. They can be read more than once, and are the same each time."""

    def stream(self) -> Iterator[bytes]:
        """Give the bytes, from the start."""

    def descriptor(self) -> Descriptor | None:
        """Return size and digest; None as long as no stream was read to its end and they are unknown."""


class LayerSource(Protocol):
    """Where an image's layers come from: its repository, or a layout."""

    def layer(self, blob: Descriptor) -> AbstractContextManager[LayerStream]:
        """Give a layer's bytes as they come, checked against their digest at the end."""


@dataclass(frozen=True, kw_only=True)
class BytesBlob:
    """A blob in memory, such as a config."""

    data: bytes
    known: Descriptor

    def stream(self) -> Iterator[bytes]:
        """Give the bytes."""
        yield self.data

    def descriptor(self) -> Descriptor:
        """Return size and digest."""
        return self.known


@dataclass(frozen=True, kw_only=True)
class FileBlob:
    """A blob in a file."""

    path: Path
    known: Descriptor

    def stream(self) -> Iterator[bytes]:
        """Give the bytes."""
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def descriptor(self) -> Descriptor:
        """Return size and digest."""
        return self.known


@dataclass(frozen=True, kw_only=True)
class RemoteBlob:
    """A layer that is copied from another image; its bytes only pass through."""

    source: LayerSource
    known: Descriptor

    def stream(self) -> Iterator[bytes]:
        """Give the bytes.

        Raises:
            RegistryError: Their number or their digest isn't that of the manifest.
        """
        given = 0
        with self.source.layer(self.known) as layer:
            while chunk := layer.read(_CHUNK):
                given += len(chunk)
                if given > self.known.size:
                    raise self._wrong_size(f"more than {self.known.size}")
                yield chunk
        if given != self.known.size:
            raise self._wrong_size(str(given))

    def _wrong_size(self, size: str) -> RegistryError:
        return RegistryError(
            f"the layer {self.known.digest} has {size} bytes, and its manifest says {self.known.size}",
            hint="build or push the image again that it comes from",
        )

    def descriptor(self) -> Descriptor:
        """Return size and digest."""
        return self.known


class LayerStream:
    """The bytes of a layer, to be read once, and hashed as they are read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        """Take the chunks."""
        self._chunks = chunks
        self._rest = b""
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, and no bytes only at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._hash.update(chunk)
            self._rest = chunk
        given, self._rest = self._rest[:size], self._rest[size:]
        return given

    def digest(self) -> str:
        """Read the rest, and return the digest of all bytes."""
        while self.read(1 << 30):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def skip_bytes(chunks: Iterable[bytes], offset: int) -> Iterator[bytes]:
    """Give the chunks without the first `offset` bytes."""
    for chunk in chunks:
        if offset >= len(chunk):
            offset -= len(chunk)
        else:
            yield chunk[offset:]
            offset = 0
