"""A small read-only client of image registries: manifests, configs and layers, each checked against its digest.

The protocol is that of github.com/opencontainers/distribution-spec; docker's is the same here.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from packager.errors import RegistryError
from packager.models.reference import DOCKER_HUB
from packager.registry import answers
from packager.registry.authfile import login_for
from packager.registry.challenge import ChallengeAuth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from packager.models.reference import Reference

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_ACCEPT = ", ".join((*_MANIFESTS, *_INDEXES))
_API_HOSTS = {DOCKER_HUB: "registry-1.docker.io"}
_MOST_BYTES = 4 << 20  # of a manifest (the specification's own limit) or a config
_TIMEOUT = httpx.Timeout(30.0)
_CHUNK = 1 << 18
_again = retry(
    retry=retry_if_exception_type(httpx.TransportError),
    stop=stop_after_attempt(3),
    wait=wait_exponential(multiplier=0.3),
    reraise=True,
)


@dataclass(frozen=True, kw_only=True)
class LayerBlob:
    """A layer as the manifest tells it: `sha256:…` and the media type."""

    digest: str
    media_type: str


@dataclass(frozen=True, kw_only=True)
class RemoteImage:
    """An image of one platform, found in its registry.

    Attributes:
        digest: `sha256:…` of the platform's own manifest.
        config: The image's config document.
        layers: The layers, the lowest first.
    """

    digest: str
    config: dict[str, Any]
    layers: tuple[LayerBlob, ...]


class Repository:
    """The repository of one reference, for reading. Close it, as with `contextlib.closing`."""

    def __init__(
        self,
        reference: Reference,
        auth_file: Path,
        *,
        insecure_hosts: frozenset[str] = frozenset(),
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Name the reference and the file with the logins; `transport` is what stands for the network in tests.

        Loopback hosts and those in `insecure_hosts` are asked in plain HTTP where they don't answer in HTTPS.
        """
        self._reference = reference
        self._may_be_plain = reference.is_loopback or reference.host in insecure_hosts
        self._base = ""
        self._client = httpx.Client(
            auth=ChallengeAuth(login_for(reference, auth_file)),
            headers={"Accept-Encoding": "identity"},
            follow_redirects=True,
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=not reference.is_loopback,  # the proxy variables
            verify=ssl.create_default_context(),  # the system's authorities, or SSL_CERT_FILE's and SSL_CERT_DIR's
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def image(self, architecture: str) -> RemoteImage:
        """Find the image of an architecture (`amd64`), through an index where there is one.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError: It can't be had.
            RegistryError: The registry failed, or what it gave isn't what the digest says.
        """
        name = self._reference.digest or self._reference.tag or "latest"
        digest, manifest = self._manifest(name)
        if "manifests" in manifest:
            digest, manifest = self._manifest(self._of_platform(manifest["manifests"], architecture))
        try:
            config = str(manifest["config"]["digest"])
            layers = tuple(
                LayerBlob(digest=str(layer["digest"]), media_type=str(layer["mediaType"]))
                for layer in manifest["layers"]
            )
        except (KeyError, TypeError) as error:
            raise self._wrong("has a manifest of a kind that we can't read") from error
        return RemoteImage(digest=digest, config=self._document(self._fetch(f"blobs/{config}", config)), layers=layers)

    @contextmanager
    def layer(self, blob: LayerBlob) -> Iterator[LayerStream]:
        """Give a layer's bytes as they come; at the end of the block the rest is read and the digest checked.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: As for `image`.
        """
        try:
            with self._client.stream("GET", self._url(f"blobs/{blob.digest}")) as response:
                self._check(response)
                stream = LayerStream(response.iter_raw(_CHUNK))
                yield stream
                if stream.digest() != blob.digest:
                    raise self._wrong(f"gave a layer that isn't {blob.digest}")
        except httpx.TransportError as error:
            raise answers.silence(self._reference, error) from error

    def _manifest(self, name: str) -> tuple[str, dict[str, Any]]:
        body = self._fetch(f"manifests/{name}", name if name.startswith("sha256:") else None)
        return f"sha256:{hashlib.sha256(body).hexdigest()}", self._document(body)

    def _of_platform(self, entries: object, architecture: str) -> str:
        for entry in entries if isinstance(entries, list) else []:
            platform = entry.get("platform") or {}
            if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
                return str(entry["digest"])
        error = answers.image_not_found(self._reference)
        raise type(error)(f"{error.message} for linux/{architecture}", hint=error.hint)

    def _document(self, body: bytes) -> dict[str, Any]:
        try:
            document = json.loads(body)
        except ValueError as error:
            raise self._wrong("answered something that is no JSON") from error
        if not isinstance(document, dict):
            raise self._wrong("answered something that is no document")
        return document

    def _fetch(self, path: str, digest: str | None) -> bytes:
        try:
            body = self._read(path)
        except httpx.TransportError as error:
            raise answers.silence(self._reference, error) from error
        if digest is not None and f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
            raise self._wrong(f"gave something that isn't {digest}")
        return body

    @_again
    def _read(self, path: str) -> bytes:
        with self._client.stream("GET", self._url(path), headers={"Accept": _ACCEPT}) as response:
            self._check(response)
            body = b""
            for chunk in response.iter_raw(_CHUNK):
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise self._wrong(f"gave more than {_MOST_BYTES} bytes for {path}")
            return body

    def _check(self, response: httpx.Response) -> None:
        if response.status_code != httpx.codes.OK:
            body = next(response.iter_raw(_CHUNK), b"")
            raise answers.refusal(self._reference, response, body)

    def _url(self, path: str) -> str:
        host = _API_HOSTS.get(self._reference.host, self._reference.host)
        if not self._base:
            self._base = f"{self._scheme(host)}://{host}/v2/{self._reference.path}"
        return f"{self._base}/{path}"

    def _scheme(self, host: str) -> str:
        if self._may_be_plain:
            try:
                self._client.get(f"https://{host}/v2/", auth=None)
            except httpx.TransportError as error:
                return "https" if answers.is_untrusted(error) else "http"
        return "https"

    def _wrong(self, what: str) -> RegistryError:
        return RegistryError(
            f"pull of {self._reference}: the registry {self._reference.host} {what}",
            hint="look into its log, and at what lies between it and this machine (proxies, mirrors)",
        )


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
