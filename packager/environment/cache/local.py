"""The cache folder of this machine: its subfolders, and the unpacked environments of recent runs.

An unpacked environment is a folder with its files, a digest of all their metadata, and a lock that a run holds while it
uses them, so that the check of the next model needn't fetch it. Only one run at a time changes the cache, and an
incomplete entry has another name.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packager.errors import UsageError, is_disk_full
from packager.system.file_states import file_states
from packager.system.folders import remove_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path, PurePosixPath

    from packager.image.plan import StoredLayer
    from packager.settings import Settings

log = logging.getLogger(__name__)


def check_cache(settings: Settings, *names: str) -> None:
    """Create folders of the cache and check that they are writable, before anything is downloaded.

    Raises:
        UsageError: They can't be created or written.
        OSError: The disk is full.
    """
    for folder in (settings.cache_dir / name for name in names):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_disk_full(error):
                raise
            raise _unusable(settings, error.strerror or str(error)) from error
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise _unusable(settings, f"its folder {folder.name} is not writable")


def _unusable(settings: Settings, reason: str) -> UsageError:
    return UsageError(
        f"the cache folder {settings.cache_dir} can't be used: {reason}",
        hint="set PACKAGER_CACHE_DIR to a writable folder",
    )


_FILES, _LOCK, _DIGEST_FILE, _SIZE = "environment", "lock", "digest", "size"
_UNFINISHED = ".unfinished"


@dataclass(frozen=True, kw_only=True)
class LocalCache:
    """The unpacked environments on this machine.

    Attributes:
        folder: The folder of the cache.
        max_bytes: The total size of all environments; at most half of the disk space that is free without them.
    """

    folder: Path
    max_bytes: int

    @classmethod
    def from_settings(cls, settings: Settings) -> LocalCache:
        """Return the cache with the settings' folder and limit."""
        limit = 0 if settings.check == "never" else settings.check_cache_max_bytes
        return cls(folder=settings.cache_dir / "environments", max_bytes=limit)

    @contextmanager
    def use(self, layer: StoredLayer, prefix: PurePosixPath) -> Iterator[Path | None]:
        """Yield an environment's folder, locked against removal; None if it is missing or was modified."""
        entry = self.folder / _name(layer, prefix)
        with ExitStack() as stack:
            found = None
            try:
                if self.max_bytes and stack.enter_context(_locked(entry / _LOCK, fcntl.LOCK_SH)):
                    os.utime(entry)
                    if _digest(entry / _FILES) == (entry / _DIGEST_FILE).read_text():
                        found = entry / _FILES
                    else:
                        log.warning("ignoring the cached environment in %s: it was modified", entry)
                        (entry / _DIGEST_FILE).unlink()  # so that `save` replaces it
            except OSError as error:
                log.debug("no environment in %s: %s", entry, error)
            yield found

    def save(self, layer: StoredLayer, prefix: PurePosixPath, files: Path) -> None:
        """Move an environment's files into the cache, and evict the least recently used; errors are logged only."""
        if not self.max_bytes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _LOCK).touch()
            with _locked(self.folder / _LOCK, fcntl.LOCK_EX) as alone:
                if alone:
                    self._save(self.folder / _name(layer, prefix), files)
        except OSError as error:
            log.info("cannot cache the unpacked environment in %s: %s", self.folder, error)

    def _save(self, entry: Path, files: Path) -> None:
        unfinished = self.folder / _UNFINISHED
        remove_folder(unfinished)  # left by a killed run
        size = sum(path.lstat().st_blocks * 512 for path in files.rglob("*"))
        if (entry / _DIGEST_FILE).exists() or not self._make_room(size, entry):
            return
        try:
            unfinished.mkdir()
            (unfinished / _LOCK).touch()
            (unfinished / _SIZE).write_text(str(size))
            shutil.move(files, unfinished / _FILES)
            (unfinished / _DIGEST_FILE).write_text(_digest(unfinished / _FILES))
            unfinished.rename(entry)
        except OSError:
            remove_folder(unfinished)
            raise
        log.debug("cached the unpacked environment in %s", entry)

    def _make_room(self, size: int, new: Path) -> bool:
        """Remove the environment to replace, and others until the new one fits; return whether it fits."""
        kept = {path.parent: int(path.read_text() or 0) for path in self.folder.glob(f"*/{_SIZE}")}
        if new in kept and not self._remove(new):
            return False
        taken = sum(kept.values()) - kept.pop(new, 0)
        limit = min(self.max_bytes, (shutil.disk_usage(self.folder).free + taken) // 2)
        for old in sorted(kept, key=lambda path: path.stat().st_mtime):
            if taken + size <= limit or size > limit:
                break
            if self._remove(old):
                taken -= kept[old]
        return taken + size <= limit

    def _remove(self, entry: Path) -> bool:
        """Remove an environment unless a run uses it; return whether it was removed."""
        with _locked(entry / _LOCK, fcntl.LOCK_EX) as alone:
            if alone:
                entry.rename(self.folder / _UNFINISHED)
                remove_folder(self.folder / _UNFINISHED)
            return alone


def _name(layer: StoredLayer, prefix: PurePosixPath) -> str:
    return hashlib.sha256(f"{layer.descriptor.digest} {prefix}".encode()).hexdigest()


def _digest(folder: Path) -> str:
    states = file_states(folder)
    start = len(str(folder))
    lines = (f"{path[start:]} {states[path]}\n".encode(errors="surrogateescape") for path in sorted(states))
    return hashlib.sha256(b"".join(lines)).hexdigest()


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[bool]:
    """Lock a file for the block; yield False if it is locked already or was moved meanwhile.

    Raises:
        OSError: The file is missing, or its file system doesn't support locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            locked = os.path.samestat(os.fstat(handle), path.stat())
        except (BlockingIOError, FileNotFoundError):
            locked = False
        yield locked
    finally:
        os.close(handle)
