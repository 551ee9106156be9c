"""The secrets of connections at rest: encrypted by a key that is not in the database.

Fernet (github.com/fernet/spec): AES-128 in CBC mode with an HMAC, so that a text that was changed doesn't open.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from packager.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KEY_BYTES = 32
_HOW = "make one by: python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"


class SecretCipher:
    """Seals and opens texts; the first key seals, every key opens, so that keys can be changed."""

    def __init__(self, keys: list[str], where: str) -> None:
        """Take keys, 32 bytes each as URL-safe base64; `where` names them in errors.

        Raises:
            UsageError: There is none, or one is no key.
        """
        for number, key in enumerate(keys, start=1):
            try:
                fits = len(base64.b64decode(key, altchars=b"-_", validate=True)) == _KEY_BYTES
            except (binascii.Error, ValueError):
                fits = False
            if not fits:
                raise UsageError(f"{where}, key {number}: is not {_KEY_BYTES} bytes in URL-safe base64", hint=_HOW)
        if not keys:
            raise UsageError(f"{where}: holds no key", hint=_HOW)
        self._first = Fernet(keys[0])
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, values: Mapping[str, str]) -> str:
        """Return a text that only the key opens."""
        return self._fernet.encrypt(json.dumps(dict(values)).encode()).decode()

    def open(self, sealed: str) -> dict[str, str]:
        """Return what was sealed.

        Raises:
            UsageError: By another key, or it was changed.
        """
        try:
            found: dict[str, str] = json.loads(self._fernet.decrypt(sealed.encode()))
        except InvalidToken as error:
            raise _wrong_key() from error
        return found

    def is_current(self, sealed: str) -> bool:
        """Tell whether the first key has sealed a text."""
        try:
            self._first.decrypt(sealed.encode())
        except InvalidToken:
            return False
        return True

    def rotate(self, sealed: str) -> str:
        """Return what was sealed by any of the keys, sealed by the first.

        Raises:
            UsageError: By another key, or it was changed.
        """
        try:
            return self._fernet.rotate(sealed.encode()).decode()
        except InvalidToken as error:
            raise _wrong_key() from error


def _wrong_key() -> UsageError:
    return UsageError(
        "the key doesn't fit the database: the secrets of its connections were sealed with another one",
        hint="give this database's key in PACKAGER_API_KEY or PACKAGER_API_KEY_FILE; without it the secrets "
        "are lost, and only a new database helps",
    )


def read_key_file(path: Path) -> SecretCipher:
    """Read keys, one a line.

    Raises:
        UsageError: It can't be read, others may read it, or it holds no keys.
    """
    try:
        text = path.read_text(encoding="ascii")
        mode = path.stat().st_mode & 0o777
    except (OSError, UnicodeDecodeError) as error:
        what = (error.strerror if isinstance(error, OSError) else None) or "it is no ASCII text"
        raise UsageError(f"the key file {path} can't be read: {what}", hint=_HOW) from error
    if mode & 0o007:
        raise UsageError(f"the key file {path} is open to every user (mode {mode:04o})", hint=f"chmod 600 {path}")
    return SecretCipher(text.split(), f"the key file {path}")


def make_key_file(path: Path) -> SecretCipher:
    """Make a key, readable by nobody else, unless the file is there already; two processes end with the same key.

    Raises:
        UsageError: It can't be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(Fernet.generate_key() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.link(fresh, path)  # fails when the file is there, unlike a rename
        finally:
            fresh.unlink()
    except FileExistsError:
        pass
    except OSError as error:
        raise UsageError(
            f"the key file {path} can't be made: {error.strerror}",
            hint="set PACKAGER_API_DATA_DIR to a writable folder",
        ) from error
    return read_key_file(path)
