"""The blob of a layer: a stream of bytes, and its digests after the stream's end.

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
    """The data of a layer in manifest and config.

    Attributes:
        digest: `sha256:…` of the compressed bytes.
        size: The number of compressed bytes.
        diff_id: `sha256:…` of the tar.
    """

    digest: str
    size: int
    diff_id: str


@dataclass(kw_only=True)
class LayerBlob:
    """A layer that can be streamed repeatedly, with the same bytes each time.

    Attributes:
        name: The layer's name in the plan.
        entries: Its files, folders and links.
        timestamp: The time of all entries, in seconds since 1970.
        compression: Its compression.
        media_types: The image format whose media types are used.
        threads: The number of compressing threads; the bytes don't depend on it.
        info: Set after a stream was read to its end.
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
            BuildError: Docker's format has no media type for Zstandard.
        """
        try:
            return _MEDIA_TYPES[self.media_types][self.compression]
        except KeyError:
            raise BuildError(
                f"docker's image format doesn't support layers with {self.compression.value} compression",
                hint="set PACKAGER_LAYER_COMPRESSION to auto, gzip or none, or use a base image in OCI format",
            ) from None

    @property
    def size(self) -> int | None:
        """The number of bytes of the stream, if known beforehand: only without compression."""
        return tar_size(self.entries) if self.compression is Compression.NONE else None

    def stream(self) -> Iterator[bytes]:
        """Yield the bytes in chunks of about 1 MiB at most; `info` is set at the end.

        Threads read, inflate, hash and compress while the caller sends, with about 20 MB in memory.

        Raises:
            BuildError: A file can't be read or has changed.
            ArtifactError: A file in the model's zip is damaged.
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
    """Return the blobs of a plan's layers, the lowest first; `auto` chooses the compression by samples.

    Raises:
        BuildError, ArtifactError: A file can't be read, or can't be in a layer.
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
