from __future__ import annotations

import gzip
import hashlib
import io
import random

import pytest
import zstandard

from packager.image.layers.compression import Compression, choose_compression, compress
from packager.image.layers.entries import LayerEntry
from packager.image.layers.tar import CHUNK
from packager.sources.file_list import Kind

NOISE = random.Random(1).randbytes(1_500_000)  # noqa: S311  (test data)
TEXT = b"".join(b"line %d of many that are much alike\n" % number for number in range(80_000))
DATA = TEXT + NOISE + bytes(2_000_000)
CHUNKS = [DATA[start : start + CHUNK] for start in range(0, len(DATA), CHUNK)]


def compressed(compression: Compression, threads: int = 1, chunks: list[bytes] = CHUNKS) -> bytes:
    return b"".join(compress(chunks, compression, threads=threads))


def test_gzip_is_one_member_that_any_reader_takes() -> None:
    data = compressed(Compression.GZIP)
    assert gzip.decompress(data) == DATA
    assert data.count(b"\x1f\x8b\x08\0\0\0\0\0\0\xff") == 1
    assert len(data) < 0.55 * len(DATA)


def test_noise_in_the_midst_of_text_is_stored() -> None:
    data = compressed(Compression.GZIP, chunks=[NOISE[:CHUNK]])
    assert CHUNK < len(data) < CHUNK + 200
    assert gzip.decompress(data) == NOISE[:CHUNK]


def test_zstandard_is_read_across_its_frames() -> None:
    data = compressed(Compression.ZSTD)
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        assert reader.read() == DATA


def test_none_leaves_the_bytes_alone() -> None:
    assert compressed(Compression.NONE) == DATA


def test_an_empty_stream_is_valid_gzip() -> None:
    assert gzip.decompress(compressed(Compression.GZIP, chunks=[])) == b""


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_the_bytes_do_not_depend_on_the_threads(compression: Compression) -> None:
    alone = compressed(compression)
    assert all(compressed(compression, threads) == alone for threads in (2, 3, 4, 8))


@pytest.mark.parametrize(
    ("compression", "digest"),
    [
        (Compression.GZIP, "fd88f1fb46b83ceaba46c2966c18499d390f4346c98065c231ed05726127895b"),
        (Compression.ZSTD, "c0181679f71b80493cdd7de3dbbfdd1df8422e6205afc5e120d0d186ff3a923c"),
    ],
)
def test_the_bytes_are_these_on_every_machine(compression: Compression, digest: str) -> None:
    # A new release of a library may change them, and so the digest of every layer: then write the new one here.
    assert hashlib.sha256(compressed(compression)).hexdigest() == digest


def file(path: str, data: bytes) -> LayerEntry:
    return LayerEntry(path=path, kind=Kind.FILE, mode=0o644, size=len(data), source=data)


HEADER = TEXT[:200_000]
BF16_LIKE = bytes(byte if position % 2 else 0x3F for position, byte in enumerate(NOISE))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([TEXT], Compression.GZIP),
        ([NOISE], Compression.NONE),
        ([HEADER + NOISE], Compression.NONE),
        ([NOISE, TEXT[:10_000]], Compression.NONE),
        ([NOISE[:10_000], TEXT], Compression.GZIP),
        ([BF16_LIKE], Compression.GZIP),
        ([b"x"], Compression.GZIP),
        ([b""], Compression.GZIP),
        ([], Compression.GZIP),
        ([NOISE[:5]], Compression.GZIP),
    ],
)
def test_what_does_not_compress_is_left_as_it_is(files: list[bytes], expected: Compression) -> None:
    entries = [file(f"f{number}", data) for number, data in enumerate(files)]
    assert choose_compression(entries) is expected
    assert choose_compression(entries[::-1]) is expected
