"""Detection of files that are not zip archives, by their first bytes."""

from __future__ import annotations

from typing import NamedTuple

from packager.models.manifest import MANIFEST_NAMES

HEAD = 512  # bytes; a tar's first header


class FileKind(NamedTuple):
    """The name of a kind of file, and a hint for users."""

    name: str
    hint: str


_UNPACK = "unpack it and use the folder, or pack its files as a zip"
_ALONE = f"use the zip or the folder from the training, with {MANIFEST_NAMES[0]} and the model's code in it"
_DOWNLOAD = (
    "check its content: it may be a login or error page of the server; download the model again with a login that has "
    "access"
)
_BY_START = {
    b"\x1f\x8b": FileKind("a gzip file, such as a .tar.gz", _UNPACK),
    b"BZh": FileKind("a bzip2 file, such as a .tar.bz2", _UNPACK),
    b"\xfd7zXZ\0": FileKind("an xz file, such as a .tar.xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": FileKind("a zstd file, such as a .tar.zst", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": FileKind("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": FileKind("a RAR archive", _UNPACK),
    b"PK\7\x08PK\3\4": FileKind("one part of a split zip", "join the parts: zip -s 0 FIRST.zip --out WHOLE.zip"),
    b"\x89HDF\r\n\x1a\n": FileKind("an HDF5 file, as Keras writes it", _ALONE),
    b"GGUF": FileKind("a GGUF file", _ALONE),
    b"version https://git-lfs.github.com/spec/": FileKind(
        "the pointer that Git LFS leaves for a file", "fetch the file itself: git lfs pull"
    ),
    b"<!doctype html": FileKind("an HTML page", _DOWNLOAD),
    b"<html": FileKind("an HTML page", _DOWNLOAD),
    b"<?xml": FileKind("an XML document", _DOWNLOAD),
    b"{": FileKind("a JSON document", _DOWNLOAD),
}
_MARKUP = (b"<", b"{")  # after optional spaces and a byte order mark
_PICKLE_PROTOCOL, _PICKLE_PROTOCOLS = 0x80, range(2, 6)
_ONNX_VERSION, _ONNX_FIELDS = (
    0x08,
    (0x12, 0x3A, 0x42),
)  # onnx.proto: producer_name, graph or opset_import after ir_version


def find_file_kind(name: str, head: bytes) -> FileKind | None:
    """Return the kind of a file by its name and its first `HEAD` bytes; None for zips and unknown files."""
    if name in MANIFEST_NAMES:
        return FileKind("a model's manifest alone", "give the folder that it lies in, or a zip of that")
    if not head:
        return FileKind("an empty file", "copy or download the model again")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, kind in _BY_START.items():
        if (text if start.startswith(_MARKUP) else head).startswith(start):
            return kind
    return _find_by_fields(head)


def _find_by_fields(head: bytes) -> FileKind | None:
    first, second, third = (*head[:3], 0, 0, 0)[:3]
    if head[257:262] == b"ustar":
        return FileKind("a tar archive", _UNPACK)
    if first == _PICKLE_PROTOCOL and second in _PICKLE_PROTOCOLS:
        return FileKind("a pickled Python object", _ALONE)
    if first == _ONNX_VERSION and third in _ONNX_FIELDS:
        return FileKind("an ONNX model", _ALONE)
    return None
