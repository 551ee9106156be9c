"""A layer as a blob of a registry: bytes to send, and its digests once they were all made.

Media types: github.com/opencontainers/image-spec/blob/main/layer.md, and distribution.github.io/distribution/spec/
manifest-v2-2 for docker's.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from packager.errors import BuildError
from packager.image.layers.compression import (
    Compression,
    Sha256,
    choose_compression,
    compress,
    read_ahead,
    thread_count,
)
from packager.image.layers.entries import plan_entries
from packager.image.layers.tar import tar_chunks, tar_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from packager.image.layers.entries import LayerEntry
    from packager.image.plan import ImagePlan

MediaTypes = Literal["oci", "docker"]
Setting = Literal["auto", "gzip", "zstd", "none"]

_MEDIA_TYPES: dict[MediaTypes, dict[Compression, str]] = {
    "oci": {
        Compression.NONE: "application/vnd.oci.image.layer.v1.tar",
        Compression.GZIP: "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression.ZSTD: "application/vnd.oci.image.layer.v1.tar+zstd",
    },
    "docker": {
        Compression.NONE: "application/vnd.docker.image.rootfs.diff.tar",
        Compression.GZIP: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    },
}


@dataclass(frozen=True, kw_only=True)
class BlobInfo:
    """What a manifest and a config say of a layer.

    Attributes:
        digest: `sha256:…` of the bytes as they are sent.
        size: How many they are.
        diff_id: `sha256:…` of the tar.
    """

    digest: str
    size: int
    diff_id: str


@dataclass(kw_only=True)
class LayerBlob:
    """A layer that can be streamed, as often as needed; each time it's the same bytes.

    Attributes:
        name: The plan's name of the layer.
        entries: What is in it.
        timestamp: The time of all of it, in seconds since 1970.
        compression: How it's compressed.
        media_types: Whose names of formats the image uses.
        threads: How many compress; the bytes don't depend on it.
        info: Known after a stream was read to its end.
    """

    name: str
    entries: Sequence[LayerEntry]
    timestamp: int
    compression: Compression
    media_types: MediaTypes = "oci"
    threads: int = field(default_factory=thread_count)
    info: BlobInfo | None = field(default=None, init=False)

    @property
    def media_type(self) -> str:
        """The layer's media type.

        Raises:
            BuildError: Docker's formats have none for Zstandard.
        """
        try:
            return _MEDIA_TYPES[self.media_types][self.compression]
        except KeyError:
            raise BuildError(
                f"an image in docker's format can't have layers compressed with {self.compression.value}",
                hint="set PACKAGER_LAYER_COMPRESSION to auto, gzip or none, or use a base image in OCI format",
            ) from None

    @property
    def size(self) -> int | None:
        """How many bytes will be sent, where that is known before they are made: without compression."""
        return tar_size(self.entries) if self.compression is Compression.NONE else None

    def stream(self) -> Iterator[bytes]:
        """Give the bytes in chunks of about 1 MiB at most; at the end `info` are known.

        Reading, inflating, hashing and compressing go on in threads while the caller sends; some 20 MB are held.

        Raises:
            BuildError: A file can't be read or has changed.
            ArtifactError: A file in the model's zip isn't what the zip says.
        """
        with ExitStack() as stack:
            content = stack.enter_context(Sha256())
            sent = content if self.compression is Compression.NONE else stack.enter_context(Sha256())
            size = 0
            for chunk in compress(self._tar(content), self.compression, threads=self.threads):
                if sent is not content:
                    sent.update(chunk)
                size += len(chunk)
                yield chunk
            self.info = BlobInfo(digest=sent.digest(), size=size, diff_id=content.digest())

    def _tar(self, content: Sha256) -> Iterator[bytes]:
        for chunk in read_ahead(tar_chunks(self.entries, self.timestamp)):
            content.update(chunk)
            yield chunk


def plan_blobs(
    plan: ImagePlan,
    compression: Setting = "auto",
    *,
    media_types: MediaTypes = "oci",
    base_folders: Iterable[LayerEntry] = (),
) -> list[LayerBlob]:
    """Make the blobs of a plan's layers, the lowest first; `auto` looks into each.

    Raises:
        BuildError, ArtifactError: What goes into a layer can't be read, or can't be in one.
    """
    return [
        LayerBlob(
            name=layer.name,
            entries=entries,
            timestamp=int(plan.timestamp.timestamp()),
            compression=choose_compression(entries) if compression == "auto" else Compression(compression),
            media_types=media_types,
        )
        for layer, entries in zip(plan.layers, plan_entries(plan, base_folders), strict=True)
    ]
