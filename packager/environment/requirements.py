"""Parser for pip requirements files and the pip section of a conda file."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from packager.environment.channels import without_credentials
from packager.environment.text import MAX_SIZE, read_text_file
from packager.errors import DependenciesError
from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator

_COMMENT = re.compile(r"(^|\s)#.*$")
_TAIL = re.compile(r"(\[[^\]]*\])?(\s*;.*|\s+--.*)?$")  # extras, a marker, hashes
_ARCHIVES = (".whl", ".tar.gz", ".tar.bz2", ".zip")
_OPTIONS = re.compile(r"(?:^|\s+)(?=-)")  # the start of a line's options
_REMOTE = re.compile(r"(https?|git\+https?|git\+ssh)://", re.IGNORECASE)
_INDEX = re.compile(r"https?://", re.IGNORECASE)
_FILE = re.compile(r"file:", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][\w+.@-]*:(?=\S)")
_CONDA = re.compile(r"@EXPLICIT|[\w.-]+=[^=\s]+(=[^=\s]*)?")
_DEPTH = 10  # nested -r and -c
_MAX_FILES = 1000  # included files; each inclusion counts
_HINT = "correct the model's pip requirements; docs/reference/dependency-files.md lists what they may contain"


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """The content of requirements files.

    Attributes:
        lines: Requirements in file order; paths are absolute `file://` URLs.
        constraints: Lines of constraint files.
        index_url: The file's own index, or empty.
        extra_index_urls: Additional indexes.
        find_links: Folders or pages with wheels.
        trusted_hosts: Hosts without certificate verification.
        switches: Options without a value: `--no-index`, `--pre`, `--require-hashes`.
        formats: `--only-binary` and `--no-binary` lines, each for one package.
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
        """Return options and requirements as the lines of one file; a file can't contain constraints."""
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
        """Concatenate several; the last index wins."""
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


