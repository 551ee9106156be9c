"""Writing to image registries: blobs that aren't there yet, each in one pass and resumable, and manifests last.

The protocol is that of github.com/opencontainers/distribution-spec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import httpx

from packager.models.image import digest_of
from packager.registry.blob_upload import Sending
from packager.registry.transport import Wire, url_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.models.image import Descriptor
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.registry.retries import Retries

# distribution 2's answer where it has read a blob's link while it was being written anew: another program sends the
# same blob to the same repository. What was asked for has no digest that could be wrong.
_HALF_WRITTEN = ("DIGEST_INVALID",)
_NO_MOUNT = (400, 401, 403, 404, 405)  # what keeps a blob from being mounted may not keep it from being uploaded


class BlobSource(Protocol):
    """Some bytes to upload. They can be read more than once, and are the same each time."""

    def stream(self) -> Iterator[bytes]:
        """Give the bytes, from the start."""

    def descriptor(self) -> Descriptor | None:
        """Return what the bytes are; None while no stream was read to its end and nobody knows yet."""


@dataclass(frozen=True, kw_only=True)
class BytesBlob:
    """A blob in memory, such as a config."""

    data: bytes
    known: Descriptor

    def stream(self) -> Iterator[bytes]:
        """Give the bytes."""
        yield self.data

    def descriptor(self) -> Descriptor:
        """Return what they are."""
        return self.known


class Uploads:
    """The repository of one reference, for writing. Close it, as with `contextlib.closing`. Threads may share it."""

    def __init__(
        self,
        reference: Reference,
        access: RegistryAccess,
        *,
        transport: httpx.BaseTransport | None = None,
        retries: Retries | None = None,
    ) -> None:
        """Name the repository and how its registry is reached."""
        self.reference = reference
        self._wire = Wire(reference, access, verb="push", transport=transport, retries=retries)

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def has(self, digest: str) -> bool:
        """Tell whether the repository has a blob.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: The registry can't say.
        """
        url = self._wire.url(f"blobs/{digest}")
        return self._wire.request("HEAD", url, expect=(200, 404)).status_code == httpx.codes.OK

    def mount(self, digest: str, source: Reference) -> bool:
        """Let the registry take a blob over from another repository of its own; False where it doesn't.

        Raises:
            RegistryUnreachableError, RegistryError: The registry can't be asked.
        """
        if source.host != self.reference.host:
            return False
        url = str(httpx.URL(self._wire.url("blobs/uploads/"), params={"mount": digest, "from": source.path}))
        response = self._wire.request("POST", url, expect=(201, 202, *_NO_MOUNT))
        if response.status_code == httpx.codes.CREATED:
            self._wire.check_digest(response, digest)
            return True
        location = response.headers.get("Location", "")
        if response.status_code == httpx.codes.ACCEPTED and location:
            self._wire.call_off(self._wire.join(url, location))
        return False

    def send(self, blob: BlobSource) -> Descriptor:
        """Upload a blob, whether the registry has it or not, and return what it is.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It couldn't be uploaded.
        """
        sending = Sending(self._wire, blob)
        try:
            return self._wire.retried(sending.attempt, f"upload to {self.reference.path}")
        finally:
            sending.call_off()

    def put_manifest(self, name: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or digest, whose blobs are all there; return its digest.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It couldn't be stored.
        """
        digest = digest_of(data)
        url, headers = self._wire.url(f"manifests/{name}"), {"Content-Type": media_type}
        passing = () if name == digest else _HALF_WRITTEN

        def put() -> None:
            with self._wire.stream("PUT", url, expect=(201, 200, 202, 400), headers=headers, content=data) as answer:
                if answer.status_code == httpx.codes.BAD_REQUEST:
                    raise self._wire.unexpected(answer, passing=passing)
                self._wire.check_digest(answer, digest)

        self._wire.retried(put, f"PUT {url_path(url)}")
        return digest
