"""The folder that a model is checked in, and a guard over the files that it must leave as they are."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import ModelCheckError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packager.zip_member import ZipMember

    _Facts = tuple[int, ...]

_SHOWN = 3


def lay_out(model: Path, packed: Mapping[str, ZipMember], folder: Path, *, linked: bool) -> None:
    """Put a model's files into a new folder: hard links where they are `linked`, else copies; the packed ones unpacked.

    Raises:
        OSError: There is no room, say.
        ArtifactError: A file in the zip isn't what the zip says.
    """
    copy = _link_or_copy if linked else shutil.copy
    shutil.copytree(model, folder, symlinks=True, copy_function=copy)
    for path, member in packed.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for chunk in member.read():
                file.write(chunk)
        if member.executable:
            target.chmod(0o755)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copy(source, target)


@contextmanager
def guarded(folders: Iterable[Path]) -> Iterator[None]:
    """Leave folders as they were before the block: what is new in them goes again.

    The time of a change of a file (`ctime`) can't be set back, so that no change stays unseen.

    Raises:
        ModelCheckError: Something was changed or removed.
    """
    before = {folder: facts_of(folder) for folder in folders}
    try:
        yield
    finally:
        changed = [path for folder, facts in before.items() for path in _restore(folder, facts)]
    if changed:
        raise ModelCheckError(
            f"the model changes files of its image when it starts: {', '.join(changed[:_SHOWN])}"
            f"{', ...' if len(changed) > _SHOWN else ''}",
            hint="in a container with a read-only root it can't; let it write below the temporary folder (tempfile)",
        )


def facts_of(folder: Path) -> dict[str, _Facts]:
    """Return what changes of everything in a folder when it is changed, by the whole path."""
    found: dict[str, _Facts] = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(place, name)  # noqa: PTH118  (tens of thousands of them)
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                found[path] = (status.st_ino, status.st_mode)
            else:
                found[path] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def _restore(folder: Path, before: dict[str, _Facts]) -> list[str]:
    """Remove what is new; return what is not as it was, relative to the folder."""
    after = facts_of(folder)
    for path in sorted(after.keys() - before.keys(), reverse=True):  # what lies in a folder comes before it
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(after[path][1]):
                Path(path).rmdir()
            else:
                Path(path).unlink()
    return sorted(os.path.relpath(path, folder) for path, facts in before.items() if after.get(path) != facts)
