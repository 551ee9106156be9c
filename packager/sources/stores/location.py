"""The location of a model: a path, or an object in a store. Parsing only, no requests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import httpx

from packager.errors import RequestError, UsageError
from packager.sources.stores.store_secrets import private_key, secrets_of_query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packager.models.connection import Connection
    from packager.models.packaging import PackagingManifest

SUPPORTED = "a zip, a folder, s3://bucket/key, gs://bucket/key, az://container/key or https://host/path"
# The platform's own documents write gcs:// and gsc://, and Azure's URIs without any scheme.
SCHEMES = {
    "s3": "s3",
    "gs": "gs",
    "gcs": "gs",
    "gsc": "gs",
    "az": "az",
    "azure": "az",
    "abfs": "az",
    "abfss": "az",
    "http": "http",
    "https": "https",
}
HOLDER_SCHEMES = {"s3": "s3", "gcs": "gs", "azureblob": "az"}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._$-]{0,221}")
_DIGEST = re.compile(r"#sha256=(.*)$", re.DOTALL)
_HOST_OF_DFS = re.compile(r"([a-z0-9]+)\.(?:dfs|blob)\.core\.[a-z0-9.]+")
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


@dataclass(frozen=True, kw_only=True)
class RemoteModel:
    """A model archive in a store.

    Attributes:
        scheme: s3, gs, az, https or http.
        bucket: The bucket or container; of a web server, its host with the port.
        key: The object's key; of a web server, the path. Never with a query.
        account: Azure's storage account, where the location names it.
        query: The query of a URL; a secret, as it may be a signature.
        sha256: The expected digest of the archive; 64 hexadecimal characters.
        connection: The connection with the credentials; without one, the environment's own are used.
    """

    scheme: str
    bucket: str
    key: str
    account: str = ""
    query: str = field(default="", repr=False)
    sha256: str | None = None
    connection: Connection | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Return the location without its query."""
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The file's name."""
        return unquote(self.key).rstrip("/").rpartition("/")[2] or "model"

    @property
    def is_web(self) -> bool:
        """Whether it is at a web server, not in an object store."""
        return self.scheme in ("https", "http")

    @property
    def url(self) -> str:
        """The whole URL at a web server; it may hold a signature."""
        return urlunsplit((self.scheme, self.bucket, f"/{self.key}", self.query, ""))

    def secrets(self) -> list[str]:
        """Return the secrets to redact: the query, and the connection's secrets with their parts."""
        if self.connection is None:
            return secrets_of_query(self.query)
        key = self.connection.spec.key_secret.get_secret_value()
        return [*self.connection.spec.secrets(), *secrets_of_query(urlsplit(key).query), *private_key(key)]

    def opened_by(self, connections: Iterable[Connection]) -> RemoteModel:
        """Return the location with the connection whose URI is its longest prefix, if there is one."""
        matching = []
        for connection in connections:
            if HOLDER_SCHEMES.get(connection.spec.type) != self.scheme:
                continue
            bucket, prefix, _ = _holder_place(connection)
            if bucket == self.bucket and (not prefix or self.key.startswith(f"{prefix}/")):
                matching.append((len(prefix), connection))
        if not matching:
            return self
        return replace(self, connection=max(matching, key=lambda pair: pair[0])[1])


def is_loopback(host: str) -> bool:
    """Tell whether a host, without its port, is the loopback interface."""
    return _LOOPBACK.fullmatch(host.strip("[]").lower()) is not None


def parse_model(text: str, *, insecure_hosts: Iterable[str] = ()) -> Path | RemoteModel:
    """Parse MODEL.

    Raises:
        UsageError: It is an invalid URL, or has an unknown scheme; the message holds no secret.
    """
    match = _URL.match(text)
    if not match:
        return Path(text)
    scheme = SCHEMES.get(match[1].lower())
    if scheme is None:
        raise UsageError(f"MODEL has the unknown scheme {match[1]!r}", hint=f"give {SUPPORTED}")
    rest, sha256 = _split_digest(match[2], scheme)
    if scheme in ("https", "http"):
        return _parse_web(scheme, rest, sha256, insecure_hosts)
    bucket, account, key = _split_place(rest)
    if problem := _check_place(bucket, key):
        raise UsageError(f"the location {scheme}://{bucket}/{key} {problem}", hint=f"give {SUPPORTED}")
    return RemoteModel(scheme=scheme, bucket=bucket, key=key, account=account, sha256=sha256)


