"""What every kind of store is to the download: something that gives an object's bytes from an offset on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from packager.sources.stores.checksums import Checksum
    from packager.sources.stores.store_errors import Access

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0  # without a byte, after which a connection counts as broken


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An object while its bytes come.

    Attributes:
        start: The first byte that comes: what was asked, or 0 where the store can't begin later.
        size: The whole object's size, where it is known.
        validator: What tells this version of the object from others (an ETag or a date); empty if nothing does.
        chunks: The bytes.
    """

    start: int
    size: int | None
    validator: str
    chunks: Iterator[bytes]


class Source(Protocol):
    """An object in a store."""

    access: Access

    def open(self, offset: int, validator: str) -> AbstractContextManager[Opened]:
        """Ask for the bytes from `offset` on, of that version if a validator is given.

        Raises:
            RetryableError: Asking again may help; also while the bytes come.
            ArtifactError: There is no such object, or it was changed.
            StorageError: The store refuses.
        """

    def checksums(self) -> list[Checksum]:
        """Return what the store says of the object that was opened; nothing, if it says nothing."""
