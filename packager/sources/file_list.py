"""The files of a model as a list of entries, and the rules that make such a list safe. Does no I/O."""

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

RATIO_FLOOR = 10 * 1000 * 1000  # bytes; below it no ratio of sizes is suspicious
MAX_DEPTH = 256  # folders; far beyond any model, and below what recursive tools can remove again
WHITEOUT = ".wh."  # so image layers begin the name of what they remove (opencontainers/image-spec, layer.md)
MAX_LINK_CHAIN = 40  # links; what Linux itself follows (path_resolution(7))
_BESIDE_WRAPPER = re.compile(
    r"__MACOSX|\.DS_Store|\._.*", re.DOTALL
)  # what macOS packs beside the folder that was asked for

_SHOWN_LENGTH = 96
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class Kind(Enum):
    """What an entry is. Nothing else may be in a model."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file, folder or symbolic link of a model.

    `path` is relative, separated by `/`, without `.` and `..`; `size` is bytes; `modified` is seconds since 1970;
    `target` is a link's text, as it is written.
    """

    path: str
    kind: Kind
    size: int = 0
    modified: int = 0
    executable: bool = False
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class ArtifactLimits:
    """How much a model may hold: bytes unpacked, entries (folders too), and unpacked bytes for each packed byte.

    The ratio counts from 10 MB unpacked on.
    """

    max_bytes: int
    max_entries: int
    max_ratio: int

    @classmethod
    def from_settings(cls, settings: Settings) -> ArtifactLimits:
        """Take the limits from the `artifact_max_…` settings."""
        return cls(
            max_bytes=settings.artifact_max_bytes,
            max_entries=settings.artifact_max_entries,
            max_ratio=settings.artifact_max_ratio,
        )

    def check_entries(self, count: int) -> None:
        """Raise ArtifactError when the model has too many entries."""
        if count > self.max_entries:
            raise ArtifactError(
                f"the model holds more than {self.max_entries:,} files and folders",
                hint="pack fewer files, or raise PACKAGER_ARTIFACT_MAX_ENTRIES if you trust where it comes from",
            )

    def check_bytes(self, unpacked: int) -> None:
        """Raise ArtifactError when the model is too large."""
        if unpacked > self.max_bytes:
            raise ArtifactError(
                f"the model holds {unpacked:,} bytes unpacked, more than the {self.max_bytes:,} allowed",
                hint="raise PACKAGER_ARTIFACT_MAX_BYTES if you trust where it comes from",
            )

    def check_ratio(self, unpacked: int, packed: int) -> None:
        """Raise ArtifactError when so few bytes unpack to so many that the archive is made to do harm."""
        if unpacked > RATIO_FLOOR and unpacked > packed * self.max_ratio:
            raise ArtifactError(
                f"the archive's {packed:,} bytes unpack to {unpacked:,}, more than {self.max_ratio} times as many; "
                "it looks like a zip bomb",
                hint="raise PACKAGER_ARTIFACT_MAX_RATIO if you trust where it comes from",
            )


def quoted(name: str | bytes) -> str:
    """Quote a name from outside for a message: bytes that are no text escaped, control characters too, cut short."""
    raw = name if isinstance(name, bytes) else name.encode(errors="surrogateescape")
    text = raw[: 8 * _SHOWN_LENGTH].decode(errors="backslashreplace")
    text = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
    return f"'{text}'" if len(text) <= _SHOWN_LENGTH else f"'{text[:_SHOWN_LENGTH]}…'"


def refusal(
    path: str | bytes, problem: str, hint: str = "pack the model again without this entry, or under another name"
) -> ArtifactError:
    """Make the error that names the entry, what is wrong with it and what to do."""
    return ArtifactError(f"the model's entry {quoted(path)} {problem}", hint=hint)


def check_path(name: str) -> str:
    r"""Turn an entry's name into a path inside the tree, `""` for the tree itself.

    A `\` is an ordinary character of a name here, but whatever would leave the tree where `\` separates is refused too.

    Raises:
        ArtifactError: The name is absolute, has a `..` or a NUL in it, is too deep, or can't be in an image's layer.
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
    """Check that every entry has a place of its own, on any file system.

    Folders that are only implied by what lies in them count as entries.

    Raises:
        ArtifactError: A file or link comes twice, an entry is a file and a folder at once or differs from another only
            in case or Unicode normalisation, or there are too many.
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
    """Find the folder that holds the manifest: the tree itself (`""`) or the one folder everything lies in.

    Raises:
        ManifestError: There is no manifest in either.
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
            hint="unpack the outer archive, and give the zip in it",
        )
    raise ManifestError(
        f"the model has no manifest {' or '.join(MANIFEST_NAMES)} at its root"
        + (f"; there is one at {quoted(found[0])}" if found else ""),
        hint=backslash_hint(files) or "pack the folder that holds the manifest, as the training made it",
    )


def backslash_hint(paths: Iterable[str]) -> str:
    r"""Give what to do about names with a `\`, which may be why a file isn't found; empty where there are none."""
    path = next((path for path in paths if "\\" in path), None)
    if path is None:
        return ""
    return (
        rf"names such as {quoted(path)} have a '\', which separates folders on Windows only; pack the model again with "
        "a tool that writes '/', such as 7-Zip or PowerShell 7"
    )


def below(entries: Iterable[Entry], root: str) -> list[Entry]:
    """Give the entries under a folder of the tree."""
    return [entry for entry in entries if not root or entry.path.startswith(f"{root}/")]


def check_links(entries: Iterable[Entry], root: str) -> None:
    """Check that every symbolic link, followed through every other one, stays under `root`. All entries lie under it.

    Links are followed by their text alone, as nothing of an archive is on disk yet. A link to nothing is allowed.

    Raises:
        ArtifactError: A link is absolute, leads out, or leads round in a circle.
    """
    links = {entry.path: entry.target for entry in entries if entry.kind is Kind.LINK}
    ends: dict[str, list[str]] = {}
    for link in links:
        _follow(link, links, ends, root.split("/") if root else [])


def _follow(
    link: str, links: Mapping[str, str], ends: dict[str, list[str]], top: list[str], chain: int = 1
) -> list[str]:
    """Give where a link ends, as parts of a path; `ends` keeps what is known already."""
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
