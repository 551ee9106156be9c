"""An image as its registry tells it: github.com/opencontainers/image-spec; docker's documents have the same shape."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
EMPTY_JSON = "application/vnd.oci.empty.v1+json"
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_INDEX)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


# What names an image in the index of an OCI layout. The first (annotations.md) is the full name with Podman and Skopeo,
# and the tag with Docker, which writes the full name into the second.
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


def blob_path(digest: str) -> str:
    """Return where a blob lies in an OCI layout (image-layout.md)."""
    return f"blobs/{digest.replace(':', '/')}"


def digest_of(data: bytes) -> str:
    """Return `sha256:…` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def checked_digest(text: object) -> str:
    """Return a digest that we can check; it's safe in a path and in an address.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ValueError(f"{str(text)[:100]!r} is not a digest (sha256: and 64 hex digits)")
    return text


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """Some bytes that a manifest names.

    Attributes:
        media_type: What they are.
        digest: `sha256:…`.
        size: How many bytes.
    """

    media_type: str
    digest: str
    size: int

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Descriptor:
        """Read it from a manifest.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        return cls(
            media_type=str(document.get("mediaType") or ""),
            digest=checked_digest(document["digest"]),
            size=int(document.get("size") or 0),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as a manifest has it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, kw_only=True)
class RemoteImage:
    """An image of one platform, found in its registry.

    Attributes:
        digest: `sha256:…` of the platform's own manifest.
        media_type: Of that manifest: OCI's or docker's.
        config: The image's config document.
        layers: The layers, the lowest first.
    """

    digest: str
    media_type: str = OCI_MANIFEST
    config: dict[str, Any] = field(default_factory=dict)
    layers: tuple[Descriptor, ...] = ()
