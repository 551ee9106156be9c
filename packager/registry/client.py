"""Reading from image registries: manifests, configs and layers, each checked against its digest."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from packager.errors import ImageNotFoundError, RegistryError, RegistryUnreachableError
from packager.models.image import OCI_MANIFEST, Descriptor, RemoteImage, checked_digest, digest_of
from packager.registry import errors, quirks
from packager.registry.blobs import LayerStream, skip_bytes
from packager.registry.errors import limit_body
from packager.registry.transport import CHUNK, RegistrySession
from packager.system.retries import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess

log = logging.getLogger(__name__)

_MAX_BYTES = 4 << 20  # of a manifest (the specification's own limit) or a config
_MIRROR_SECONDS = 5.0
_MALFORMED = (  # raised by reading a malformed document; UnicodeError is a ValueError
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    httpx.DecodingError,
    httpx.InvalidURL,
)


class Repository:
    """The repository of one reference, for reading. Close it, as with `contextlib.closing`."""

    def __init__(
        self,
        reference: Reference,
        access: RegistryAccess,
        *,
        transport: httpx.BaseTransport | None = None,
        retries: RetryPolicy | None = None,
        fallback: Callable[[], RegistrySession] | None = None,
    ) -> None:
        """Name the reference, how its registry is reached, and the session that takes over when a layer fails."""
        self.reference = reference
        self._fallback = fallback
        self._session = RegistrySession(reference, access, transport=transport, retries=retries)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def image(self, architecture: str) -> RemoteImage:
        """Find the image for an architecture (`amd64`), in an index where there is one.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError: It can't be had.
            RegistryError: The registry failed, or its document doesn't have the digest.
        """
        try:
            return self._image(architecture)
        except _MALFORMED as error:
            raise self._session.wrong("has a manifest or a config that can't be read") from error

    def _image(self, architecture: str) -> RemoteImage:
        name = self.reference.digest or self.reference.tag or "latest"
        digest, manifest = self.manifest(name)
        if "manifests" in manifest:
            digest, manifest = self.manifest(self._of_platform(manifest["manifests"], architecture))
        layers = tuple(Descriptor.from_dict(layer) for layer in manifest["layers"])
        config = self.document(Descriptor.from_dict(manifest["config"]))
        _check_config(config)
        return RemoteImage(
            digest=digest, media_type=str(manifest.get("mediaType") or OCI_MANIFEST), config=config, layers=layers
        )

    def manifest(self, name: str) -> tuple[str, dict[str, Any]]:
        """Return the digest and the document of a manifest or index, by tag or digest.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: As for `image`.
        """
        body = self._fetch(f"manifests/{name}", name if name.startswith("sha256:") else None)
        return digest_of(body), self._document(body)

    def document(self, blob: Descriptor) -> dict[str, Any]:
        """Return a small JSON blob.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: As for `image`.
        """
        return self._document(self._fetch(f"blobs/{blob.digest}", blob.digest))

    def size(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, -1 if unknown; None where the repository doesn't have the blob.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: The registry can't be asked.
        """
        response = self._session.request("HEAD", self._session.url(f"blobs/{digest}"), also=(404,))
        if not response.is_success:
            return None
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isascii() and length.isdigit() else -1

    @contextmanager
    def layer(self, blob: Descriptor) -> Iterator[LayerStream]:
        """Give a layer's bytes as they come; at the end of the block the rest is read and the digest checked.

        Raises:
            ImageNotFoundError: It isn't there.
            RegistryAuthError, RegistryUnreachableError, RegistryError: As for `image`.
        """
        reader = _BlobReader(self._session, blob, self._fallback)
        try:
            with closing(reader):
                stream = LayerStream(iter(reader))
                yield stream
                if stream.digest() != blob.digest:
                    raise reader.session.wrong(f"gave a layer whose digest isn't {blob.digest}")
        except ImageNotFoundError as error:
            reference = reader.session.reference
            raise ImageNotFoundError(
                f"the registry {reference.host} has no layer {blob.digest} of {reference}",
                hint="push that image again",
            ) from error

    def _of_platform(self, entries: object, architecture: str) -> str:
        for entry in entries if isinstance(entries, list) else []:
            platform = entry.get("platform") or {}
            if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
                return checked_digest(entry["digest"])
        error = errors.image_not_found(self.reference)
        raise type(error)(f"{error.message} for linux/{architecture}", hint=error.hint)

    def _document(self, body: bytes) -> dict[str, Any]:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._session.wrong("answered with something other than JSON") from error
        if not isinstance(document, dict):
            raise self._session.wrong("answered with JSON that is not an object")
        return document

    def _fetch(self, path: str, digest: str | None) -> bytes:
        body = self._session.retried(lambda: self._read(path), f"GET {path}")
        if digest is not None and digest_of(body) != digest:
            raise self._session.wrong(f"gave a document whose digest isn't {digest}")
        return body

    def _read(self, path: str) -> bytes:
        headers = quirks.accept_headers(path)
        with self._session.stream("GET", self._session.url(path), headers=headers) as response:
            limit_body(response, _MAX_BYTES + 1)
            body = b"".join(response.iter_raw(CHUNK))
            if len(body) > _MAX_BYTES:
                raise self._session.wrong(f"gave more than {_MAX_BYTES} bytes for {path}")
            return body


