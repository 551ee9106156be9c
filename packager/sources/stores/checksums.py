"""Checksums of an object that a store gives, and the verification of the downloaded bytes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from awscrt import checksums as crt

from packager.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_CRCS: dict[str, tuple[Callable[[bytes, int], int], int]] = {
    "crc64nvme": (crt.crc64nvme, 8),
    "crc32c": (crt.crc32c, 4),
    "crc32": (zlib.crc32, 4),
}
# The best_checksum first; one is enough.
_ORDER = ("sha256", "sha512", "crc64nvme", "crc32c", "crc32", "sha1", "md5")
_SIZES = {"sha256": 32, "sha512": 64, "sha1": 20, "md5": 16, **{name: size for name, (_, size) in _CRCS.items()}}
_MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """The checksum of a whole object.

    Attributes:
        algorithm: sha256, sha512, crc64nvme, crc32c, crc32, sha1 or md5.
        value: The checksum itself, big-endian.
        source: Its origin, for messages, e.g. `the header Content-MD5`.
    """

    algorithm: str
    value: bytes
    source: str


class _Sum(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class Verifier:
    """Computes the checksums of the bytes as they arrive, by each algorithm of an expected one."""

    def __init__(self, expected: Iterable[Checksum]) -> None:
        """Take the expected checksums."""
        self._expected = list(expected)
        self._hashes = {each.algorithm: _start(each.algorithm) for each in self._expected}

    @property
    def algorithms(self) -> list[str]:
        """The algorithms."""
        return list(self._hashes)

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        for running in self._hashes.values():
            running.update(data)

    def check(self, what: str) -> None:
        """Compare the checksums with the expected ones.

        Raises:
            ArtifactError: They differ.
        """
        for each in self._expected:
            got = self._hashes[each.algorithm].digest()
            if got != each.value:
                raise ArtifactError(
                    f"{what} is damaged: {each.source} is {each.algorithm} {each.value.hex()}, "
                    f"the downloaded bytes have {got.hex()}",
                    hint="fetch it again; if it is damaged again, upload the archive again",
                )


class _Crc:
    def __init__(self, algorithm: str) -> None:
        self._sum, self._size = _CRCS[algorithm]
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._sum(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def _start(algorithm: str) -> _Sum:
    if algorithm in _CRCS:
        return _Crc(algorithm)
    return hashlib.new(algorithm, usedforsecurity=False)


def user_checksum(sha256: str | None) -> list[Checksum]:
    """Return the checksum that the location gives by `#sha256=`, in a list."""
    if sha256 is None:
        return []
    return [Checksum(algorithm="sha256", value=bytes.fromhex(sha256), source="the digest in the location")]


def best_checksum(found: Iterable[Checksum]) -> list[Checksum]:
    """Return the best_checksum checksum, in a list; an empty list, if there is none."""
    return sorted(found, key=lambda each: _ORDER.index(each.algorithm))[:1]


def from_headers(headers: Mapping[str, str]) -> list[Checksum]:
    """Read the checksums of a whole representation from HTTP headers with lower-case names.

    Repr-Digest (RFC 9530), Digest (RFC 3230), Content-MD5 (RFC 1864, Azure), x-goog-hash (Google), and S3's
    x-amz-checksum-*. A value that can't be read is ignored: a store could as well leave it out.
    """
    found = []
    for header, separator in (("repr-digest", "=:"), ("digest", "=")):
        for item in headers.get(header, "").split(","):
            name, _, value = item.strip().partition("=")
            text = value.strip(":") if separator == "=:" else value
            found += _read(name.lower().replace("-", "") if name.lower() != "sha" else "sha1", text, header)
    for item in headers.get("x-goog-hash", "").split(","):
        name, _, value = item.strip().partition("=")
        found += _read(name.lower(), value, "x-goog-hash")
    found += _read("md5", headers.get("content-md5", ""), "content-md5")
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
        for algorithm in _ORDER:
            found += _read(algorithm, headers.get(f"x-amz-checksum-{algorithm}", ""), f"x-amz-checksum-{algorithm}")
    return found


def from_s3_etag(etag: str | None, headers: Mapping[str, str], bucket: str) -> list[Checksum]:
    """Read the MD5 that S3's ETag is, where it is one.

    It is for an object uploaded in one part and not encrypted by a key of KMS or the customer's (docs.aws.amazon.com,
    S3 API, "Object"); directory buckets have ETags of another kind.
    """
    match = _MD5_ETAG.fullmatch(etag or "")
    encrypted = headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
    by_customer = "x-amz-server-side-encryption-customer-algorithm" in headers
    if not match or encrypted or by_customer or bucket.endswith("--x-s3"):
        return []
    return [Checksum(algorithm="md5", value=bytes.fromhex(match[1]), source="the store's ETag")]


def _read(algorithm: str, text: str, header: str) -> list[Checksum]:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return []
    if len(value) != _SIZES.get(algorithm):
        return []
    return [Checksum(algorithm=algorithm, value=value, source=f"the store's {header}")]
