"""The build context: a folder with a plan's layers and its Dockerfile, byte-identical for equal plans."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import BuildError, DiskFullError, is_disk_full
from packager.image.dockerfile import layer_folder, render
from packager.image.plan import Layer
from packager.sources.zip_member import ZipMember

if TYPE_CHECKING:
    from collections.abc import Callable

    from packager.image.plan import Content, ImagePlan

_FOLDER_MODE = 0o755
_PROGRAM_MODE = 0o755
_FILE_MODE = 0o644
_EXECUTABLE_BITS = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def write_context(
    plan: ImagePlan, folder: Path, *, ours: Path, advance: Callable[[int], None] = lambda _bytes: None
) -> Path:
    """Write the context of a plan into a new folder and return it.

    Files below `ours`, our own work folder, are hard-linked, so that a model of many GB is on the disk only once.
    `advance` is called with the size of each file.

    Raises:
        DiskFullError: No space is left.
        BuildError: A layer contains something else than files, folders and symbolic links.
        ArtifactError: A file in the model's zip is damaged.
    """
    try:
        folder.mkdir(parents=True)
        writer = _Writer(ours=ours.resolve(), timestamp=int(plan.timestamp.timestamp()), advance=advance)
        for position, step in enumerate(plan.steps):
            if isinstance(step, Layer):
                writer.write_layer(step, folder / layer_folder(position, step))
        writer.write_bytes(render(plan).encode(), folder / "Dockerfile")
        writer.finish_folders(folder)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"no space left for the build context in {folder}",
                hint="set PACKAGER_WORK_DIR (or TMPDIR) to a folder on a larger disk",
            ) from error
        raise BuildError(f"cannot write the build context: {error}") from error
    return folder


@dataclass(frozen=True, kw_only=True)
class _Writer:
    ours: Path
    timestamp: int
    advance: Callable[[int], None]

    def write_layer(self, layer: Layer, folder: Path) -> None:
        folder.mkdir()
        for content in layer.contents:
            self._write_content(content, folder / content.destination.relative_to(layer.root))

    def _write_content(self, content: Content, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content.source, bytes):
            self.write_bytes(content.source, target)
            return
        if isinstance(content.source, ZipMember):
            self._write_member(content.source, target)
            return
        link = self.ours in content.source.resolve().parents
        if content.is_file:
            self._write_file(content.source, target, link=link)
        else:
            excluded = frozenset(os.path.normpath(content.source / path) for path in content.exclude)
            self._write_folder(content.source, target, excluded, link=link)

    def _write_folder(self, source: Path, target: Path, excluded: frozenset[str], *, link: bool) -> None:
        target.mkdir(exist_ok=True)
        with os.scandir(source) as entries:
            ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        for entry in ordered:
            if entry.path in excluded:
                continue
            path = target / entry.name
            if entry.is_symlink():
                path.symlink_to(os.readlink(entry.path))  # noqa: PTH115  (Path would normalize it)
                self._set_time(path)
            elif entry.is_dir():
                self._write_folder(Path(entry.path), path, excluded, link=link)
            elif entry.is_file():
                self._write_file(Path(entry.path), path, link=link)
            else:
                raise BuildError(f"{entry.path} is neither a file nor a folder nor a symbolic link")

    def _write_file(self, source: Path, target: Path, *, link: bool) -> None:
        if not (link and _link(source, target)):
            shutil.copyfile(source, target)
            shutil.copymode(source, target)
        status = target.stat()
        target.chmod(_PROGRAM_MODE if status.st_mode & _EXECUTABLE_BITS else _FILE_MODE)
        self._set_time(target)
        self.advance(status.st_size)

    def _write_member(self, member: ZipMember, target: Path) -> None:
        with target.open("wb") as out:
            for chunk in member.read():
                out.write(chunk)
                self.advance(len(chunk))
        target.chmod(_PROGRAM_MODE if member.executable else _FILE_MODE)
        self._set_time(target)

    def write_bytes(self, data: bytes, target: Path) -> None:
        target.write_bytes(data)
        target.chmod(_FILE_MODE)
        self._set_time(target)

    def finish_folders(self, top: Path) -> None:
        """Set modes and times of folders, after all writing, which changes the times."""
        for path, _folders, _files in os.walk(top, topdown=False):
            Path(path).chmod(_FOLDER_MODE)
            self._set_time(Path(path))

    def _set_time(self, path: Path) -> None:
        os.utime(path, (self.timestamp, self.timestamp), follow_symlinks=False)


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            return False  # another file system, or one without hard links
        raise
    return True