@contextmanager
def find_image(
    reference: Reference,
    access: RegistryAccess,
    architecture: str,
    *,
    transport: httpx.BaseTransport | None = None,
    retries: RetryPolicy | None = None,
) -> Iterator[tuple[Repository, RemoteImage]]:
    """Give an image and the repository that has it: at a mirror of its host, else at the host itself.

    Raises:
        ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: The host itself can't give it.
    """
    *mirrors, own = access.trust.endpoints(reference)
    few = RetryPolicy(seconds=min(access.trust.retry_seconds, _MIRROR_SECONDS))  # the host itself is still left
    for mirror in mirrors:
        repository = Repository(
            mirror,
            access,
            transport=transport,
            retries=retries or few,
            fallback=lambda: RegistrySession(own, access, transport=transport, retries=retries),
        )
        try:
            image = repository.image(architecture)
        except (ImageNotFoundError, RegistryError, RegistryUnreachableError) as error:
            repository.close()
            log.info("the mirror %s can't give %s: %s", mirror.host, reference, error.message)
        else:
            try:
                yield repository, image
            finally:
                repository.close()
            return
    repository = Repository(own, access, transport=transport, retries=retries)
    try:
        yield repository, repository.image(architecture)
    finally:
        repository.close()


def _check_config(document: dict[str, Any]) -> None:
    """Check the types of a config's parts that we read.

    Raises:
        ValueError: One is wrong.
    """
    config, rootfs = document.get("config") or {}, document.get("rootfs") or {}
    if not isinstance(config, dict) or not isinstance(rootfs, dict):
        raise ValueError("its config or its rootfs is not an object")  # noqa: TRY004  (the text is wrong, not our type)
    env, history = config.get("Env") or [], document.get("history") or []
    if not isinstance(env, list) or not all(isinstance(each, str) for each in env):
        raise ValueError("its Env is not a list of strings")
    if not isinstance(history, list) or not isinstance(rootfs.get("diff_ids") or [], list):
        raise ValueError("its history or its diff_ids are not a list")  # noqa: TRY004


class _BlobReader:
    """The chunks of a blob as they come; after a cut connection the rest, at last from the fallback."""

    def __init__(
        self, session: RegistrySession, blob: Descriptor, fallback: Callable[[], RegistrySession] | None
    ) -> None:
        self.session = session
        self._fallback = fallback
        self._path = f"blobs/{blob.digest}"
        self._sessions = ExitStack()
        self._had = 0
        self._stack = ExitStack()
        self._chunks: Iterator[bytes] | None = None

    def close(self) -> None:
        self._stack.close()
        self._sessions.close()

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._chunk():
            self._had += len(chunk)
            yield chunk

    def _chunk(self) -> bytes:
        try:
            return self.session.retried(self._next, f"GET {self._path}")
        except (ImageNotFoundError, RegistryError, RegistryUnreachableError) as error:
            if self._fallback is None:
                raise
            log.info("the mirror %s can't give %s: %s", self.session.reference.host, self._path, error.message)
        self._stack.close()
        self._chunks = None
        self.session = self._sessions.enter_context(closing(self._fallback()))
        self._fallback = None
        return self._chunk()

    def _next(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = self._begin()
            return next(self._chunks, b"")
        except httpx.TransportError:
            self._chunks = None
            self._stack.close()
            raise

    def _begin(self) -> Iterator[bytes]:
        headers = {"Range": f"bytes={self._had}-"} if self._had else {}
        also = (416,) if self._had else ()
        response = self._stack.enter_context(
            self.session.stream("GET", self.session.url(self._path), also=also, headers=headers)
        )
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:  # cut off at its very end
            return iter(())
        chunks = response.iter_raw(CHUNK)
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            return chunks
        return skip_bytes(chunks, self._had)
