"""Writing to image registries: missing blobs, each in one pass and resumable, and manifests last.

The protocol is that of github.com/opencontainers/distribution-spec.
"""

from __future__ import annotations

import json
import logging
from contextlib import closing
from typing import TYPE_CHECKING

import httpx

from packager.errors import RegistryError
from packager.models.image import Descriptor, blob_path, digest_of
from packager.registry import errors, quirks
from packager.registry.blob_upload import BlobUpload
from packager.registry.blobs import FileBlob
from packager.registry.transport import RegistrySession, url_path

if TYPE_CHECKING:
    from pathlib import Path

    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.registry.blobs import BlobSource
    from packager.system.retries import RetryPolicy

log = logging.getLogger(__name__)

_MOUNT_SECONDS = 5.0  # of retries; a blob that can't be mounted is uploaded


class Uploads:
    """The repository of one reference, for writing. Close it, as with `contextlib.closing`. Threads may share it."""

    def __init__(
        self,
        reference: Reference,
        access: RegistryAccess,
        *,
        transport: httpx.BaseTransport | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        """Name the repository and how its registry is reached."""
        self.reference = reference
        self._session = RegistrySession(reference, access, verb="push", transport=transport, retries=retries)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def has(self, digest: str) -> bool:
        """Tell whether the repository has a blob; False where the registry doesn't say.

        Raises:
            RegistryUnreachableError, RegistryError: The registry can't be asked.
        """
        return self._session.request("HEAD", self._session.url(f"blobs/{digest}"), also=quirks.NO_ANSWER).is_success

    def mount(self, digest: str, source: Reference) -> bool:
        """Mount a blob from another repository of the same registry; False where the registry doesn't.

        The reason why a blob can't be mounted need not keep it from being uploaded.

        Raises:
            RegistryError: The registry mounted another blob.
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
        """Upload a blob, whether the registry has it or not, and return its descriptor.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It couldn't be uploaded.
        """
        upload = BlobUpload(self._session, blob)
        try:
            return self._session.retried(upload.attempt, f"upload to {self.reference.path}")
        finally:
            upload.cancel()

    def put_manifest(self, name: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or digest after all of its blobs, and return its digest.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It couldn't be stored.
        """
        digest = digest_of(data)
        url, headers = self._session.url(f"manifests/{name}"), {"Content-Type": media_type}

        def put() -> None:
            with self._session.stream(
                "PUT", url, also=quirks.MANIFEST_REFUSED, headers=headers, content=data
            ) as response:
                if response.is_success:
                    self._session.check_digest(response, digest)
                    return
                body = errors.error_body(response)
            if name != digest and quirks.is_half_written(errors.code(response, body)):
                raise errors.retryable(self._session.context, response, body)
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
        """Return the digest of the manifest that a tag names; empty where it can't be read."""
        try:
            url = self._session.url(f"manifests/{tag}")
            return digest_of(self._session.request("GET", url, headers={"Accept": media_type}).content)
        except RegistryError as error:
            log.debug("the manifest of the tag %s can't be read: %s", tag, error.message)
            return ""


def check_push(
    reference: Reference,
    access: RegistryAccess,
    *,
    transport: httpx.BaseTransport | None = None,
    retries: RetryPolicy | None = None,
) -> None:
    """Check that a push will be accepted: begin an upload into its repository, and cancel it.

    Raises:
        RegistryAuthError: The registry refuses the credentials, or this user may not push there.
        RegistryUnreachableError: It can't be reached, or its certificate can't be trusted.
        RegistryError: It answers with another error.
    """
    with closing(RegistrySession(reference, access, verb="push", transport=transport, retries=retries)) as session:
        response = session.request("POST", session.url("blobs/uploads/"))
        location = session.location(response)
        if not location:  # a web page's server may answer everything with 200: containers/image#1421
            raise session.wrong("begins an upload without saying where")
        log.debug("%s accepts pushes to %s", reference.host, reference.repository)
        session.cancel(location)


def push_layout(layout: Path, reference: Reference, access: RegistryAccess) -> str:
    """Upload the one image of an OCI layout that we made, and return its digest.

    The format is github.com/opencontainers/image-spec, image-layout.md.

    Raises:
        RegistryAuthError, RegistryUnreachableError, RegistryError: The push failed; the tag is unchanged.
    """
    entry = Descriptor.from_dict(json.loads((layout / "index.json").read_bytes())["manifests"][0])
    data = (layout / blob_path(entry.digest)).read_bytes()
    manifest = json.loads(data)
    with closing(Uploads(reference, access)) as uploads:
        for document in (*manifest["layers"], manifest["config"]):
            blob = Descriptor.from_dict(document)
            if not uploads.has(blob.digest):
                uploads.send(FileBlob(path=layout / blob_path(blob.digest), known=blob))
        return uploads.put_manifest(reference.tag or entry.digest, data, entry.media_type)
