"""Bearer tokens of a file, of which it holds digests only.

A line is `NAME read-only|read-write SHA256`, the digest of the token in hexadecimal. Tokens are 256 random bits, so
there is nothing to guess, and a slow hash as for passwords would protect nothing more.
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

_PREFIX = "pkgr_"  # so that a leaked one is recognized
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._@-]{0,99})\s+(?P<access>read-only|read-write)\s+(?P<digest>[0-9a-f]{64})"
)
_HINT = "a line is NAME read-only|read-write SHA256-OF-THE-TOKEN; `packager api token` writes them"
_PRIVATE = 0o600


def digest_of(token: str) -> str:
    """Return what the file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path) -> dict[str, Principal]:
    """Read a token file: callers by the digest of their token.

    Raises:
        UsageError: It can't be read, or a line is wrong.
    """
    try:
        text = path.read_text(encoding="ascii")
        mode = path.stat().st_mode & 0o777
    except (OSError, UnicodeDecodeError) as error:
        what = (error.strerror if isinstance(error, OSError) else None) or "it is no ASCII text"
        raise UsageError(f"the token file {path} can't be read: {what}", hint=_HINT) from error
    if mode & 0o002:  # to be read by others does no harm: it holds digests
        raise UsageError(
            f"the token file {path} can be changed by every user (mode {mode:04o})", hint=f"chmod o-w {path}"
        )
    found: dict[str, Principal] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        match = _LINE.fullmatch(words)
        if match is None:
            raise UsageError(f"the token file {path}, line {number}, is wrong", hint=_HINT)
        found[match["digest"]] = Principal(username=match["name"], may_write=match["access"] == "read-write")
    return found


def add_token(path: Path, name: str, *, may_write: bool) -> str:
    """Make a token, note its digest in the file (made with mode 0600 when it isn't there), and return the token.

    Raises:
        UsageError: The name is none or taken, or the file can't be read or written.
    """
    token = _PREFIX + secrets.token_urlsafe(32)
    line = f"{name} {'read-write' if may_write else 'read-only'} {digest_of(token)}"
    if not _LINE.fullmatch(line):
        raise UsageError(f"{name!r} is no name of a token", hint="use at most 100 letters, digits and . _ @ -")
    if path.exists() and name in {caller.username for caller in read_tokens(path).values()}:
        raise UsageError(
            f"the token file {path} has a token of {name!r}, and the log's audit lines are told apart by the name",
            hint=f"take another name, such as {name}-2; to revoke the old one, remove its line",
        )
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, _PRIVATE)
        with os.fdopen(descriptor, "r+b") as stream:
            before = stream.read()
            stream.write((b"\n" if before and not before.endswith(b"\n") else b"") + f"{line}\n".encode())
    except OSError as error:
        raise UsageError(
            f"the token file {path} can't be written: {error.strerror}", hint="name a file in a folder that is there"
        ) from error
    return token


class TokenFile:
    """The callers of a token file, which is read again when it has changed: a token is revoked without a restart."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            UsageError: It can't be read, or a line is wrong.
        """
        self._path = path
        self._callers = read_tokens(path)
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    async def authenticate(self, token: str) -> Principal:
        """Return the caller with that token.

        Raises:
            UnknownCallerError: The token is not known.
        """
        if not token:
            raise UnknownCallerError("a bearer token is needed")
        self._refresh()
        caller = self._callers.get(digest_of(token))
        if caller is None:
            raise UnknownCallerError("the bearer token is not known")
        return caller

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._callers = read_tokens(self._path)
            log.info("the token file %s was read again: %d tokens", self._path, len(self._callers))
        except UsageError as error:
            # What it said before may have been revoked since: nobody is let in by it.
            self._callers = {}
            log.error("%s; no token is accepted until it is mended", error.message)  # noqa: TRY400  (a person's mistake)
