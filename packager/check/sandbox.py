"""The folder for the check of a model, and the detection of changed files."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import ModelCheckError
from packager.system.file_states import WRITE_BITS, file_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packager.sources.zip_member import ZipMember
    from packager.system.file_states import FileStates

WRITING_HINT = (
    "the image is read-only at run time: let the model write to the temporary folder (tempfile), the home or the cache "
    "folder (XDG_CACHE_HOME), or skip the check with --no-check (PACKAGER_CHECK=never)"
)
_SHOWN = 3


def stage(model: Path, packed: Mapping[str, ZipMember], folder: Path, *, linked: bool) -> None:
    """Put a model's files read-only into a new folder: hard links if `linked`, else copies; packed files unpacked.

    Raises:
        OSError: The disk is full, for example.
        ArtifactError: A file in the zip is damaged.
    """
    copy = _link_or_copy if linked else shutil.copy

    def put(source: str, target: str) -> None:
        copy(source, target)
        Path(target).chmod(Path(target).stat().st_mode & ~WRITE_BITS)

    shutil.copytree(model, folder, symlinks=True, copy_function=put)
    for path, member in packed.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for chunk in member.read():
                file.write(chunk)
        target.chmod(0o555 if member.executable else 0o444)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy(source, target)


@contextmanager
def watch_changes(folders: Iterable[Path], read_only: Iterable[Path] = ()) -> Iterator[None]:
    """Detect changes in `folders` during the block, and remove new files afterwards.

    Meanwhile the `read_only` folders (with their subfolders, if they are in `folders` too) have no write permissions.

    A file's change time (`ctime`) can't be set back, so every change is detected.

    Raises:
        ModelCheckError: A file or folder was changed or removed.
    """
    before = {folder: file_states(folder) for folder in folders}
    locked = [path for folder in read_only for path in _lock(folder, before.get(folder, {}))]
    try:
        yield
    finally:
        _unlock(locked)
        changed = sorted({path for folder, states in before.items() for path in _restore(folder, states)})
    if changed:
        raise ModelCheckError(
            f"the model changes files of its image when it starts: {', '.join(changed[:_SHOWN])}"
            f"{', ...' if len(changed) > _SHOWN else ''}",
            hint=WRITING_HINT,
        )


def _lock(folder: Path, states: FileStates) -> list[str]:
    """Remove the write permissions of a folder and its subfolders; return those that had some."""
    folders = [str(folder), *(path for path, (_, mode, *_more) in states.items() if stat.S_ISDIR(mode))]
    locked = []
    for path in folders:
        mode = os.stat(path).st_mode  # noqa: PTH116  (thousands of them)
        if mode & WRITE_BITS:
            os.chmod(path, mode & ~WRITE_BITS)  # noqa: PTH101
            locked.append(path)
    return locked


def _unlock(folders: Iterable[str]) -> None:
    for path in folders:
        with suppress(FileNotFoundError):
            os.chmod(path, os.stat(path).st_mode | stat.S_IWUSR)  # noqa: PTH101, PTH116


def _restore(folder: Path, before: FileStates) -> list[str]:
    """Remove new entries; return the paths of changed and removed ones, relative to the folder."""
    after = file_states(folder)
    for path in sorted(after.keys() - before.keys(), reverse=True):  # a folder's content before the folder
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(after[path][1]):
                Path(path).rmdir()
            else:
                Path(path).unlink()
    return sorted(os.path.relpath(path, folder) for path, states in before.items() if after.get(path) != states)
