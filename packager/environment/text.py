"""Text files of the model archive, which is not trusted."""

from __future__ import annotations

import codecs
import stat
from typing import TYPE_CHECKING

from packager.errors import DependenciesError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SIZE = 1 << 20  # bytes; real files have a few thousand
_ENCODINGS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text_file(path: Path) -> str:
    """Read a text file of at most 1 MB.

    Raises:
        DependenciesError: The file is larger, or is not text.
        OSError: The file can't be read, or is not a regular file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if status.st_size > MAX_SIZE:
        raise DependenciesError(
            f"{path.name}: is larger than {MAX_SIZE:,} bytes",
            hint="check that it is the list of the model's dependencies",
        )
    try:
        return decode(path.read_bytes())
    except UnicodeDecodeError as error:
        raise DependenciesError(
            f"{path.name}: is not text in UTF-8 (byte {error.start + 1:,})", hint="save the file in UTF-8"
        ) from error


def decode(data: bytes, errors: str = "strict") -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark (written by PowerShell's `>`).

    Raises:
        UnicodeDecodeError: The bytes are not text, and `errors` is `strict`.
    """
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, errors)
