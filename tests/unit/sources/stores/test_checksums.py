from __future__ import annotations

import base64
import hashlib
import zlib

import pytest

from packager.errors import ArtifactError
from packager.sources.stores.checksums import (
    Checksum,
    Verifier,
    best_checksum,
    from_headers,
    from_s3_etag,
    user_checksum,
)

BODY = b"123456789"
MD5 = base64.b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()
SHA256 = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
CRC32 = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()
# The check values of the catalogue of CRC algorithms (reveng.sourceforge.io): CRC-32/ISCSI and CRC-64/NVME.
CRC32C = base64.b64encode(bytes.fromhex("e3069283")).decode()
CRC64NVME = base64.b64encode(bytes.fromhex("ae8b14860a799888")).decode()


@pytest.mark.parametrize(
    ("headers", "algorithm"),
    [
        ({"repr-digest": f"sha-256=:{SHA256}:"}, "sha256"),
        ({"repr-digest": f"unixsum=:MTI=:, sha-256=:{SHA256}:"}, "sha256"),
        ({"digest": f"SHA-256={SHA256},MD5={MD5}"}, "sha256"),
        ({"content-md5": MD5}, "md5"),
        ({"x-goog-hash": f"crc32c={CRC32C},md5={MD5}"}, "crc32c"),
        ({"x-amz-checksum-crc64nvme": CRC64NVME, "x-amz-checksum-type": "FULL_OBJECT"}, "crc64nvme"),
        ({"x-amz-checksum-crc32": CRC32}, "crc32"),
        ({"x-amz-checksum-sha256": SHA256}, "sha256"),
    ],
)
def test_strongest_checksum_of_the_headers_is_checked(headers: dict[str, str], algorithm: str) -> None:
    found = best_checksum(from_headers(headers))
    assert [each.algorithm for each in found] == [algorithm]
    right, wrong = Verifier(found), Verifier(found)
    for part in (BODY[:4], BODY[4:]):
        right.update(part)
    right.check("it")
    wrong.update(BODY[:-1])
    with pytest.raises(ArtifactError, match=f"it is damaged: the store's .* is {algorithm}"):
        wrong.check("it")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-amz-checksum-crc32": f"{CRC32}-3"},  # of the parts' checksums
        {"x-amz-checksum-sha256": SHA256, "x-amz-checksum-type": "COMPOSITE"},
        {"content-md5": "nonsense"},
        {"content-md5": SHA256},
        {"digest": "adler32=03da0195"},
        {"x-goog-hash": "crc32c"},
    ],
)
def test_headers_about_parts_are_ignored(headers: dict[str, str]) -> None:
    assert from_headers(headers) == []


@pytest.mark.parametrize(
    ("etag", "headers", "bucket", "counts"),
    [
        ('"25f9e794323b453885f5181f1b624d0b"', {}, "models", True),
        ('"25f9e794323b453885f5181f1b624d0b"', {"x-amz-server-side-encryption": "AES256"}, "models", True),
        ('"25f9e794323b453885f5181f1b624d0b"', {"x-amz-server-side-encryption": "aws:kms"}, "models", False),
        (
            '"25f9e794323b453885f5181f1b624d0b"',
            {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
            "models",
            False,
        ),
        ('"25f9e794323b453885f5181f1b624d0b"', {}, "models--use1-az4--x-s3", False),
        ('"25f9e794323b453885f5181f1b624d0b-2"', {}, "models", False),
        ('"one"', {}, "models", False),
        (None, {}, "models", False),
    ],
)
def test_etag_counts_as_md5_only_for_plain_s3_objects(
    etag: str | None, headers: dict[str, str], bucket: str, counts: bool
) -> None:
    found = from_s3_etag(etag, headers, bucket)
    assert [each.algorithm for each in found] == (["md5"] if counts else [])
    verifier = Verifier(found)
    verifier.update(BODY)
    verifier.check("it")


def test_digest_of_the_user_is_checked_too() -> None:
    store = Checksum(algorithm="md5", value=base64.b64decode(MD5), source="the store")
    verifier = Verifier([*user_checksum("00" * 32), store])
    verifier.update(BODY)
    with pytest.raises(ArtifactError, match="the digest in the location is sha256 0000"):
        verifier.check("it")
    assert user_checksum(None) == []
