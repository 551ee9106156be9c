"""How registries are reached: logins, certificates, mirrors, and which of them speak plain HTTP."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import httpx

from packager.errors import UsageError
from packager.models.reference import LOCAL_STORAGE, Reference
from packager.registry.keychain import Keychain
from packager.system.proxies import ProxyTransport
from packager.system.retries import is_plain_http_answer, is_tls_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packager.settings import Settings

_PROBE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class ClientCertificate:
    """A client certificate and its key: two PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Certificates, mirrors and plain HTTP: the same rules for every registry and every engine.

    Attributes:
        ca_file: A PEM file of authorities trusted besides the system's.
        client_certificates: The client certificate for each host that asks for one.
        insecure_hosts: Hosts that may be reached in plain HTTP; loopback hosts always may.
        mirrors: Pairs of a host and the `host/path` of a mirror, in the order in which they are asked.
        retry_seconds: How long a request that fails with a retryable error is retried.
    """

    ca_file: Path | None = None
    client_certificates: Mapping[str, ClientCertificate] = field(default_factory=lambda: MappingProxyType({}))
    insecure_hosts: frozenset[str] = frozenset()
    mirrors: tuple[tuple[str, str], ...] = ()
    retry_seconds: float = 60.0
    _contexts: dict[str, ssl.SSLContext] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Trust:
        """Read the settings, and check that every file can be used.

        Raises:
            UsageError: A pair can't be read, or a file is missing or holds no certificate or key.
        """
        trust = cls(
            ca_file=settings.ca_file,
            client_certificates=MappingProxyType(dict(_read_client_certificates(settings.client_certificates))),
            insecure_hosts=frozenset(
                _host(host, "PACKAGER_INSECURE_REGISTRIES") for host in settings.insecure_registries
            ),
            mirrors=tuple(_read_mirrors(settings.registry_mirrors)),
            retry_seconds=settings.registry_retry_seconds,
        )
        for host in ("", *trust.client_certificates):
            trust.ssl_context(host)
        return trust

    def ssl_context(self, host: str) -> ssl.SSLContext:
        """Return the TLS settings for a host: the system's authorities (or SSL_CERT_FILE's) and our own.

        Raises:
            UsageError: A file can't be used.
        """
        key = host if host in self.client_certificates else ""
        if key not in self._contexts:  # reading the authorities takes long
            self._contexts[key] = self._make_context(host)
        return self._contexts[key]

    def _make_context(self, host: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.ca_file is not None:
            try:
                context.load_verify_locations(cafile=self.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise _unusable("PACKAGER_CA_FILE", self.ca_file, "certificate", error) from error
        shown = self.client_certificates.get(host)
        if shown is not None:
            try:
                context.load_cert_chain(shown.certificate, shown.key, password="")
            except (OSError, ssl.SSLError) as error:
                what = f"{shown.certificate} with {shown.key}"
                raise _unusable(
                    "PACKAGER_CLIENT_CERTIFICATES", what, "certificate with its unlocked key", error
                ) from error
        return context

    def may_be_plain(self, reference: Reference) -> bool:
        """Tell whether a registry may be reached in plain HTTP."""
        return reference.is_loopback or reference.host in self.insecure_hosts

    def endpoints(self, reference: Reference) -> tuple[Reference, ...]:
        """Return the references of an image at its host's mirrors in order, then at the host itself."""
        mirrors = [mirror for host, mirror in self.mirrors if host == reference.host]
        return (*(_at(mirror, reference) for mirror in mirrors), reference)


@dataclass(frozen=True, kw_only=True)
class RegistryAccess:
    """How the registries of a run are reached.

    Attributes:
        keychain: The logins; without one, access is anonymous.
        trust: Certificates, mirrors, and which hosts may speak plain HTTP.
        insecure_hosts: Hosts that are reached in plain HTTP: those that may be, and don't answer in HTTPS.
    """

    keychain: Keychain = field(default_factory=Keychain)
    trust: Trust = field(default_factory=Trust)
    insecure_hosts: frozenset[str] = frozenset()


def find_insecure_hosts(
    references: Iterable[Reference], trust: Trust, *, transport: httpx.BaseTransport | None = None
) -> frozenset[str]:
    """Find the hosts that speak plain HTTP among those that may: the others are never asked.

    A host whose certificate isn't trusted speaks HTTPS; the first request to it reports the certificate.
    """
    asked: dict[str, Reference] = {}
    for reference in references:
        for endpoint in trust.endpoints(reference):
            if trust.may_be_plain(endpoint) and endpoint.host != LOCAL_STORAGE:
                asked[endpoint.host] = endpoint
    return frozenset(host for host, reference in asked.items() if _is_plain(reference, trust, transport))


def _is_plain(reference: Reference, trust: Trust, transport: httpx.BaseTransport | None) -> bool:
    """Tell whether a host speaks plain HTTP; a host that answers in neither way counts as unreachable in HTTPS."""
    with httpx.Client(
        transport=transport or ProxyTransport(trust.ssl_context(reference.host)),
        timeout=_PROBE_SECONDS,
        trust_env=False,
    ) as client:
        failure = _probe(client, f"https://{reference.host}/v2/")
        if failure is None:
            return False
        if is_plain_http_answer(failure) or is_tls_error(failure):
            return is_plain_http_answer(failure)
        return _probe(client, f"http://{reference.host}/v2/") is None


def _probe(client: httpx.Client, url: str) -> httpx.TransportError | None:
    """Return why no answer came; None where one came, whatever it says."""
    try:
        with client.stream("GET", url):
            return None
    except httpx.TransportError as error:
        return error


def _at(mirror: str, reference: Reference) -> Reference:
    host, _, path = mirror.partition("/")
    path = f"{path}/{reference.path}" if path else reference.path
    return Reference(host=host, path=path, tag=reference.tag, digest=reference.digest)


def _host(word: str, setting: str) -> str:
    """Check that a setting's word is a registry's host as image names have it."""
    try:
        if Reference.parse(f"{word}/any/image").host == word:
            return word
    except ValueError:
        pass
    raise UsageError(
        f"{setting}: {word!r} is not the host of a registry", hint="write HOST or HOST:PORT, without a scheme or path"
    )


def _read_mirrors(pairs: Iterable[str]) -> Iterator[tuple[str, str]]:
    setting = "PACKAGER_REGISTRY_MIRRORS"
    for pair in pairs:
        host, _, mirror = pair.partition("=")
        mirror = mirror.rstrip("/")
        try:  # its own path precedes the image's
            is_one = Reference.parse(f"{mirror}/any/image").repository == f"{mirror}/any/image"
        except ValueError:
            is_one = False
        if not is_one:
            raise UsageError(
                f"{setting}: {mirror!r} in {pair!r} doesn't name a registry",
                hint="write HOST=MIRROR, such as docker.io=mirror.example.com/dockerhub",
            )
        yield _host(host, setting), mirror


def _read_client_certificates(pairs: Iterable[str]) -> Iterator[tuple[str, ClientCertificate]]:
    setting = "PACKAGER_CLIENT_CERTIFICATES"
    for pair in pairs:
        host, _, files = pair.partition("=")
        certificate, _, key = files.partition(":")
        if not (host and certificate and key):
            raise UsageError(f"{setting}: {pair!r} is not a pair", hint="write HOST=CERTIFICATE_FILE:KEY_FILE")
        yield _host(host, setting), ClientCertificate(certificate=Path(certificate), key=Path(key))


def _unusable(setting: str, file: object, kind: str, error: Exception) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UsageError(f"{setting}: {file} can't be used: {reason}", hint=f"name a readable PEM file with a {kind}")
