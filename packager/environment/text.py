"""Text files of the model archive, which may hold anything."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from packager.errors import DependenciesError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SIZE = 1 << 20  # bytes; real ones have a few thousand
_SHOWN_LENGTH = 200


def read_text_file(path: Path) -> str:
    """Read a file of at most 1 MB in UTF-8.

    Raises:
        DependenciesError: It is larger.
        OSError: It can't be read, or is no file.
        UnicodeDecodeError: It's not UTF-8.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a file")
    if status.st_size > MAX_SIZE:
        raise DependenciesError(
            f"{path.name}: is larger than {MAX_SIZE:,} bytes", hint="is it really the list of the model's dependencies?"
        )
    return path.read_text(encoding="utf-8-sig")


def shown(value: object) -> str:
    """Write a value of a file as it is shown in a message: short, whatever it is."""
    return shortened(repr(value))


def shortened(text: str, length: int = _SHOWN_LENGTH) -> str:
    """Cut a text that is too long for a message."""
    return text if len(text) <= length else f"{text[:length]}…"
