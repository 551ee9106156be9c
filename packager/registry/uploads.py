"""Writing to image registries: blobs that aren't there yet, each in one pass and resumable, and manifests last.

The protocol is that of github.com/opencontainers/distribution-spec. A blob goes as one streamed PATCH, which every
registry takes; what a cut connection has left of it is asked for, and only the rest is sent again.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import httpx

from packager.models.image import digest_of
from packager.registry.retries import TransientStatusError
from packager.registry.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.models.image import Descriptor
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.registry.retries import Retries

log = logging.getLogger(__name__)

_BYTES = "application/octet-stream"
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_NO_PATCH = (404, 405, 501)  # a registry that only takes whole blobs
_LOST = (400, 404, 416)  # the upload is no longer known, or it holds something else than we think
_MOST_BEGINS = 5


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


@dataclass
class _Upload:
    """How far an upload is: where it goes on, and what the registry has of it."""

    location: str = ""
    offset: int = 0
    begins: int = 0
    whole: bool = False  # the registry takes no parts


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
            RegistryAuthError, RegistryUnreachableError, RegistryError: The registry refuses any upload.
        """
        if source.host != self.reference.host:
            return False
        url = self._wire.url("blobs/uploads/") + str(httpx.URL(params={"mount": digest, "from": source.path}))
        response = self._wire.request("POST", url, expect=(201, 202))
        if response.status_code == httpx.codes.CREATED:
            return True
        self._cancel(self._wire.join(url, response.headers.get("Location", "")))
        return False

    def send(self, blob: BlobSource) -> Descriptor:
        """Upload a blob, whether the registry has it or not, and return what it is.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It couldn't be uploaded.
        """
        upload = _Upload()

        def attempt() -> Descriptor:
            if not upload.location:
                self._begin(upload)
            try:
                return self._put_whole(blob, upload) if upload.whole else self._send_parts(blob, upload)
            except (httpx.TransportError, TransientStatusError):
                self._find_offset(upload)
                raise

        try:
            return self._wire.retried(attempt, f"upload to {self.reference.path}")
        except BaseException:
            self._cancel(upload.location)
            raise

    def put_manifest(self, name: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or digest, whose blobs are all there; return its digest.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: It couldn't be stored.
        """
        digest = digest_of(data)
        url, headers = self._wire.url(f"manifests/{name}"), {"Content-Type": media_type}
        response = self._wire.request("PUT", url, expect=(201, 200, 202), headers=headers, content=data)
        self._check_digest(response, digest)
        return digest

    def _begin(self, upload: _Upload) -> None:
        upload.begins += 1
        url = self._wire.url("blobs/uploads/")
        with self._wire.stream("POST", url, expect=(202,), headers={"Content-Length": "0"}) as response:
            upload.location, upload.offset = self._next(url, response, "", needed=True), 0

    def _send_parts(self, blob: BlobSource, upload: _Upload) -> Descriptor:
        known = blob.descriptor()
        headers = {"Content-Type": _BYTES}
        if upload.offset:
            log.info("the upload to %s goes on at byte %d", self.reference.repository, upload.offset)
            end = str(known.size - 1) if known else ""
            headers["Content-Range"] = f"{upload.offset}-{end}" if known else f"{upload.offset}-"
        if known is not None:
            headers["Content-Length"] = str(known.size - upload.offset)
        if known is None or upload.offset < known.size:
            content = _after(blob.stream(), upload.offset)
            expect = (202, *_NO_PATCH, *_LOST)
            with self._wire.stream("PATCH", upload.location, expect=expect, headers=headers, content=content) as answer:
                if answer.status_code in _NO_PATCH and upload.begins == 1 and not upload.offset:
                    return self._fall_back(blob, upload)
                if answer.status_code in _LOST:
                    return self._begin_again(blob, upload)
                upload.location = self._next(upload.location, answer, upload.location)
        described = blob.descriptor()
        if described is None:
            raise self._wire.wrong("ended an upload before all of it was sent")
        upload.offset = described.size
        return self._finish(described, upload)

    def _finish(self, described: Descriptor, upload: _Upload) -> Descriptor:
        url = str(httpx.URL(upload.location).copy_add_param("digest", described.digest))
        with self._wire.stream("PUT", url, expect=(201, *_LOST), headers={"Content-Length": "0"}) as response:
            if response.status_code in _LOST:
                if not self.has(described.digest):  # what was sent before a cut may have been taken
                    response.read()
                    reason = " ".join(response.text.split())[:200]
                    raise self._wire.wrong(f"doesn't accept the blob {described.digest} that was sent: {reason}")
            else:
                self._check_digest(response, described.digest)
        upload.location = ""
        return described

    def _put_whole(self, blob: BlobSource, upload: _Upload) -> Descriptor:
        """Send a blob in the one request that every registry must take; its digest must be known before."""
        described = blob.descriptor()
        if described is None:
            for _chunk in blob.stream():
                pass
            described = blob.descriptor()
        if described is None:
            raise self._wire.wrong("was to be sent a blob that nobody knows")
        url = str(httpx.URL(upload.location).copy_add_param("digest", described.digest))
        headers = {"Content-Type": _BYTES, "Content-Length": str(described.size)}
        with self._wire.stream("PUT", url, expect=(201,), headers=headers, content=blob.stream()) as response:
            self._check_digest(response, described.digest)
        upload.location = ""
        return described

    def _fall_back(self, blob: BlobSource, upload: _Upload) -> Descriptor:
        log.debug("%s takes no parts of a blob; it's sent whole", self.reference.host)
        upload.whole = True
        self._begin(upload)
        return self._put_whole(blob, upload)

    def _begin_again(self, blob: BlobSource, upload: _Upload) -> Descriptor:
        if upload.begins >= _MOST_BEGINS:
            raise self._wire.wrong(f"has lost an upload {upload.begins} times")
        self._begin(upload)
        return self._send_parts(blob, upload)

    def _find_offset(self, upload: _Upload) -> None:
        """Ask what the registry has; where it doesn't say, the upload begins anew."""
        location, upload.location = upload.location, ""
        if not location or upload.whole:
            return
        try:
            with self._wire.stream("GET", location, expect=(204, 200)) as response:
                had = _RANGE.fullmatch(response.headers.get("Range", ""))
                if had:
                    upload.location = self._next(location, response, location)
                    upload.offset = int(had[1]) + 1 if had[1] != "0" else 0
        except Exception as error:  # noqa: BLE001  (what counts is the failure that led here)
            log.debug("the upload's state can't be asked for: %s", error)

    def _cancel(self, location: str) -> None:
        if location:
            try:
                with self._wire.stream("DELETE", location, expect=range(200, 500)):
                    pass
            except Exception as error:  # noqa: BLE001  (the registry forgets it in time)
                log.debug("an upload can't be called off: %s", error)

    def _next(self, url: str, response: httpx.Response, default: str, *, needed: bool = False) -> str:
        location = response.headers.get("Location", "")
        if needed and not location:
            raise self._wire.wrong("begins an upload without saying where")
        return self._wire.join(url, location) if location else default

    def _check_digest(self, response: httpx.Response, digest: str) -> None:
        given = response.headers.get("Docker-Content-Digest", digest)
        if given != digest:
            raise self._wire.wrong(f"stored {given[:80]} where {digest} was sent")


def _after(chunks: Iterator[bytes], offset: int) -> Iterator[bytes]:
    """Give the chunks without the first `offset` bytes."""
    for chunk in chunks:
        if offset >= len(chunk):
            offset -= len(chunk)
        elif offset:
            yield chunk[offset:]
            offset = 0
        else:
            yield chunk
