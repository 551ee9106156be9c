"""The pip section of a conda file and pip requirement files, read into plain values."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packager.environment.channels import without_credentials
from packager.environment.text import MAX_SIZE, read_text_file, shown
from packager.errors import DependenciesError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_COMMENT = re.compile(r"(^|\s)#.*$")
_TAIL = re.compile(r"(\[[^\]]*\])?(\s*;.*|\s+--.*)?$")  # extras, a marker, hashes
_ARCHIVES = (".whl", ".tar.gz", ".tar.bz2", ".zip")
_IGNORED = {"--prefer-binary", "--use-feature", "--use-pep517", "--disable-pip-version-check", "-q", "--quiet"}
_DEPTH = 10  # files that include files
_MOST_FILES = 1000  # that are included; one that is included twice counts twice
_HINT = "correct the model's pip requirements; docs/dependencies.md says what may stand in them"


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What pip is asked for.

    Attributes:
        lines: Requirements, in the file's order; paths in them are absolute `file://` URLs.
        constraints: Lines of constraint files.
        index_url: The file's own index, or empty.
        extra_index_urls: Indexes asked besides.
        find_links: Folders or pages with wheels.
        trusted_hosts: Hosts whose certificate isn't checked.
        switches: Options without a value: `--no-index`, `--pre`, `--require-hashes`.
        formats: `--only-binary` and `--no-binary` lines.
    """

    lines: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    index_url: str = field(default="", repr=False)
    extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    trusted_hosts: tuple[str, ...] = ()
    switches: frozenset[str] = frozenset()
    formats: tuple[str, ...] = ()

    def to_lines(self) -> list[str]:
        """Write options and requirements as the lines of one file; constraints have no form inside a file."""
        return [
            *([f"--index-url {self.index_url}"] if self.index_url else []),
            *(f"--extra-index-url {url}" for url in self.extra_index_urls),
            *(f"--find-links {place}" for place in self.find_links),
            *(f"--trusted-host {host}" for host in self.trusted_hosts),
            *sorted(self.switches),
            *self.formats,
            *self.lines,
        ]

    @classmethod
    def joined(cls, parts: Iterable[Requirements]) -> Requirements:
        """Put the lines of several after each other; a later index wins."""
        parts = list(parts)
        return cls(
            lines=tuple(line for part in parts for line in part.lines),
            constraints=tuple(line for part in parts for line in part.constraints),
            index_url=next((part.index_url for part in reversed(parts) if part.index_url), ""),
            extra_index_urls=tuple(url for part in parts for url in part.extra_index_urls),
            find_links=tuple(place for part in parts for place in part.find_links),
            trusted_hosts=tuple(host for part in parts for host in part.trusted_hosts),
            switches=frozenset(switch for part in parts for switch in part.switches),
            formats=tuple(line for part in parts for line in part.formats),
        )


def read_requirements(lines: Iterable[str], *, file: Path, root: Path, depth: int = 0) -> Requirements:
    """Read requirement lines that stand in `file`; files and paths they name must lie below `root`.

    Files named by `-r` and `-c` are relative to the file that names them, packages in folders to the first file.

    Raises:
        DependenciesError: An option we don't know, a file that is missing or outside `root`, an environment variable.
    """
    reader = _Reader(file=file, root=root.resolve(), folder=file.parent, depth=depth)
    return Requirements.joined(reader.read(line) for line in _logical_lines(lines))


def _logical_lines(lines: Iterable[str]) -> Iterator[str]:
    pending = ""
    for line in lines:
        if line.rstrip().endswith("\\") and not line.lstrip().startswith("#"):
            pending += line.rstrip()[:-1] + " "
            continue
        text = _COMMENT.sub("", pending + line).strip()
        pending = ""
        if text:
            yield text
    if pending.strip():
        yield pending.strip()


