"""Opening untrusted model archives and folders, with checks and the manifest (GPPI)."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from packager.errors import ArtifactError, DependenciesError, ManifestError
from packager.models.manifest import MANIFEST_NAMES, MAX_MANIFEST_SIZE, ArtifactManifest, manifest_error
from packager.sources.archive import unpack
from packager.sources.file_list import (
    ArtifactLimits,
    Entry,
    Kind,
    backslash_hint,
    below,
    check_links,
    check_names,
    check_path,
    find_root,
    quoted,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from packager.logs.progress import Reporter
    from packager.sources.zip_member import ZipMember

__all__ = ["Artifact", "ArtifactLimits", "open_artifact"]

log = logging.getLogger(__name__)

LEFT_PACKED = 4 << 20  # bytes; files from this size on may stay in the zip
_READ = (".cfg", ".in", ".json", ".py", ".pyc", ".so", ".toml", ".txt", ".yaml", ".yml")
_PACKAGES = (".whl", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
_PROJECT_FILES = frozenset({"pyproject.toml", "setup.py", "setup.cfg"})
_LAST_SECOND = int(datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp())  # the maximum of datetime


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A model on disk that is safe to read and matches its manifest.

    Attributes:
        root: The folder with the manifest.
        manifest: The manifest; its paths exist below `root`.
        created: The time of the newest file, in UTC.
        owned: Whether it was unpacked into the workspace; a user's own folder must never be modified.
        sizes: The sizes of all files in bytes, by path below `root`, on disk or not.
        packed: The files that stay in the archive, by path below `root`. Their content is verified when it is read.
    """

    root: Path
    manifest: ArtifactManifest
    created: datetime
    owned: bool
    sizes: Mapping[str, int] = field(default_factory=dict)
    packed: Mapping[str, ZipMember] = field(default_factory=dict)


def open_artifact(
    source: Path, workspace: Path, *, limits: ArtifactLimits, reporter: Reporter, lazy: bool = False
) -> Artifact:
    """Open the zip or the folder of a trained model; a zip is unpacked to `workspace/"artifact"`.

    The model may be in a single top-level folder. After an error nothing is left in the workspace. With `lazy`, large
    files stay in the zip (see `left_packed`), which must not change while the artifact is used.

    Raises:
        ArtifactError: The source is missing, can't be read, or is not safe to read.
        ManifestError: The manifest is missing, invalid, or doesn't match the files.
        DependenciesError: The file with the dependencies is missing.
        DiskFullError: The disk is full.
    """
    try:
        mode = source.stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArtifactError(
            f"the model {source} can't be opened: {reason}",
            hint="give the zip of a trained model, or its unpacked folder",
        ) from error
    if stat.S_ISDIR(mode):
        return _open_folder(source, limits)
    if stat.S_ISREG(mode):
        return _open_archive(source, workspace / "artifact", limits, reporter, lazy=lazy)
    raise ArtifactError(f"the model {source} is neither a file nor a folder", hint="give a zip or an unpacked folder")


def _open_folder(source: Path, limits: ArtifactLimits) -> Artifact:
    folder = source.resolve()
    try:
        entries = _scan(folder, limits)
    except OSError as error:
        raise ArtifactError(
            f"the model's folder {source} can't be read: {error.strerror} ({quoted(str(error.filename))})",
            hint="let the user that runs the packager read all of it",
        ) from error
    check_names(entries, limits)
    root = find_root(entries)
    entries = below(entries, root)
    check_links(entries, root)
    return _read_artifact(folder, root, entries, owned=False)


def _open_archive(source: Path, folder: Path, limits: ArtifactLimits, reporter: Reporter, *, lazy: bool) -> Artifact:
    if os.path.lexists(folder):
        raise ArtifactError(f"{folder} exists already", hint="let each run have a workspace of its own")
    try:
        unpacked = unpack(
            source, folder, limits=limits, reporter=reporter, leave=left_packed if lazy else lambda _entries: ()
        )
        artifact = _read_artifact(folder, unpacked.root, unpacked.entries, owned=True)
        return replace(artifact, packed=_below(unpacked.packed, unpacked.root))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _scan(folder: Path, limits: ArtifactLimits) -> list[Entry]:
    entries: list[Entry] = []
    unpacked = 0
    pending = [""]
    while pending:
        here = pending.pop()
        with os.scandir(folder / here) as items:
            for item in sorted(items, key=lambda item: item.name):
                entry = _read_entry(item, f"{here}/{item.name}" if here else item.name)
                entries.append(entry)
                limits.check_entries(len(entries))
                unpacked += entry.size
                limits.check_bytes(unpacked)
                if entry.kind is Kind.FOLDER:
                    pending.append(entry.path)
    return entries