def held_model(manifest: PackagingManifest) -> RemoteModel:
    """Find the model that a packaging manifest names by `modelHolder` and `trainingZipName`.

    Raises:
        RequestError: Either is missing or wrong.
    """
    holder, name = manifest.model_holder, manifest.training_zip_name
    if holder is None:
        raise RequestError(
            f"{manifest.subject}: no MODEL is given, and the manifest has no modelHolder to take it from",
            hint="give MODEL before the resource file, or a modelHolder connection of type s3, gcs or azureblob",
        )
    problems = []
    scheme = HOLDER_SCHEMES.get(holder.spec.type)
    if scheme is None:
        problems.append(
            f"connection {holder.id!r}: type {holder.spec.type!r} holds no models; use s3, gcs or azureblob"
        )
    if problem := check_zip_name(name):
        problems.append(f"trainingZipName {problem}")
    bucket, prefix, account = _holder_place(holder)
    key = f"{prefix}/{name}" if prefix else name
    if scheme is not None and not problems and (problem := _check_holder(holder) or _check_place(bucket, key)):
        problems.append(f"connection {holder.id!r}: its uri {problem}")
    if problems:
        raise RequestError.from_problems(
            f"{manifest.subject}: the model can't be located",
            problems,
            hint="the model is taken from <uri of modelHolder>/<trainingZipName>",
        )
    return RemoteModel(scheme=str(scheme), bucket=bucket, key=key, account=account, connection=holder)


def _split_digest(rest: str, scheme: str) -> tuple[str, str | None]:
    match = _DIGEST.search(rest)
    if match:
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", match[1]):
            raise UsageError(
                "the text after #sha256= in MODEL is not a SHA-256 digest", hint="write its 64 hexadecimal characters"
            )
        return rest[: match.start()], match[1].lower()
    if scheme in ("https", "http") and "#" in rest:
        raise UsageError("MODEL has a fragment without a meaning", hint="only #sha256=DIGEST may follow the location")
    return rest, None


def _parse_web(scheme: str, rest: str, sha256: str | None, insecure_hosts: Iterable[str]) -> RemoteModel:
    try:
        parts: SplitResult = urlsplit(f"{scheme}://{rest}")
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError("MODEL is not a valid URL", hint="check its host and port") from error
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"MODEL holds a user or a password for {host}",
            hint="put them into a .netrc file (NETRC names another place); a command line is seen by everyone",
        )
    if not host or re.search(r"[\s\x00-\x1f]", rest):
        raise UsageError("MODEL is not a valid URL", hint=f"give {SUPPORTED}")
    if scheme == "http" and not is_loopback(host) and parts.netloc not in set(insecure_hosts):
        raise UsageError(
            f"MODEL would be fetched from {parts.netloc} over plain HTTP, where it could be changed on the way",
            hint=f"use https, or set PACKAGER_INSECURE_STORES={parts.netloc} if it is meant to be so",
        )
    model = RemoteModel(
        scheme=scheme, bucket=parts.netloc, key=parts.path.removeprefix("/"), query=parts.query, sha256=sha256
    )
    _check_url(model)
    return model


def _check_url(model: RemoteModel) -> None:
    """Check that a request can be made of it: the host is encoded by IDNA (RFC 5891) for the name server."""
    try:
        url = httpx.URL(model.url)
        name = url.host  # decodes it
        url.raw_host.decode().encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise UsageError(
            "MODEL is not a valid URL",
            hint="check its host: the parts of a name are 1 to 63 characters long, and those after `xn--` Punycode",
        ) from error
    if not name:
        raise UsageError("MODEL is not a valid URL: it names no host", hint=f"give {SUPPORTED}")


def _split_place(rest: str) -> tuple[str, str, str]:
    """Split `bucket/key` or Azure's `container@account.dfs.core.windows.net/key` into bucket, account and key."""
    first, _, key = rest.partition("/")
    bucket, _, host = first.partition("@")
    account = _HOST_OF_DFS.fullmatch(host.lower())
    if host and not account:
        return "", "", key
    return bucket, account[1] if account else "", key


def _holder_place(holder: Connection) -> tuple[str, str, str]:
    """Return the bucket, prefix and account of a connection's URI, as far as they can be read."""
    match = _URL.match(holder.spec.uri)
    bucket, account, prefix = _split_place(match[2] if match else holder.spec.uri)
    return bucket, prefix.strip("/"), account


def _check_holder(holder: Connection) -> str:
    match = _URL.match(holder.spec.uri)
    wanted = HOLDER_SCHEMES[holder.spec.type]
    schemes = [name for name, meant in SCHEMES.items() if meant == wanted]
    if match and match[1].lower() not in schemes:
        return f"has the scheme {match[1]!r}, but its type is {holder.spec.type!r}; write {wanted}://bucket/prefix"
    return ""


def _check_place(bucket: str, key: str) -> str:
    """Return the problem of a bucket and a key, or an empty text."""
    if not _BUCKET.fullmatch(bucket):
        return "names no bucket"
    if not key or key.endswith("/"):
        return "names no object: the key of the zip is missing"
    if any(part in ("", ".", "..") for part in key.split("/")):
        return "has a key with an empty part, `.` or `..`, which can't be asked for"
    if re.search(r"[\x00-\x1f\x7f]", key):
        return "has a key with a control character"
    return ""


def check_zip_name(name: str) -> str:
    """Return the problem of a zip's path below a connection's URI, or an empty text."""
    if not name:
        return "is empty or missing"
    if name.startswith("/") or "\\" in name:
        return f"is {name!r}, but must be the path of a zip below the connection's uri"
    problem = _check_place("bucket", name)
    return f"is {name!r}, which {problem}" if problem else ""