class _OptionParser(ArgumentParser):
    """Parser for the options of one line (pip.pypa.io: "Requirements File Format")."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False, argument_default=[])
        for flags in (
            "-r --requirement",
            "-c --constraint",
            "-e --editable",
            "-i --index-url --pypi-url",
            "--extra-index-url",
            "-f --find-links",
            "--trusted-host",
            "--hash",
        ):
            self.add_argument(*flags.split(), action="append")
        for flag in ("--no-index", "--pre", "--require-hashes"):
            self.add_argument(flag, action="append_const", const=flag, dest="switches")
        for flag in ("--only-binary", "--no-binary"):
            self.add_argument(flag, action="append", type=f"{flag} {{}}".format, dest="formats")
        for flag in ("--config-settings", "--config-setting", "-C", "--global-option", "--install-option"):
            self.add_argument(flag, action="append", dest="build_options")
        self.add_argument("--use-feature", action="append", dest="ignored")
        for flag in ("--prefer-binary", "--use-pep517", "--disable-pip-version-check", "-q", "--quiet"):
            self.add_argument(flag, action="append_const", const=flag, dest="ignored")

    def error(self, message: str) -> NoReturn:
        """Raise ValueError; the base class prints and exits."""
        raise ValueError(message)


_PARSER = _OptionParser()
_NO_OPTIONS = _PARSER.parse_args([])


def read_requirements(lines: Iterable[str], *, file: Path, root: Path) -> Requirements:
    """Parse the requirement lines of `file`; files and paths in them must be below `root`.

    Files of `-r` and `-c` are relative to the including file, packages in folders to the first file.

    Raises:
        DependenciesError: A line is invalid or unsupported, or refers to a file that is missing or outside `root`.
    """
    reader = _Reader(file=file, root=root.resolve(), folder=file.parent)
    return Requirements.joined(reader.read(line) for line in _logical_lines(lines))


def _logical_lines(lines: Iterable[str]) -> Iterator[str]:
    pending = ""
    for line in "\n".join(lines).splitlines():
        is_comment = line.lstrip().startswith("#")
        if line.rstrip().endswith("\\") and not is_comment:
            pending += line.rstrip().rstrip("\\")
            continue
        text = _COMMENT.sub("", f"{pending} {line}" if is_comment else pending + line).strip()
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
    depth: int = 0
    included: list[int] = field(default_factory=list)  # the sizes so far

    def read(self, line: str) -> Requirements:
        if "${" in line:
            raise self.error(
                line,
                "uses an environment variable, which is not supported",
                hint="put an index and its credentials into PACKAGER_PIP_INDEX_URL or PACKAGER_PIP_EXTRA_INDEX_URLS",
            )
        requirement, *options = _OPTIONS.split(line, maxsplit=1)
        values = self.parse(line, options[0]) if options else _NO_OPTIONS
        if values.build_options:
            raise self.error(
                line,
                "has build options, which are not supported",
                hint="add a wheel of the package to the model archive, and refer to it",
            )
        if not requirement:
            return self.options(line, values)
        if any(found for name, found in vars(values).items() if name not in ("hash", "ignored")):
            raise self.error(
                line, "has an option that pip ignores after a package", hint="move the option to its own line"
            )
        hashes = (f"--hash={value}" for value in values.hash)
        return Requirements(lines=(" ".join([self.requirement(line, requirement), *hashes]),))

    def parse(self, line: str, options: str) -> Namespace:
        try:
            values, rest = _PARSER.parse_known_args(shlex.split(options))
        except ValueError as error:
            raise self.error(line, f"is invalid: {sanitize(str(error))}") from error
        if rest and rest[0].startswith("-"):
            raise self.error(line, f"has {sanitize(repr(rest[0]))}, which is not an option of a requirements file")
        if rest:
            raise self.error(
                line,
                f"has {sanitize(repr(without_credentials(rest[0])))} after its options",
                hint="move it to its own line",
            )
        return values

    def options(self, line: str, values: Namespace) -> Requirements:
        if values.editable:
            raise self.error(line, "is editable, which images don't support", hint="remove -e")
        if values.hash:
            raise self.error(line, "has a hash but no package")
        for url in (*values.index_url, *values.extra_index_url):
            if not _INDEX.match(url):
                raise self.error(
                    line,
                    "has an index that is not an http or https URL",
                    hint="use --find-links for a folder of wheels in the model archive",
                )
        included = [self.include(line, value) for value in values.requirement]
        for value in values.constraint:
            part = self.include(line, value)
            included.append(replace(part, lines=(), constraints=part.lines + part.constraints))
        own = Requirements(
            index_url=values.index_url[-1] if values.index_url else "",
            extra_index_urls=tuple(values.extra_index_url),
            find_links=tuple(self.links(line, value) for value in values.find_links),
            trusted_hosts=tuple(values.trusted_host),
            switches=frozenset(values.switches),
            formats=tuple(_formats(values.formats)),
        )
        return Requirements.joined([*included, own])

    def include(self, line: str, value: str) -> Requirements:
        if self.depth >= _DEPTH:
            raise self.error(line, "nests included files more than ten levels deep")
        if _INDEX.match(value):
            raise self.error(
                line, "includes a remote file, which is not supported", hint="add the file to the model archive"
            )
        path = self.inside(line, value, folder=self.file.parent)
        try:
            text = read_text_file(path)
        except OSError as error:
            raise self.error(line, f"can't be read: {error.strerror or error}") from error
        self.included.append(len(text))
        if len(self.included) > _MAX_FILES or sum(self.included) > MAX_SIZE:
            limits = f"{_MAX_FILES:,} files or {MAX_SIZE:,} characters"
            raise self.error(line, f"exceeds the limit of {limits} in all included files")
        reader = replace(self, file=path, depth=self.depth + 1)
        return Requirements.joined(reader.read(inner) for inner in _logical_lines(text.splitlines()))

    def links(self, line: str, value: str) -> str:
        """Validate a location of wheels; a path is relative to its own file, else to the first file."""
        if _INDEX.match(value):
            return value
        path = unquote(urlsplit(value).path) if _FILE.match(value) else value
        folder = self.file.parent if (self.file.parent / path).exists() else None
        return str(self.inside(line, path, folder=folder))

    def requirement(self, line: str, text: str) -> str:
        """Validate a requirement; a path in it becomes an absolute `file://` URL."""
        parsed, problem = None, ""
        try:
            parsed = Requirement(text)
        except InvalidRequirement as error:
            problem = str(error).partition("\n")[0]
        if parsed is not None and parsed.url:
            parsed.url = self.target(line, parsed.url)
            return str(parsed)
        tail = _TAIL.search(text)
        end = tail.start() if tail else len(text)
        place, rest = text[:end].strip(), text[end:]
        is_path = place.startswith(".") or "/" in place or place.lower().endswith(_ARCHIVES)
        if _SCHEME.match(place) or (is_path and "://" not in place):
            return f"{self.target(line, place)}{rest}"
        if parsed is not None:
            return text
        if _CONDA.fullmatch(text):
            raise self.error(
                line,
                "has conda syntax, not pip syntax",
                hint="write NAME==VERSION, or create the list with `pip list --format=freeze`",
            )
        raise self.error(line, f"is invalid: {sanitize(problem)}")

    def target(self, line: str, place: str) -> str:
        """Validate the location of a package: a URL, or a path, which becomes a `file://` URL."""
        if _REMOTE.match(place):
            return place
        if not _SCHEME.match(place):
            return self.inside(line, place).as_uri()
        if not _FILE.match(place):
            raise self.error(
                line,
                "has a URL of an unsupported scheme",
                hint="use https://, git+https://, or a path within the model archive",
            )
        parts = urlsplit(place)
        path = self.inside(
            line,
            unquote(parts.path),
            problem="points outside the model archive: `pip freeze` writes such lines for conda packages",
            hint="replace it by NAME==VERSION, or create the list with `pip list --format=freeze`",
        )
        return path.as_uri() + (f"#{parts.fragment}" if parts.fragment else "")

    def inside(
        self,
        line: str,
        value: str,
        *,
        folder: Path | None = None,
        problem: str = "points outside the model archive",
        hint: str = _HINT,
    ) -> Path:
        try:
            path = ((folder or self.folder) / Path(value)).resolve()
            exists = path.exists()
        except (OSError, RuntimeError, ValueError) as error:  # too long, a link loop, a null character
            raise self.error(line, f"refers to {sanitize(repr(value))}, which is not a valid path") from error
        if not path.is_relative_to(self.root):
            raise self.error(line, problem, hint=hint)
        if not exists:
            raise self.error(line, f"refers to {sanitize(repr(value))}, which is not in the model archive")
        return path

    def error(self, line: str, problem: str, *, hint: str = _HINT) -> DependenciesError:
        return DependenciesError(f"{self.file.name}: {sanitize(repr(without_credentials(line)))} {problem}", hint=hint)


def _formats(values: Iterable[str]) -> Iterator[str]:
    """Split `--no-binary a,b` into one line per package: uv supports no commas."""
    for value in values:
        option, _, names = value.partition(" ")
        yield from (f"{option} {name.strip()}" for name in names.split(","))
