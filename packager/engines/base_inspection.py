"""Inspecting a base image in its registry or layout, without pulling it.

The layers are streamed. Of each layer only the symbolic links, the C library and everything called `python3...` is kept
in a skeleton of the root file system, which `rootfs` then inspects; a base of many GB takes a few MB of disk. The image
is not trusted: links are followed inside the skeleton only.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from packager.engines.rootfs import DEFAULT_PATH, find_glibc, find_python, resolve
from packager.errors import BuildError, DiskFullError
from packager.image.plan import BaseFolder, BaseImage
from packager.registry.client import find_image

if TYPE_CHECKING:
    from packager.models.image import RemoteImage
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.registry.blobs import LayerSource, LayerStream
    from packager.settings import Settings

log = logging.getLogger(__name__)

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


@dataclass(frozen=True, kw_only=True)
class BaseImageInfo:
    """What a base's layers tell: see `BaseImage`."""

    glibc: str | None = None
    python: str | None = None
    folders: tuple[BaseFolder, ...] = ()


ARCHITECTURES = {"linux-64": "amd64", "linux-aarch64": "arm64"}
_PYTHON_VERSION = re.compile(r"(3\.\d+)(?:\.\d+.*)?")
_FACTS_FOLDER = "base-images"


def inspect_remote_base(reference: Reference, access: RegistryAccess, settings: Settings) -> BaseImage:
    """Find the base image in its registry, and read its digest, glibc and Python.

    The layers are streamed when these aren't known from an earlier run; nothing but a few files of them is kept.

    Raises:
        ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: It can't be had.
        BuildError: It's for another platform.
        DiskFullError: There is no space for what is looked at.
    """
    architecture = ARCHITECTURES[settings.platform]
    with find_image(reference, access, architecture) as (repository, image):
        return inspect_image(reference, image, repository, settings)


def inspect_image(reference: Reference, image: RemoteImage, repository: LayerSource, settings: Settings) -> BaseImage:
    """Read what must be known of a base image that was found.

    Raises:
        BuildError: It's for another platform.
        DiskFullError: There is no space for what is looked at.
    """
    architecture = ARCHITECTURES[settings.platform]
    found = str(image.config.get("architecture") or architecture)
    if found != architecture:
        raise BuildError(
            f"the base image {reference} is for {found}, not for {settings.platform}",
            hint="name a base image for that platform, or set PACKAGER_PLATFORM",
        )
    config = image.config.get("config") or {}
    env = tuple((name, value) for name, _, value in (entry.partition("=") for entry in config.get("Env") or ()))
    facts = _facts(reference, image, repository, dict(env), settings)
    return BaseImage(
        reference=reference,
        digest=reference.digest or image.digest,
        glibc=facts.glibc,
        python=facts.python,
        env=env,
        user=str(config.get("User") or ""),
        folders=facts.folders,
    )


def _facts(
    reference: Reference, image: RemoteImage, repository: LayerSource, env: dict[str, str], settings: Settings
) -> BaseImageInfo:
    kept = settings.cache_dir / _FACTS_FOLDER / f"{image.digest.replace(':', '-')}.json"
    if facts := _read_facts(kept):
        return facts
    # What the official Python images say of themselves; then the first layer with a C library is enough.
    named = _PYTHON_VERSION.fullmatch(env.get("PYTHON_VERSION", ""))
    python = named[1] if named else None
    try:
        with tempfile.TemporaryDirectory(prefix="base-", dir=settings.work_dir, ignore_cleanup_errors=True) as folder:
            facts = _look(image, repository, Path(folder), env.get("PATH") or DEFAULT_PATH, python)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"no space left to look into the base image {reference}") from error
        log.warning("the base image %s can't be looked into: %s", reference, error)
        return BaseImageInfo(python=python)
    _write_facts(kept, facts)
    return facts


def _look(image: RemoteImage, repository: LayerSource, root: Path, path: str, python: str | None) -> BaseImageInfo:
    skeleton = RootSkeleton(root)
    for blob in image.layers:
        if blob.media_type.endswith("zstd"):
            raise tarfile.ReadError("a layer of it is packed with zstd")
        with repository.layer(blob) as layer:
            skeleton.add(layer)
        if python and (glibc := find_glibc(root)):
            return BaseImageInfo(glibc=glibc, python=python, folders=skeleton.folders())
    return BaseImageInfo(glibc=find_glibc(root), python=python or find_python(root, path), folders=skeleton.folders())


def _read_facts(file: Path) -> BaseImageInfo | None:
    try:
        facts = json.loads(file.read_bytes())
        folders = tuple(BaseFolder(**folder) for folder in facts["folders"])
        return BaseImageInfo(glibc=facts["glibc"], python=facts["python"], folders=folders)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_facts(file: Path, facts: BaseImageInfo) -> None:
    """Keep the facts for the next run, where the cache folder can be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".facts-")
        try:
            with os.fdopen(handle, "w") as stream:
                json.dump(asdict(facts), stream)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        log.debug("the facts of a base image can't be kept at %s: %s", file, error)
