"""The list of a model's files, and its safety checks. No I/O."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from packager.errors import ArtifactError, ManifestError
from packager.models.manifest import MANIFEST_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from packager.settings import Settings

RATIO_FLOOR = 10 * 1000 * 1000  # bytes; no ratio is suspicious below it
MAX_DEPTH = 256  # folders; more than any model has, and within the limits of recursive tools
WHITEOUT = ".wh."  # the prefix of removed files in image layers (opencontainers/image-spec, layer.md)
MAX_LINK_CHAIN = 40  # links; Linux' own limit (path_resolution(7))
_BESIDE_WRAPPER = re.compile(r"__MACOSX|\.DS_Store|\._.*", re.DOTALL)  # added by macOS beside the packed folder

_SHOWN_LENGTH = 96
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class Kind(Enum):
    """The kinds of entries in a model."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file, folder or symbolic link of a model.

    `path` is relative, separated by `/`, without `.` and `..`; `size` is bytes; `modified` is seconds since 1970;
    `target` is the unmodified target of a link.
    """

    path: str
    kind: Kind
    size: int = 0
    modified: int = 0
    executable: bool = False
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class ArtifactLimits:
    """The limits of a model: unpacked bytes, entries (including folders), and the compression ratio.

    The ratio is checked from 10 MB unpacked size on.
    """

    max_bytes: int
    max_entries: int
    max_ratio: int

    @classmethod
    def from_settings(cls, settings: Settings) -> ArtifactLimits:
        """Return the limits of the `artifact_max_…` settings."""
        return cls(
            max_bytes=settings.artifact_max_bytes,
            max_entries=settings.artifact_max_entries,
            max_ratio=settings.artifact_max_ratio,
        )

    def check_entries(self, count: int) -> None:
        """Raise ArtifactError if the model has too many entries."""
        if count > self.max_entries:
            raise ArtifactError(
                f"the model holds more than {self.max_entries:,} files and folders",
                hint="pack fewer files, or raise PACKAGER_ARTIFACT_MAX_ENTRIES if you trust where it comes from",
            )

    def check_bytes(self, unpacked: int) -> None:
        """Raise ArtifactError if the model is too large."""
        if unpacked > self.max_bytes:
            raise ArtifactError(
                f"the model holds {unpacked:,} bytes unpacked, more than the {self.max_bytes:,} allowed",
                hint="raise PACKAGER_ARTIFACT_MAX_BYTES if you trust where it comes from",
            )

    def check_ratio(self, unpacked: int, packed: int) -> None:
        """Raise ArtifactError if the compression ratio is that of a zip bomb."""
        if unpacked > RATIO_FLOOR and unpacked > packed * self.max_ratio:
            raise ArtifactError(
                f"the archive's {packed:,} bytes unpack to {unpacked:,}, more than {self.max_ratio} times as many; "
                "it looks like a zip bomb",
                hint="raise PACKAGER_ARTIFACT_MAX_RATIO if you trust where it comes from",
            )


def quoted(name: str | bytes) -> str:
    """Quote an untrusted name for a message: invalid bytes and control characters escaped, shortened."""
    raw = name if isinstance(name, bytes) else name.encode(errors="surrogateescape")
    text = raw[: 8 * _SHOWN_LENGTH].decode(errors="backslashreplace")
    text = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
    return f"'{text}'" if len(text) <= _SHOWN_LENGTH else f"'{text[:_SHOWN_LENGTH]}…'"


def refusal(
    path: str | bytes, problem: str, hint: str = "pack the model again without this entry, or under another name"
) -> ArtifactError:
    """Return the error for an unsafe entry."""
    return ArtifactError(f"the model's entry {quoted(path)} {problem}", hint=hint)


def check_path(name: str) -> str:
    r"""Return an entry's name as a path inside the tree, `""` for the tree itself.

    `\` is an ordinary character here, but names that would leave the tree with `\` as separator are rejected too.

    Raises:
        ArtifactError: The name is absolute, contains `..` or NUL, is too deep, or is reserved in image layers.
    """
    if "\0" in name:
        raise refusal(name, "has a NUL character in its name")
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise refusal(name, "is an absolute path", "pack the model again with paths relative to its folder")
    if ".." in re.split(r"[/\\]", name):
        raise refusal(name, "leaves the archive by '..'", "pack the model again with paths relative to its folder")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if len(parts) > MAX_DEPTH:
        raise refusal(name, f"lies more than {MAX_DEPTH} folders deep")
    if any(part.startswith(WHITEOUT) for part in parts):
        raise refusal(
            name,
            f"can't be in an image: in its layers a name that begins with {WHITEOUT} removes another file",
            "rename it, or leave it out",
        )
    return "/".join(parts)


def check_names(entries: Iterable[Entry], limits: ArtifactLimits) -> None:
    """Check that the entries' paths are unique on any file system.

    Implied parent folders count as entries.

    Raises:
        ArtifactError: A path occurs twice, is a file and a folder at once, or differs from another only in case or
            Unicode normalization, or there are too many entries.
    """
    kinds: dict[str, Kind] = {}
    by_folded: dict[str, str] = {}
    written: set[str] = set()
    for entry in entries:
        if entry.kind is not Kind.FOLDER:
            if entry.path in written:
                raise refusal(entry.path, "is in the archive twice", "pack the model again with each file once")
            written.add(entry.path)
        path, kind, known = entry.path, entry.kind, None
        while path and known is None:
            known = kinds.get(path)
            if known not in {None, kind}:
                raise refusal(path, "is a folder and something else at once")
            kinds[path] = kind
            other = by_folded.setdefault(_fold(path), path)
            if other != path:
                raise refusal(
                    path, f"differs from {quoted(other)} only in case or Unicode form", "rename one of the two"
                )
            limits.check_entries(len(kinds))
            path, kind = path.rpartition("/")[0], Kind.FOLDER


def _fold(path: str) -> str:
    """Fold for caseless matching of canonical equivalents (Unicode 3.13, D145)."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def find_root(entries: Sequence[Entry]) -> str:
    """Return the folder with the manifest: the tree itself (`""`) or its single top-level folder.

    Raises:
        ManifestError: Neither contains a manifest.
    """
    files = {entry.path for entry in entries if entry.kind is not Kind.FOLDER}
    tops = {entry.path.partition("/")[0] for entry in entries}
    tops = {top for top in tops if not _BESIDE_WRAPPER.fullmatch(top)}
    for root in ["", *tops] if len(tops) == 1 else [""]:
        if any((f"{root}/{name}" if root else name) in files for name in MANIFEST_NAMES):
            return root
    found = sorted(path for path in files if re.split(r"[/\\]", path)[-1] in MANIFEST_NAMES)
    zips = sorted(path for path in files if path.lower().endswith(".zip"))
    if zips and not found:
        raise ManifestError(
            f"the model has no manifest {' or '.join(MANIFEST_NAMES)}, but a zip in it: {quoted(zips[0])}",
            hint="unpack the outer archive, and use the zip in it",
        )
    raise ManifestError(
        f"the model has no manifest {' or '.join(MANIFEST_NAMES)} at its root"
        + (f"; there is one at {quoted(found[0])}" if found else ""),
        hint=backslash_hint(files) or "pack the folder that holds the manifest, as the training made it",
    )


def backslash_hint(paths: Iterable[str]) -> str:
    r"""Return a hint about names with `\`, which may be the reason for a missing file; empty without such names."""
    path = next((path for path in paths if "\\" in path), None)
    if path is None:
        return ""
    return (
        rf"names such as {quoted(path)} have a '\', which separates folders on Windows only; pack the model again with "
        "a tool that writes '/', such as 7-Zip or PowerShell 7"
    )


def below(entries: Iterable[Entry], root: str) -> list[Entry]:
    """Return the entries below a folder of the tree."""
    return [entry for entry in entries if not root or entry.path.startswith(f"{root}/")]


def check_links(entries: Iterable[Entry], root: str) -> None:
    """Check that every symbolic link, resolved through all others, stays below `root`, as all entries do.

    Links are resolved by their targets only, as the archive is not on disk yet. Dangling links are allowed.

    Raises:
        ArtifactError: A link is absolute, leaves `root`, or is part of a loop.
    """
    links = {entry.path: entry.target for entry in entries if entry.kind is Kind.LINK}
    ends: dict[str, list[str]] = {}
    for link in links:
        _follow(link, links, ends, root.split("/") if root else [])


def _follow(
    link: str, links: Mapping[str, str], ends: dict[str, list[str]], top: list[str], chain: int = 1
) -> list[str]:
    """Return the resolved target of a link as path components; `ends` caches results."""
    if link in ends:
        return ends[link]
    if chain > MAX_LINK_CHAIN:
        raise refusal(link, "is a link that leads through too many others, or round in a circle")
    target = links[link]
    if target.startswith("/"):
        raise refusal(link, f"is a link to the absolute path {quoted(target)}", "make it relative, or pack the file")
    here = link.split("/")[:-1]
    for part in target.split("/"):
        if part in {"", "."}:
            continue
        if part != "..":
            here.append(part)
        elif here == top:
            raise refusal(link, f"is a link that leaves the model, to {quoted(target)}", "pack the file itself")
        else:
            here.pop()
        path = "/".join(here)
        if path in links:
            here = list(_follow(path, links, ends, top, chain + 1))
    ends[link] = here
    return here
