"""Encryption of connection secrets in the database, with a key outside of it.

Fernet (github.com/fernet/spec): AES-128 in CBC mode with an HMAC, which detects changed texts.
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
_HOW = "create one with: python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"


class SecretCipher:
    """Encrypts with the first key and decrypts with any of them, so that keys can be rotated."""

    def __init__(self, keys: list[str], where: str) -> None:
        """Use keys of 32 bytes in URL-safe base64; `where` names their source in errors.

        Raises:
            UsageError: No key is given, or a key is invalid.
        """
        for number, key in enumerate(keys, start=1):
            try:
                is_valid = len(base64.b64decode(key, altchars=b"-_", validate=True)) == _KEY_BYTES
            except (binascii.Error, ValueError):
                is_valid = False
            if not is_valid:
                raise UsageError(f"{where}, key {number}: is not {_KEY_BYTES} bytes in URL-safe base64", hint=_HOW)
        if not keys:
            raise UsageError(f"{where}: contains no key", hint=_HOW)
        self._first = Fernet(keys[0])
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, values: Mapping[str, str]) -> str:
        """Return the values as an encrypted text."""
        return self._fernet.encrypt(json.dumps(dict(values)).encode()).decode()

    def decrypt(self, text: str) -> dict[str, str]:
        """Return the values of an encrypted text.

        Raises:
            UsageError: Another key encrypted the text, or it was changed.
        """
        try:
            found: dict[str, str] = json.loads(self._fernet.decrypt(text.encode()))
        except InvalidToken as error:
            raise _wrong_key() from error
        return found

    def is_current(self, text: str) -> bool:
        """Return whether the first key encrypted a text."""
        try:
            self._first.decrypt(text.encode())
        except InvalidToken:
            return False
        return True

    def rotate(self, text: str) -> str:
        """Encrypt an encrypted text again, with the first key.

        Raises:
            UsageError: Another key encrypted the text, or it was changed.
        """
        try:
            return self._fernet.rotate(text.encode()).decode()
        except InvalidToken as error:
            raise _wrong_key() from error


def _wrong_key() -> UsageError:
    return UsageError(
        "the encryption key does not match the database: another key encrypted its connection secrets",
        hint="set PACKAGER_API_KEY or PACKAGER_API_KEY_FILE to the key of this database. If the key is lost, so are "
        "the secrets: start with a new database",
    )


def read_key_file(path: Path) -> SecretCipher:
    """Read keys from a file, one per line.

    Raises:
        UsageError: The file is unreadable, readable by every user, or contains no valid keys.
    """
    try:
        text = path.read_text(encoding="ascii")
        mode = path.stat().st_mode & 0o777
    except (OSError, UnicodeDecodeError) as error:
        what = (error.strerror if isinstance(error, OSError) else None) or "it is not ASCII text"
        raise UsageError(f"cannot read the key file {path}: {what}", hint=_HOW) from error
    if mode & 0o007:
        raise UsageError(f"every user can access the key file {path} (mode {mode:04o})", hint=f"chmod 600 {path}")
    return SecretCipher(text.split(), f"the key file {path}")


def make_key_file(path: Path) -> SecretCipher:
    """Create a key file with mode 0600 unless it exists; concurrent processes get the same key.

    Raises:
        UsageError: The file cannot be written.
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
            os.link(fresh, path)  # unlike a rename, fails if the file exists
        finally:
            fresh.unlink()
    except FileExistsError:
        pass
    except OSError as error:
        raise UsageError(
            f"cannot create the key file {path}: {error.strerror}",
            hint="set PACKAGER_API_DATA_DIR to a writable folder",
        ) from error
    return read_key_file(path)
