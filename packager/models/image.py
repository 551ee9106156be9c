"""Documents of images in registries: github.com/opencontainers/image-spec; docker's documents have the same shape."""

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


# Annotations for an image's name in the index of an OCI layout. The first (annotations.md) is the full name with
# Podman and Skopeo, but the tag with Docker, which writes the full name into the second.
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


def blob_path(digest: str) -> str:
    """Return the path of a blob in an OCI layout (image-layout.md)."""
    return f"blobs/{digest.replace(':', '/')}"


def digest_of(data: bytes) -> str:
    """Return `sha256:…` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def checked_digest(text: object) -> str:
    """Return a validated SHA-256 digest, which is safe in paths and URLs.

    Raises:
        ValueError: It is not one.
    """
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ValueError(f"{str(text)[:100]!r} is not a digest (sha256: and 64 hex digits)")
    return text


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """The descriptor of a blob, as in manifests.

    Attributes:
        media_type: The blob's media type.
        digest: `sha256:…`.
        size: The size in bytes.
    """

    media_type: str
    digest: str
    size: int

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Descriptor:
        """Parse a descriptor of a manifest.

        Raises:
            KeyError, TypeError, ValueError: It is invalid.
        """
        return cls(
            media_type=str(document.get("mediaType") or ""),
            digest=checked_digest(document["digest"]),
            size=int(document.get("size") or 0),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the descriptor in a manifest's format."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, kw_only=True)
class RemoteImage:
    """An image of one platform in a registry or layout.

    Attributes:
        digest: `sha256:…` of the platform's own manifest.
        media_type: The manifest's media type, OCI's or docker's.
        config: The image's config document.
        layers: The layers, the lowest first.
    """

    digest: str
    media_type: str = OCI_MANIFEST
    config: dict[str, Any] = field(default_factory=dict)
    layers: tuple[Descriptor, ...] = ()