@dataclass(frozen=True, kw_only=True)
class _Reader:
    file: Path
    root: Path
    folder: Path
    depth: int
    included: list[int] = field(default_factory=list)  # the sizes so far

    def read(self, line: str) -> Requirements:
        if "${" in line:
            raise self.error(
                line,
                "names an environment variable, and none is passed on",
                hint="put an index and its credentials into PACKAGER_PIP_INDEX_URL or PACKAGER_PIP_EXTRA_INDEX_URLS",
            )
        return self.option(line) if line.startswith("-") else Requirements(lines=(self.requirement(line),))

    def option(self, line: str) -> Requirements:  # noqa: C901, PLR0911  (a table of options)
        name, value = _split_option(line)
        match name:
            case "-r" | "--requirement":
                return self.include(line, value)
            case "-c" | "--constraint":
                included = self.include(line, value)
                return replace(included, lines=(), constraints=included.lines + included.constraints)
            case "-i" | "--index-url" | "--pypi-url":
                return Requirements(index_url=value)
            case "--extra-index-url":
                return Requirements(extra_index_urls=(value,))
            case "-f" | "--find-links":
                return Requirements(find_links=(value if "://" in value else str(self.inside(line, value)),))
            case "--trusted-host":
                return Requirements(trusted_hosts=(value,))
            case "--no-index" | "--pre" | "--require-hashes":
                return Requirements(switches=frozenset({name}))
            case "--only-binary" | "--no-binary":
                return Requirements(formats=(f"{name} {value}",))
            case "-e" | "--editable":
                raise self.error(line, "is editable, which can't move into an image", hint="leave -e away")
            case _ if name in _IGNORED:
                return Requirements()
            case _:
                raise self.error(line, "is an option that the packager doesn't know")

    def include(self, line: str, value: str) -> Requirements:
        if self.depth >= _DEPTH:
            raise self.error(line, "includes files more than ten deep")
        path = self.inside(line, value, folder=self.file.parent)
        try:
            text = read_text_file(path)
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(line, f"can't be read: {getattr(error, 'strerror', None) or error}") from error
        self.included.append(len(text))
        if len(self.included) > _MOST_FILES or sum(self.included) > MAX_SIZE:
            limits = f"{_MOST_FILES:,} files or {MAX_SIZE:,} characters"
            raise self.error(line, f"includes more than {limits}, with the files before it")
        reader = replace(self, file=path, depth=self.depth + 1)
        return Requirements.joined(reader.read(inner) for inner in _logical_lines(text.splitlines()))

    def requirement(self, line: str) -> str:
        """Make a path in the line an absolute `file://` URL; other lines stay as they are."""
        name, at, target = line.partition(" @ ")
        if not at:
            name, target = "", line
        tail = _TAIL.search(target)
        end = tail.start() if tail else len(target)
        place, rest = target[:end].strip(), target[end:]
        if place.startswith("file:"):
            path = self.inside(line, unquote(urlsplit(place).path))
        elif "://" not in target and ("/" in place or place.endswith(_ARCHIVES)):
            path = self.inside(line, place)
        else:
            return line
        return f"{name} @ {path.as_uri()}{rest}" if name else f"{path.as_uri()}{rest}"

    def inside(self, line: str, value: str, *, folder: Path | None = None) -> Path:
        try:
            path = ((folder or self.folder) / Path(value)).resolve()
            exists = path.exists()
        except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a null character
            raise self.error(line, f"names {shown(value)}, which is no path") from error
        if not path.is_relative_to(self.root):
            raise self.error(line, "points outside the model archive")
        if not exists:
            raise self.error(line, f"names {shown(value)}, which is not in the model archive")
        return path

    def error(self, line: str, problem: str, *, hint: str = _HINT) -> DependenciesError:
        return DependenciesError(f"{self.file.name}: {shown(without_credentials(line))} {problem}", hint=hint)


def _split_option(line: str) -> tuple[str, str]:
    if not line.startswith("--"):
        return line[:2], line[2:].lstrip(" =")
    match = re.fullmatch(r"(--[\w-]+)(?:[\s=]+(.*))?", line)
    return (match[1], (match[2] or "").strip()) if match else (line, "")
