"""Facts of a base image whose layers are only streamed: a skeleton of its root, and `rootfs` looks into that.

Of each layer the symbolic links, the C library and everything called `python3...` is kept, so a base of many GB takes a
few MB for a moment. Nothing of the image is trusted: names are followed inside the skeleton only.
"""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from packager.engines.rootfs import resolve
from packager.image.plan import BaseFolder

if TYPE_CHECKING:
    from packager.registry.blobs import LayerStream

_WHITEOUT = ".wh."  # github.com/opencontainers/image-spec, layer.md
_OPAQUE = ".wh..wh..opq"
_LIBRARY = re.compile(r"libc\.so\.6|libc-2\.\d+\.so")
_PROGRAM = re.compile(r"python3(\.\d+)?")
_PYTHON_FOLDER = re.compile(r"((?:.*/)?lib/python\d+\.\d+)(?:/|$)")
_MOST_LIBRARY_BYTES = 64 << 20
_MOST_ENTRIES = 200_000  # of the skeleton
_MOST_DEPTH = 64
_DEPTH_FOLDERS = 6  # of folders that are remembered: what we add lies at /opt/conda/envs/NAME or so
_DEPTH_LINKS = 3
_MOST_FOLDERS = 5000
_PLAIN = (0o755, 0, 0)
_BUFFER = 1 << 18  # bytes, as the chunks come; tarfile would ask for 10 KB at a time


class RootSkeleton:
    """What is kept of a root, in a folder of ours."""

    def __init__(self, root: Path) -> None:
        """Name the folder, which is there and empty."""
        self.root = root
        self._entries = 0
        self._folders: dict[str, BaseFolder] = {}

    def add(self, layer: LayerStream) -> None:
        """Lay a layer over it.

        Raises:
            tarfile.TarError, EOFError, OSError, zlib.error: It's no layer, or it can't be written.
        """
        with tarfile.open(fileobj=cast("BinaryIO", layer), mode="r|*", bufsize=_BUFFER) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else tarfile keeps every member that it has seen
                path = PurePosixPath("/", member.name)
                if ".." in path.parts or not path.name or len(path.parts) > _MOST_DEPTH:
                    continue
                self._lay(archive, member, path)

    def folders(self) -> tuple[BaseFolder, ...]:
        """Return what is special about the folders near the root, in the order of their paths."""
        return tuple(self._folders[path] for path in sorted(self._folders))

    def _remember(self, member: tarfile.TarInfo, path: PurePosixPath) -> None:
        name, depth = str(path)[1:], len(path.parts) - 1
        if path.name.startswith(_WHITEOUT):
            within = str(path.parent)[1:] + "/" * bool(path.parent.name)
            gone = within if path.name == _OPAQUE else f"{within}{path.name.removeprefix(_WHITEOUT)}/"
            for each in [each for each in self._folders if f"{each}/".startswith(gone) and f"{each}/" != within]:
                del self._folders[each]
            return
        self._folders.pop(name, None)
        mode = member.mode & 0o7777
        if member.isdir() and depth <= _DEPTH_FOLDERS and (mode, member.uid, member.gid) != _PLAIN:
            self._keep(BaseFolder(path=name, mode=mode, uid=member.uid, gid=member.gid))
        elif member.issym() and depth <= _DEPTH_LINKS:
            self._keep(BaseFolder(path=name, target=member.linkname))

    def _keep(self, folder: BaseFolder) -> None:
        if len(self._folders) < _MOST_FOLDERS:
            self._folders[folder.path] = folder

    def _lay(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: PurePosixPath) -> None:
        self._remember(member, path)
        if path.name.startswith(_WHITEOUT):
            self._white_out(path)
        elif member.isdir():
            self._uncover(path)
            if _PYTHON_FOLDER.fullmatch(str(path)):
                self._folder(path)
        elif member.issym():
            if place := self._place(path):
                place.symlink_to(member.linkname)
        elif _PROGRAM.fullmatch(path.name):
            if place := self._place(path):
                place.touch()
        elif _LIBRARY.fullmatch(path.name):
            self._keep_library(archive, member, path)
        elif within := _PYTHON_FOLDER.match(str(path)):
            self._folder(PurePosixPath(within[1]))

    def _keep_library(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: PurePosixPath) -> None:
        other = resolve(self.root, member.linkname) if member.islnk() else None
        place = self._place(path)
        if place is None:
            return
        if other is not None:
            source = self.root.joinpath(*other.parts[1:])
            if source.is_file() and not source.is_symlink():
                shutil.copyfile(source, place)
        elif member.isreg() and member.size <= _MOST_LIBRARY_BYTES and (content := archive.extractfile(member)):
            with place.open("wb") as file:
                shutil.copyfileobj(content, file)

    def _white_out(self, path: PurePosixPath) -> None:
        parent = resolve(self.root, str(path.parent))
        if parent is None:
            return
        folder = self.root.joinpath(*parent.parts[1:])
        if path.name == _OPAQUE:
            for entry in list(folder.iterdir()) if folder.is_dir() else ():
                _remove(entry)
        elif (name := path.name.removeprefix(_WHITEOUT)) not in ("", ".", ".."):
            _remove(folder / name)

    def _uncover(self, path: PurePosixPath) -> None:
        """Take away what is no folder where the layer has one."""
        parent = resolve(self.root, str(path.parent))
        if parent is not None:
            place = self.root.joinpath(*parent.parts[1:], path.name)
            if place.is_symlink() or place.is_file():
                place.unlink()

    def _place(self, path: PurePosixPath) -> Path | None:
        """Return where an entry goes, with its parents made and what was there taken away; None where it can't be."""
        folder = self._folder(path.parent)
        if folder is None or self._entries >= _MOST_ENTRIES:
            return None
        self._entries += 1
        _remove(folder / path.name)
        return folder / path.name

    def _folder(self, path: PurePosixPath) -> Path | None:
        real = resolve(self.root, str(path))
        if real is None:
            parent = self._folder(path.parent)
            if parent is None or (parent / path.name).is_symlink():  # a link to nothing, yet
                return None
            (parent / path.name).mkdir()
            return parent / path.name
        folder = self.root.joinpath(*real.parts[1:])
        return folder if folder.is_dir() else None


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
