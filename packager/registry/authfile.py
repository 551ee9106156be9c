"""A docker `config.json` for programs that need a file: written for the time they run, and kept current meanwhile."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from packager.errors import DiskFullError, is_disk_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packager.registry.keychain import Keychain

log = logging.getLogger(__name__)

_INTERVAL = 60.0  # seconds between two looks at the clock: a machine may sleep meanwhile
_JOIN_SECONDS = 5.0


@contextmanager
def auth_file(keychain: Keychain, folder: Path) -> Iterator[Path]:
    """Write a docker `config.json` with the keychain's logins below `folder`, and remove it after the block.

    The file has mode 0600, in a folder of its own with mode 0700, and is named `config.json`, so that its folder can be
    a DOCKER_CONFIG. A login that expires is renewed before it does, and the file is replaced.

    Raises:
        DiskFullError: There is no space for it.
        RegistryAuthError, RegistryUnreachableError, RegistryError: A login has expired, and can't be renewed.
    """
    keychain.renew()
    with TemporaryDirectory(prefix="auth-", dir=folder) as private:
        file = _AuthFile(Path(private, "config.json"), keychain)
        with file.kept_current():
            yield file.path


class _AuthFile:
    def __init__(self, path: Path, keychain: Keychain) -> None:
        self.path, self._keychain = path, keychain
        self._content = b""
        self._lock = Lock()
        self._ended = Event()
        self._write()

    @contextmanager
    def kept_current(self) -> Iterator[None]:
        """Renew in the background for the block; nothing is written after it."""
        thread = Thread(target=self._keep_current, name="login-renewal", daemon=True)
        try:
            if self._keychain.expires:
                thread.start()
            yield
        finally:
            with self._lock:
                self._ended.set()
            if thread.is_alive():
                thread.join(_JOIN_SECONDS)  # one that waits for an answer is left alone

    def _keep_current(self) -> None:
        while not self._keychain.clock.wait(self._ended, _INTERVAL):
            self._do(self._keychain.renew)
            self._do(self._write)

    def _do(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  (no other code sees what ends a thread)
            log.warning("the logins can't be renewed now: %s: %s", type(error).__name__, error)

    def _write(self) -> None:
        content = self._keychain.docker_config().to_bytes()
        with self._lock:
            if content != self._content and not self._ended.is_set():
                _replace(self.path, content)
                self._content = content


def _replace(path: Path, content: bytes) -> None:
    """Write the file whole or not at all: a program reads either the old file or the new one.

    Raises:
        DiskFullError: There is no space for it.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        if is_disk_full(error):
            raise DiskFullError(
                f"no space left in {path.parent}", hint="name a larger disk in PACKAGER_WORK_DIR"
            ) from error
        raise