def _read_entry(item: os.DirEntry[str], path: str) -> Entry:
    if not _is_utf8(item.name):
        raise refusal(path, "has a name that is not UTF-8", "rename it")
    check_path(path)
    status = item.stat(follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        return Entry(path=path, kind=Kind.FOLDER)
    if stat.S_ISLNK(status.st_mode):
        target = str(Path(item.path).readlink())
        if not _is_utf8(target):
            raise refusal(path, f"is a link to {quoted(target)}, which is not UTF-8", "pack the file itself")
        return Entry(path=path, kind=Kind.LINK, target=target)
    if not stat.S_ISREG(status.st_mode):
        raise refusal(path, "is a device, pipe or socket", "take it out of the model's folder")
    if not os.access(item.path, os.R_OK):
        raise refusal(path, "can't be read", "let the user that runs the packager read it")
    return Entry(path=path, kind=Kind.FILE, size=status.st_size, modified=int(status.st_mtime))


def _is_utf8(text: str) -> bool:
    """Return whether the original bytes were UTF-8; others are lone surrogates (PEP 383)."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def left_packed(entries: Sequence[Entry]) -> frozenset[str]:
    """Return the files that may stay in the archive: large ones that the packager doesn't read.

    Files that the installation of dependencies may need are unpacked: text and module files, wheels and source
    archives, and everything below a Python project, which may be installed as a folder. A link with the name of a wheel
    or source archive may refer to any file, so with such a link everything is unpacked.
    """
    if any(entry.kind is Kind.LINK and entry.path.endswith(_PACKAGES) for entry in entries):
        return frozenset()
    projects = {entry.path.rpartition("/")[0] for entry in entries if entry.path.rpartition("/")[2] in _PROJECT_FILES}
    return frozenset(
        entry.path
        for entry in entries
        if entry.kind is Kind.FILE
        and entry.size >= LEFT_PACKED
        and not entry.path.endswith((*_READ, *_PACKAGES))
        and projects.isdisjoint(_folders(entry.path))
    )


def _folders(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


_Value = TypeVar("_Value")


def _below(values: Mapping[str, _Value], root: str) -> dict[str, _Value]:
    """Return the mapping with paths relative to `root`."""
    return {path[len(root) + 1 if root else 0 :]: value for path, value in values.items()}


def _read_artifact(folder: Path, inside: str, entries: Sequence[Entry], *, owned: bool) -> Artifact:
    root = folder / inside
    manifest = _read_manifest(root, backslash_hint(entry.path for entry in entries))
    newest = max((entry.modified for entry in entries if entry.kind is Kind.FILE), default=0)
    created = datetime.fromtimestamp(min(max(newest, 0), _LAST_SECOND), tz=timezone.utc)
    sizes = _below({entry.path: entry.size for entry in entries if entry.kind is Kind.FILE}, inside)
    return Artifact(root=root, manifest=manifest, created=created, owned=owned, sizes=sizes)


def _read_manifest(root: Path, hint: str) -> ArtifactManifest:
    paths = [root / name for name in MANIFEST_NAMES if (root / name).is_file()]
    if not paths:
        raise ManifestError("the model's manifest is a link to nothing", hint="pack the manifest itself")
    path, *others = paths
    data = _read_bytes(path)
    manifest = ArtifactManifest.from_bytes(data, path.name)
    for other in others:
        if _read_bytes(other) != data:
            log.warning("the model has two manifests that differ: %s counts, %s is ignored", path.name, other.name)
    _check_files(manifest, root, path.name, hint)
    return manifest


def _read_bytes(path: Path) -> bytes:
    """Read a manifest, at most one byte more than its maximum size."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_MANIFEST_SIZE + 1)
    except OSError as error:
        raise ManifestError(f"{path.name} can't be read: {error.strerror}", hint="is it really a file?") from error


def _check_files(manifest: ArtifactManifest, root: Path, name: str, hint: str) -> None:
    model, dependencies = manifest.model, manifest.binaries.dependencies_path
    problems = []
    if not (root / model.work_dir).is_dir():
        problems.append(f"model.workDir is {quoted(model.work_dir)}, which is not a folder in the archive")
    elif not _has_module(root / model.work_dir, model.entrypoint):
        problems.append(
            f"model.entrypoint is {quoted(model.entrypoint)}, which is not a Python module (.py, .so) or package "
            f"in {quoted(model.work_dir)}"
        )
    missing = None if (root / dependencies).is_file() else f"{quoted(dependencies)}, which is not a file in the archive"
    if problems:
        raise manifest_error(name, [*problems, f"binaries names {missing}"] if missing else problems, hint=hint)
    if missing:
        raise DependenciesError(
            f"{name} takes the model's {manifest.binaries.dependencies} dependencies from {missing}",
            hint=hint or "pack that file too, or correct its path in the manifest",
        )


def _has_module(folder: Path, dotted: str) -> bool:
    *packages, name = dotted.split(".")
    parent = folder.joinpath(*packages)
    return _holds(parent, name) or _holds(parent / name, "__init__")


def _holds(folder: Path, module: str) -> bool:
    """Return whether a folder has a file of the module, `name.py` or `name.cpython-311-x86_64-linux-gnu.so`."""
    if not folder.is_dir():
        return False
    return any(
        file.name in {f"{module}.py", f"{module}.pyc"} or (file.name.startswith(f"{module}.") and file.suffix == ".so")
        for file in folder.iterdir()
        if file.is_file()
    )
