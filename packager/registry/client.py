"""Reading from image registries: manifests, configs and layers, each checked against its digest."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from packager.errors import ImageNotFoundError, RegistryError, RegistryUnreachableError
from packager.models.image import INDEXES, MANIFESTS, OCI_MANIFEST, Descriptor, RemoteImage, checked_digest, digest_of
from packager.registry import errors
from packager.registry.response_limits import bound
from packager.registry.retries import Retries
from packager.registry.transport import CHUNK, RegistrySession, skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess

log = logging.getLogger(__name__)

_ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
_MOST_BYTES = 4 << 20  # of a manifest (the specification's own limit) or a config
_MIRROR_SECONDS = 5.0
_GARBAGE = (  # what reading something raises that isn't what it should be; UnicodeError is a ValueError
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
        retries: Retries | None = None,
        next_place: Callable[[], RegistrySession] | None = None,
    ) -> None:
        """Name the reference, how its registry is reached, and where its layers are when it fails in the middle."""
        self.reference = reference
        self._next_place = next_place
        self._session = RegistrySession(reference, access, transport=transport, retries=retries)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def image(self, architecture: str) -> RemoteImage:
        """Find the image of an architecture (`amd64`), through an index where there is one.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError: It can't be had.
            RegistryError: The registry failed, or what it gave isn't what the digest says.
        """
        try:
            return self._image(architecture)
        except _GARBAGE as error:
            raise self._session.wrong("has a manifest or a config of a kind that we can't read") from error

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
        """Return a small blob that is JSON.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: As for `image`.
        """
        return self._document(self._fetch(f"blobs/{blob.digest}", blob.digest))

    def size(self, digest: str) -> int | None:
        """Return how many bytes a blob has; None where the repository hasn't got it.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: The registry can't say.
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
        reading = _Reading(self._session, blob, self._next_place)
        try:
            with closing(reading):
                stream = LayerStream(iter(reading))
                yield stream
                if stream.digest() != blob.digest:
                    raise reading.wire.wrong(f"gave a layer that isn't {blob.digest}")
        except ImageNotFoundError as error:
            place = reading.wire.reference
            raise ImageNotFoundError(
                f"the registry {place.host} has no layer {blob.digest} of {place}",
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
            raise self._session.wrong("answered something that is no JSON") from error
        if not isinstance(document, dict):
            raise self._session.wrong("answered something that is no document")
        return document

    def _fetch(self, path: str, digest: str | None) -> bytes:
        body = self._session.retried(lambda: self._read(path), f"GET {path}")
        if digest is not None and digest_of(body) != digest:
            raise self._session.wrong(f"gave something that isn't {digest}")
        return body

    def _read(self, path: str) -> bytes:
        # Artifactory refuses an Accept header that doesn't fit: dotnet/sdk-container-builds#382
        headers = {"Accept": _ACCEPT} if path.startswith("manifests/") else {}
        with self._session.stream("GET", self._session.url(path), headers=headers) as response:
            bound(response, _MOST_BYTES + 1)
            body = b"".join(response.iter_raw(CHUNK))
            if len(body) > _MOST_BYTES:
                raise self._session.wrong(f"gave more than {_MOST_BYTES} bytes for {path}")
            return body


@contextmanager
def find_image(
    reference: Reference,
    access: RegistryAccess,
    architecture: str,
    *,
    transport: httpx.BaseTransport | None = None,
    retries: Retries | None = None,
) -> Iterator[tuple[Repository, RemoteImage]]:
    """Give an image and the repository it was found in: a mirror of its host, else the host itself.

    Raises:
        ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: The host itself can't give it.
    """
    *mirrors, own = access.trust.endpoints(reference)
    few = Retries(seconds=min(access.trust.retry_seconds, _MIRROR_SECONDS))  # another place is left to ask
    for place in mirrors:
        repository = Repository(
            place,
            access,
            transport=transport,
            retries=retries or few,
            next_place=lambda: RegistrySession(own, access, transport=transport, retries=retries),
        )
        try:
            image = repository.image(architecture)
        except (ImageNotFoundError, RegistryError, RegistryUnreachableError) as error:
            repository.close()
            log.info("the mirror %s can't give %s: %s", place.host, reference, error.message)
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
    """See that a config's parts are what all who read it take them for.

    Raises:
        ValueError: They aren't.
    """
    config, rootfs = document.get("config") or {}, document.get("rootfs") or {}
    if not isinstance(config, dict) or not isinstance(rootfs, dict):
        raise ValueError("its config or its rootfs is no object")  # noqa: TRY004  (the text is wrong, not our type)
    env, history = config.get("Env") or [], document.get("history") or []
    if not isinstance(env, list) or not all(isinstance(each, str) for each in env):
        raise ValueError("its Env is no list of texts")
    if not isinstance(history, list) or not isinstance(rootfs.get("diff_ids") or [], list):
        raise ValueError("its history or its diff_ids are no list")  # noqa: TRY004


class _Reading:
    """The chunks of a blob as they come; after a cut, those that are left, from the next place at the end."""

    def __init__(
        self, session: RegistrySession, blob: Descriptor, next_place: Callable[[], RegistrySession] | None
    ) -> None:
        self.wire = session
        self._next_place = next_place
        self._path = f"blobs/{blob.digest}"
        self._places = ExitStack()
        self._had = 0
        self._stack = ExitStack()
        self._chunks: Iterator[bytes] | None = None

    def close(self) -> None:
        self._stack.close()
        self._places.close()

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._chunk():
            self._had += len(chunk)
            yield chunk

    def _chunk(self) -> bytes:
        try:
            return self.wire.retried(self._next, f"GET {self._path}")
        except (ImageNotFoundError, RegistryError, RegistryUnreachableError) as error:
            if self._next_place is None:
                raise
            log.info("the mirror %s can't give %s: %s", self.wire.reference.host, self._path, error.message)
        self._stack.close()
        self._chunks = None
        self.wire = self._places.enter_context(closing(self._next_place()))
        self._next_place = None
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
            self.wire.stream("GET", self.wire.url(self._path), also=also, headers=headers)
        )
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:  # cut off at its very end
            return iter(())
        chunks = response.iter_raw(CHUNK)
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            return chunks
        return skipped(chunks, self._had)


class LayerStream:
    """The bytes of a layer, to be read once; what was read is hashed."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        """Take the chunks."""
        self._chunks = chunks
        self._held = b""
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, and none at the end only."""
        while not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._hash.update(chunk)
            self._held = chunk
        given, self._held = self._held[:size], self._held[size:]
        return given

    def digest(self) -> str:
        """Read what is left, and return the digest of everything."""
        while self.read(1 << 30):
            pass
        return f"sha256:{self._hash.hexdigest()}"
