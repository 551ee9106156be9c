"""The entries of a layer: sorted, with normalized modes and owners, and readable content.

The rules are those of `image.context` followed by Buildah's `COPY --chown`, so that a plan gives the same files with
every engine; a test compares them.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import BuildError
from packager.sources.file_list import WHITEOUT, Kind, quoted
from packager.sources.zip_member import CHUNK, ZipMember

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packager.image.plan import Content, ImagePlan, Layer

FOLDER_MODE = 0o755
PROGRAM_MODE = 0o755
FILE_MODE = 0o644
LINK_MODE = 0o777
_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerEntry:
    """One folder, file or symbolic link of a layer.

    Attributes:
        path: Relative to the image's root, separated by `/`; bytes that are not UTF-8 are surrogates (PEP 383).
        kind: File, folder or link.
        mode: The permission bits.
        uid: The owner.
        gid: The owner's group.
        size: A file's size in bytes.
        target: A link's target.
        source: A file's content.
    """

    path: str
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    target: str = ""
    source: Path | bytes | ZipMember | None = None

    def read(self) -> Iterator[bytes]:
        """Yield exactly `size` bytes of a file; from a disk or zip, in chunks of at most 1 MiB.

        Raises:
            BuildError: The file can no longer be read, or its size has changed.
            ArtifactError: A file in a zip is damaged.
        """
        if isinstance(self.source, bytes):
            yield self.source
        elif isinstance(self.source, ZipMember):
            yield from self.source.read()
        elif self.source is not None:
            yield from self._read_file(self.source)

    def _read_file(self, path: Path) -> Iterator[bytes]:
        left = self.size
        try:
            with path.open("rb", buffering=0) as file:
                while chunk := file.read(min(CHUNK, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        break
                    yield chunk
        except OSError as error:
            raise BuildError(f"{path} can't be read: {error.strerror}") from error
        if left:
            raise BuildError(f"{path} changed while it was read", hint="run it again without writing to the file")


def plan_entries(plan: ImagePlan, base_folders: Iterable[LayerEntry] = ()) -> list[list[LayerEntry]]:
    """Return the entries of each layer of a plan.

    They include the parent folders of a layer's root, as a layer must not depend on others. Folders keep their mode and
    owner in the base image (`base_folders`, if known) or a lower layer; new ones have mode 0755 and the layer's owner.

    Raises:
        BuildError: A file has an unsupported type, can't be read, or can't be in a layer.
    """
    folders = {entry.path: entry for entry in base_folders}
    lists = []
    for layer in plan.layers:
        entries = layer_entries(layer, folders)
        folders.update((entry.path, entry) for entry in entries if entry.kind is Kind.FOLDER)
        lists.append(entries)
    return lists


def layer_entries(layer: Layer, folders: Mapping[str, LayerEntry] | None = None) -> list[LayerEntry]:
    """Return the entries of one layer, sorted by the bytes of their path components, folders before their content.

    Of two contents with the same path, the later one wins. `folders` exist in lower layers.

    Raises:
        BuildError: A file has an unsupported type, can't be read, or can't be in a layer.
    """
    collector = _Collector(layer=layer, entries={})
    try:
        for content in layer.contents:
            collector.add_content(content)
    except OSError as error:
        raise BuildError(f"cannot read a file for the image: {error}") from error
    entries = collector.entries
    for path in _parents(layer):
        known = (folders or {}).get(path)
        if known is not None:
            entries[path] = known
        elif path not in entries:
            collector.add(LayerEntry(path=path, kind=Kind.FOLDER, mode=FOLDER_MODE))
    return sorted(entries.values(), key=lambda entry: entry.path.encode(errors="surrogateescape").split(b"/"))


def _parents(layer: Layer) -> list[str]:
    root = layer.root
    return [str(path).lstrip("/") for path in (root, *root.parents) if path.parent != path]


@dataclass(frozen=True, kw_only=True)
class _Collector:
    layer: Layer
    entries: dict[str, LayerEntry]

    def add_content(self, content: Content) -> None:
        path, source = str(content.destination).lstrip("/"), content.source
        for parent in content.destination.parents:
            if parent != parent.parent:
                self.add(LayerEntry(path=str(parent).lstrip("/"), kind=Kind.FOLDER, mode=FOLDER_MODE))
        if isinstance(source, bytes):
            self.add(LayerEntry(path=path, kind=Kind.FILE, mode=FILE_MODE, size=len(source), source=source))
        elif isinstance(source, ZipMember):
            mode = PROGRAM_MODE if source.executable else FILE_MODE
            self.add(LayerEntry(path=path, kind=Kind.FILE, mode=mode, size=source.size, source=source))
        elif content.is_file:
            self.add_file(source, path, source.stat())
        else:
            excluded = frozenset(os.path.normpath(source / name) for name in content.exclude)
            self.add_folder(str(source), path, excluded)

    def add_folder(self, source: str, path: str, excluded: frozenset[str]) -> None:
        if path:
            self.add(LayerEntry(path=path, kind=Kind.FOLDER, mode=FOLDER_MODE))
        with os.scandir(source) as items:
            for item in items:
                if item.path in excluded:
                    continue
                inside = f"{path}/{item.name}" if path else item.name
                if item.is_symlink():
                    target = os.readlink(item.path)  # noqa: PTH115  (Path would normalize it)
                    self.add(LayerEntry(path=inside, kind=Kind.LINK, mode=LINK_MODE, target=target))
                elif item.is_dir():
                    self.add_folder(item.path, inside, excluded)
                else:
                    self.add_file(Path(item.path), inside, item.stat())

    def add_file(self, source: Path, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise BuildError(f"{source} is neither a file nor a folder nor a symbolic link")
        mode = PROGRAM_MODE if status.st_mode & _EXECUTABLE else FILE_MODE
        self.add(LayerEntry(path=path, kind=Kind.FILE, mode=mode, size=status.st_size, source=source))

    def add(self, entry: LayerEntry) -> None:
        if entry.path.rpartition("/")[2].startswith(WHITEOUT):
            raise BuildError(
                f"{quoted(entry.path)} can't be in an image: in its layers a name that begins with {WHITEOUT} removes "
                "another file",
                hint="rename it, or leave it out",
            )
        known = self.entries.get(entry.path)
        if known is not None and Kind.FOLDER in {known.kind, entry.kind} and known.kind is not entry.kind:
            raise BuildError(f"{quoted(entry.path)} would be a folder and something else at once in the image")
        self.entries[entry.path] = replace(entry, uid=self.layer.uid, gid=self.layer.gid)
