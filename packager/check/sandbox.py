"""The folder that a model is checked in, and a guard over the files that it must leave as they are."""

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
    "its image can't be written when it runs: let the model write to the temporary folder (tempfile), the home or the "
    "cache folder (XDG_CACHE_HOME), or package it unchecked with --no-check (PACKAGER_CHECK=never)"
)
_SHOWN = 3


def stage(model: Path, packed: Mapping[str, ZipMember], folder: Path, *, linked: bool) -> None:
    """Put a model's files into a new folder: hard links where they are `linked`, else copies; the packed ones unpacked.

    None of them can be written, by their modes.

    Raises:
        OSError: There is no room, say.
        ArtifactError: A file in the zip isn't what the zip says.
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
    except OSError:  # another disk, or one without hard links
        shutil.copy(source, target)


@contextmanager
def watch_changes(folders: Iterable[Path], read_only: Iterable[Path] = ()) -> Iterator[None]:
    """Leave folders as they were before the block: what is new in them goes again.

    Meanwhile nothing can be added to or removed from the `read_only` folders (and from the folders in them, where they
    are watch_changes) but by root, or after a change of their modes.

    The time of a change of a file (`ctime`) can't be set back, so that no change stays unseen.

    Raises:
        ModelCheckError: Something was changed or removed.
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
    """Take the write permissions off a folder and those in it; return the ones that had some."""
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
    """Remove what is new; return what is not as it was, relative to the folder."""
    after = file_states(folder)
    for path in sorted(after.keys() - before.keys(), reverse=True):  # what lies in a folder comes before it
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(after[path][1]):
                Path(path).rmdir()
            else:
                Path(path).unlink()
    return sorted(os.path.relpath(path, folder) for path, states in before.items() if after.get(path) != states)
