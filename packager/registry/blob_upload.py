"""One blob's upload into a registry: begun, sent, cut off, resumed, finished or canceled.

The protocol is that of github.com/opencontainers/distribution-spec. A blob is sent as one streamed PATCH, which every
registry accepts; after a cut connection the registry is asked how much it has, and only the rest is sent again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx

from packager.registry import quirks
from packager.registry.blobs import skip_bytes
from packager.registry.errors import cause
from packager.system.retries import RetryableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.models.image import Descriptor
    from packager.registry.blobs import BlobSource
    from packager.registry.transport import RegistrySession

log = logging.getLogger(__name__)

_BYTES = "application/octet-stream"
_MAX_BEGINS = 5


@dataclass(frozen=True, kw_only=True)
class _Rest:
    """A blob's bytes from an offset on, for each iteration: a request is sent twice when its token has expired."""

    blob: BlobSource
    offset: int

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes."""
        return skip_bytes(self.blob.stream(), self.offset)


class BlobUpload:
    """The upload of one blob: `attempt` it until it succeeds or fails for good, then `cancel` the unfinished rest."""

    def __init__(self, session: RegistrySession, blob: BlobSource) -> None:
        """Name the repository's session and the blob."""
        self._session = session
        self._blob = blob
        self._location = ""
        self._offset = 0  # how many bytes the registry has
        self._resumed = False  # they came in several requests, so their sum may be wrong
        self._begins = 0
        self._whole = False  # the registry takes no parts
        self._sent: Descriptor | None = None  # the whole blob was sent; its response may be missing
        self._open: list[str] = []  # the locations of unfinished uploads

    def attempt(self) -> Descriptor:
        """Send the blob, or the rest of it after the last attempt.

        Raises:
            RetryableError, httpx.TransportError: Another attempt may succeed.
            RegistryAuthError, RegistryError: The upload failed for good.
        """
        if self._sent is not None and not self._location and self._is_there(self._sent):
            return self._sent
        if not self._location:
            self._begin()
        try:
            return self._put_whole() if self._whole else self._send_parts()
        except (httpx.TransportError, RetryableError):
            self._find_offset()
            raise

    def cancel(self) -> None:
        """Cancel what was begun and not finished."""
        while self._open and self._session.cancel(self._open.pop()):
            pass

    def _begin(self) -> None:
        url = self._session.url("blobs/uploads/")
        with self._session.stream("POST", url, headers={"Content-Length": "0"}) as response:
            location = self._session.location(response)
        if not location:
            raise self._session.wrong("begins an upload without saying where")
        self._begins += 1
        self._location, self._offset, self._resumed = location, 0, False
        self._open.append(self._location)

    def _send_parts(self) -> Descriptor:
        known = self._blob.descriptor()
        if known is None or self._offset < known.size:
            self._resumed = self._offset > 0
            headers = {"Content-Type": _BYTES, **self._range_headers(known)}
            content = _Rest(blob=self._blob, offset=self._offset)
            also = (*quirks.NO_PATCH, *quirks.UPLOAD_LOST)
            with self._session.stream("PATCH", self._location, also=also, headers=headers, content=content) as answer:
                if answer.status_code in quirks.NO_PATCH and self._begins == 1 and not self._offset:
                    return self._fall_back()
                if answer.status_code in quirks.UPLOAD_LOST:
                    return self._begin_again(answer)
                if not answer.is_success:
                    raise self._session.unexpected(answer)
                self._move(answer)
        described = self._described()
        self._offset = described.size
        return self._finish(described)

    def _range_headers(self, known: Descriptor | None) -> dict[str, str]:
        if self._offset:
            log.info("the upload to %s continues at byte %d", self._session.reference.repository, self._offset)
        if known is None:  # sent in chunks, whose end is the blob's
            return {}
        headers = {"Content-Length": str(known.size - self._offset)}
        return {**headers, "Content-Range": f"{self._offset}-{known.size - 1}"} if self._offset else headers

    def _finish(self, described: Descriptor) -> Descriptor:
        self._sent = described
        url = self._finishing(described.digest)
        with self._session.stream("PUT", url, also=quirks.UPLOAD_LOST, headers={"Content-Length": "0"}) as response:
            if response.status_code in quirks.UPLOAD_LOST:
                if not self._is_there(described):  # what was sent before a cut may have been taken
                    if response.status_code in quirks.UPLOAD_UNKNOWN or self._resumed:
                        return self._begin_again(response)
                    raise self._session.wrong(f"doesn't accept the blob {described.digest}: {cause(response)}")
            else:
                self._session.check_digest(response, described.digest)
        return self._finished(described)

    def _put_whole(self) -> Descriptor:
        """Send the blob in the one request that every registry must take; its digest must be known before."""
        if self._blob.descriptor() is None:
            for _chunk in self._blob.stream():
                pass
        described = self._described()
        self._sent = described
        url = self._finishing(described.digest)
        headers = {"Content-Type": _BYTES, "Content-Length": str(described.size)}
        content = _Rest(blob=self._blob, offset=0)
        with self._session.stream("PUT", url, headers=headers, content=content) as response:
            self._session.check_digest(response, described.digest)
        return self._finished(described)

    def _finishing(self, digest: str) -> str:
        """Return the URL that finishes the upload; the registry's own parameters in it stay unchanged."""
        return f"{self._location}{'&' if '?' in self._location else '?'}digest={quote(digest)}"

    def _finished(self, described: Descriptor) -> Descriptor:
        self._open.remove(self._location)
        return described

    def _fall_back(self) -> Descriptor:
        log.debug("%s takes no parts of a blob; it's sent whole", self._session.reference.host)
        self._whole = True
        self._begin()
        return self._put_whole()

    def _begin_again(self, answer: httpx.Response) -> Descriptor:
        if self._begins >= _MAX_BEGINS:
            raise self._session.wrong(f"has lost an upload {self._begins} times: {cause(answer)}")
        self._begin()
        return self._send_parts()

    def _find_offset(self) -> None:
        """Ask how many bytes the registry has; where it doesn't say, the next attempt starts over."""
        location, self._location = self._location, ""
        if not location or self._whole:
            return
        known = self._blob.descriptor()
        try:
            with self._session.stream("GET", location) as response:
                offset = quirks.stored_bytes(response.headers)
                if offset is not None and (known is None or offset <= known.size):
                    self._location, self._offset = location, offset
                    self._move(response)
        except Exception as error:  # noqa: BLE001  (the caller raises the failure that led here)
            self._location = ""
            log.debug("the upload's state can't be asked for: %s", type(error).__name__)

    def _move(self, response: httpx.Response) -> None:
        """Continue at the URL that the registry names, else at the same one."""
        if moved := self._session.location(response):
            self._open[self._open.index(self._location)] = moved
            self._location = moved

    def _described(self) -> Descriptor:
        described = self._blob.descriptor()
        if described is None:
            raise self._session.wrong("ended an upload before all of it was sent")
        return described

    def _is_there(self, described: Descriptor) -> bool:
        url = self._session.url(f"blobs/{described.digest}")
        with self._session.stream("HEAD", url, also=quirks.NO_ANSWER) as response:
            return response.is_success
