"""Writing to image registries: blobs that aren't there yet, each in one pass and resumable, and manifests last.

The protocol is that of github.com/opencontainers/distribution-spec.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import httpx

from packager.errors import RegistryError
from packager.models.image import digest_of
from packager.registry import errors
from packager.registry.blob_upload import BlobUpload
from packager.registry.retries import NO_ANSWER, RetryableStatusError
from packager.registry.transport import RegistrySession, url_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.models.image import Descriptor
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.registry.retries import Retries

log = logging.getLogger(__name__)

# distribution 2's answer where it has read a blob's link while it was being written anew: another program sends the
# same blob to the same repository. What was asked for has no digest that could be wrong.
_HALF_WRITTEN = ("DIGEST_INVALID",)
_MANIFEST_REFUSED = (400, 403, 405, 409, 412, 415, 422)
_MOUNT_SECONDS = 5.0  # of further attempts; an upload takes the place of a mount that fails


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
        self._session = RegistrySession(reference, access, verb="push", transport=transport, retries=retries)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def has(self, digest: str) -> bool:
        """Tell whether the repository has a blob; False where the registry doesn't say: the upload will tell.

        Raises:
            RegistryUnreachableError, RegistryError: The registry can't be asked.
        """
        return self._session.request("HEAD", self._session.url(f"blobs/{digest}"), also=NO_ANSWER).is_success

    def mount(self, digest: str, source: Reference) -> bool:
        """Let the registry take a blob over from another repository of its own; False where it doesn't.

        Whatever keeps a blob from being mounted may not keep it from being uploaded.

        Raises:
            RegistryError: It took another blob over.
        """
        if source.host != self.reference.host:
            return False
        url = str(httpx.URL(self._session.url("blobs/uploads/"), params={"mount": digest, "from": source.path}))

        def post() -> httpx.Response:
            with self._session.stream("POST", url) as response:
                return response

        try:
            response = self._session.retried(post, f"POST {url_path(url)}", seconds=_MOUNT_SECONDS)
            begun = "" if response.status_code == httpx.codes.CREATED else self._session.location(response)
        except RegistryError as error:
            log.debug("%s is not mounted from %s: %s", digest, source.repository, error.message)
            return False
        if response.status_code == httpx.codes.CREATED:
            self._session.check_digest(response, digest)
            return True
        if begun:
            self._session.cancel(begun)
        return False

    def send(self, blob: BlobSource) -> Descriptor:
        """Upload a blob, whether the registry has it or not, and return what it is.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It couldn't be uploaded.
        """
        upload = BlobUpload(self._session, blob)
        try:
            return self._session.retried(upload.attempt, f"upload to {self.reference.path}")
        finally:
            upload.cancel()

    def put_manifest(self, name: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or digest, whose blobs are all there; return its digest.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It couldn't be stored.
        """
        digest = digest_of(data)
        url, headers = self._session.url(f"manifests/{name}"), {"Content-Type": media_type}

        def put() -> None:
            with self._session.stream("PUT", url, also=_MANIFEST_REFUSED, headers=headers, content=data) as response:
                if response.is_success:
                    self._session.check_digest(response, digest)
                    return
                body = errors.error_body(response)
            if name != digest and errors.code(response, body) in _HALF_WRITTEN:
                raise RetryableStatusError(response, body)
            stored = ""
            if name != digest and errors.keeps_tags(response, body):
                stored = self._stored_digest(name, media_type)
            if stored == digest:
                log.info("%s is this image already; its registry lets no tag be replaced", self.reference)
                return
            raise errors.manifest_refusal(self._session.context, response, body, media_type=media_type, stored=stored)

        self._session.retried(put, f"PUT {url_path(url)}")
        return digest

    def _stored_digest(self, tag: str, media_type: str) -> str:
        """Return the digest of what a tag names; empty where it names nothing that can be read."""
        try:
            url = self._session.url(f"manifests/{tag}")
            return digest_of(self._session.request("GET", url, headers={"Accept": media_type}).content)
        except RegistryError as error:
            log.debug("the manifest of the tag %s can't be read: %s", tag, error.message)
            return ""
