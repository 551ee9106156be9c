"""A blob that lies elsewhere, as the uploads take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from packager.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from packager.models.image import Descriptor
    from packager.registry.client import LayerStream

_CHUNK = 1 << 20


class LayerSource(Protocol):
    """What gives an image's layers: its repository, or a layout."""

    def layer(self, blob: Descriptor) -> AbstractContextManager[LayerStream]:
        """Give a layer's bytes as they come, checked against their digest at the end."""


@dataclass(frozen=True, kw_only=True)
class RemoteBlob:
    """A blob to be copied; its bytes only pass through. A `BlobSource`."""

    source: LayerSource
    known: Descriptor

    def stream(self) -> Iterator[bytes]:
        """Give the bytes.

        Raises:
            RegistryError: There are more or fewer than its manifest says, or they are others.
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
        """Return what they are."""
        return self.known
