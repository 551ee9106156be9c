"""Bearer tokens of a file, which contains only their digests.

A line is `NAME read-only|read-write SHA256`, with the hexadecimal digest of the token. Tokens are 256 random bits, so
they need no slow password hash.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
from typing import TYPE_CHECKING

from packager.api.identity.base import Principal, UnknownCallerError
from packager.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_PREFIX = "pkgr_"  # makes leaked tokens recognizable
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._@-]{0,99})\s+(?P<access>read-only|read-write)\s+(?P<digest>[0-9a-f]{64})"
)
_HINT = "each line must be NAME read-only|read-write SHA256; `packager api token` writes them"
_PRIVATE = 0o600


def digest_of(token: str) -> str:
    """Return the digest of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path) -> dict[str, Principal]:
    """Read a token file as callers by token digest.

    Raises:
        UsageError: The file is unreadable, or a line is invalid.
    """
    try:
        text = path.read_text(encoding="ascii")
        mode = path.stat().st_mode & 0o777
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not ASCII text"
        raise UsageError(f"cannot read the token file {path}: {reason}", hint=_HINT) from error
    if mode & 0o002:  # the digests may be world-readable
        raise UsageError(f"every user can change the token file {path} (mode {mode:04o})", hint=f"chmod o-w {path}")
    found: dict[str, Principal] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        match = _LINE.fullmatch(words)
        if match is None:
            raise UsageError(f"the token file {path}, line {number}, is invalid", hint=_HINT)
        found[match["digest"]] = Principal(username=match["name"], may_write=match["access"] == "read-write")
    return found


def add_token(path: Path, name: str, *, may_write: bool) -> str:
    """Create a token, append its digest to the file (created with mode 0600 if missing), and return the token.

    Raises:
        UsageError: The name is invalid or taken, or the file is unreadable or not writable.
    """
    token = _PREFIX + secrets.token_urlsafe(32)
    line = f"{name} {'read-write' if may_write else 'read-only'} {digest_of(token)}"
    if not _LINE.fullmatch(line):
        raise UsageError(f"invalid token name {name!r}", hint="use at most 100 letters, digits and . _ @ -")
    if path.exists() and name in {caller.username for caller in read_tokens(path).values()}:
        raise UsageError(
            f"the token file {path} already has a token of {name!r}, and the audit log distinguishes callers by name",
            hint=f"use another name, such as {name}-2; to revoke the old token, remove its line",
        )
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, _PRIVATE)
        with os.fdopen(descriptor, "r+b") as stream:
            before = stream.read()
            stream.write((b"\n" if before and not before.endswith(b"\n") else b"") + f"{line}\n".encode())
    except OSError as error:
        raise UsageError(
            f"cannot write the token file {path}: {error.strerror}", hint="name a file in an existing, writable folder"
        ) from error
    return token


class TokenFile:
    """The callers of a token file; a changed file is read again, so that revocation needs no restart."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            UsageError: The file is unreadable, or a line is invalid.
        """
        self._path = path
        self._callers = read_tokens(path)
        self._read_stamp = self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    async def authenticate(self, token: str) -> Principal:
        """Return the caller of a token.

        Raises:
            UnknownCallerError: The token is missing or invalid.
        """
        if not token:
            raise UnknownCallerError("a bearer token is required")
        self._refresh()
        caller = self._callers.get(digest_of(token))
        if caller is None:
            raise UnknownCallerError("the bearer token is invalid")
        return caller

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._read_stamp:
            return
        self._read_stamp = stamp
        try:
            self._callers = read_tokens(self._path)
            log.info("reloaded the token file %s: %d tokens", self._path, len(self._callers))
        except UsageError as error:
            # A token of the old content may be revoked in the new one.
            self._callers = {}
            log.error("%s; all tokens are refused until the file is corrected", error.message)  # noqa: TRY400  (a user's mistake)
