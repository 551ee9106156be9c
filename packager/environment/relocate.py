"""Relocation of a staged environment to its path in the image, so that no path of this machine remains."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import mmap
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from packager.environment.channels import without_credentials
from packager.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import PurePosixPath

_MAX_SHEBANG = 127  # bytes; Linux before 5.1 truncates longer ones (fs/binfmt_script.c)
_PLAIN = re.compile(rb"#!([^\s]+)([^\n]*)\n")
# pip and uv write this when the interpreter's path is too long or contains a space.
_SHELL = re.compile(rb"#!/bin/sh\n'''exec' (?:\"([^\"\n]+)\"|'([^'\n]+)'|([^\s]+)) \"\$0\" \"\$@\"\n' '''\n")
_TIMESTAMPED = ("uv_cache.json", "uv_build.json")


@dataclass(frozen=True, kw_only=True)
class Relocation:
    """A move of installed files from `staging` to `prefix`.

    Attributes:
        interpreter: The interpreter for console scripts; None for the staged one, at its path in the image.
        foreign: Interpreters outside the staging folder to replace by `interpreter` in scripts.
    """

    staging: Path
    prefix: PurePosixPath
    site_packages: Path
    interpreter: str | None = None
    foreign: tuple[str, ...] = ()
    changed: set[Path] = field(default_factory=set)

    def move(self) -> None:
        """Rewrite scripts, package metadata and every other file that contains the staging folder's path.

        Raises:
            InstallError: A binary file contains it.
        """
        for path in _files(self.staging / "bin"):
            self._replace(path, self.script)
        for folder in sorted(self.site_packages.glob("*.dist-info")):
            self._clean_metadata(folder)
        for path in files_with(_files(self.staging), os.fsencode(self.staging)):
            if path.suffix == ".pyc":  # from a build that ran the staged Python; compiled again later
                self._remove(path)
            else:
                self._replace(path, self._text)
        self._update_records()

    def script(self, data: bytes) -> bytes:
        """Return a script with the image's interpreter in its first line."""
        if match := _SHELL.match(data):
            program, arguments = next(group for group in match.groups() if group), b""
        elif match := _PLAIN.match(data):
            program, arguments = match[1], match[2].strip()
        else:
            return data
        staging = os.fsencode(self.staging)
        if program.startswith(staging + b"/"):
            moved = os.fsencode(self.interpreter or "") or os.fsencode(self.prefix) + program[len(staging) :]
        elif os.fsdecode(program) in self.foreign and self.interpreter:
            moved = os.fsencode(self.interpreter)
        else:
            return data
        return shebang(moved, arguments) + data[match.end() :]

    def _text(self, data: bytes) -> bytes:
        if b"\0" in data:
            raise InstallError("binary")
        return data.replace(os.fsencode(self.staging), os.fsencode(self.prefix))

    def _replace(self, path: Path, change: Callable[[bytes], bytes]) -> None:
        old = path.read_bytes()
        try:
            new = change(old)
        except InstallError as error:
            raise InstallError(
                f"{path.relative_to(self.staging)} contains the path of its build folder and can't be relocated",
                hint="use a wheel or a conda package in place of the package that was built from source",
            ) from error
        if new != old:
            write_file(path, new)
            self.changed.add(path)

    def _clean_metadata(self, folder: Path) -> None:
        for name in _TIMESTAMPED:
            self._remove(folder / name)
        direct = folder / "direct_url.json"
        if direct.is_file():
            document = json.loads(direct.read_bytes())
            url = str(document.get("url", ""))
            if url.startswith("file:"):
                self._remove(direct)
            elif without_credentials(url) != url:
                document["url"] = without_credentials(url)
                write_file(direct, json.dumps(document).encode())
                self.changed.add(direct)

    def _remove(self, path: Path) -> None:
        if path.is_file():
            path.unlink()
            self.changed.add(path)

    def _update_records(self) -> None:
        """Update sizes and hashes of changed files in RECORD (packaging.python.org, "Recording installed projects")."""
        names = {os.path.relpath(path, self.site_packages): path for path in self.changed}
        for record in sorted(self.site_packages.glob("*.dist-info/RECORD")):
            rows = list(csv.reader(io.StringIO(record.read_text(encoding="utf-8"))))
            if not any(row and row[0] in names for row in rows):
                continue
            kept = [_row(row, names.get(row[0])) for row in rows if row and _stays(names.get(row[0]))]
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(kept)
            write_file(record, text.getvalue().encode())


def _stays(path: Path | None) -> bool:
    return path is None or path.exists()


def _row(row: list[str], path: Path | None) -> list[str]:
    if path is None:
        return row
    data = path.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return [row[0], f"sha256={digest}", str(len(data))]


def shebang(program: bytes, arguments: bytes = b"") -> bytes:
    """Return a script's first line; through a shell if the kernel couldn't read it."""
    line = b"#!" + program + (b" " + arguments if arguments else b"")
    if len(line) <= _MAX_SHEBANG and (b" " not in program or program.startswith(b"/usr/bin/env ")):
        return line + b"\n"
    return b"#!/bin/sh\n'''exec' \"" + program + b'" "$0" "$@"\n\' \'\'\'\n'


def write_file(path: Path, data: bytes) -> None:
    """Replace a file, keeping its mode; hard links to the old file are not changed."""
    partial = path.with_name(path.name + ".new")
    partial.write_bytes(data)
    partial.chmod(path.stat().st_mode & 0o7777)
    partial.replace(path)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if not path.is_symlink():
                yield path


def files_with(paths: Iterable[Path], needle: bytes) -> Iterator[Path]:
    """Yield the files that contain `needle`, without reading them into memory."""
    for path in paths:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                continue
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = content.find(needle) >= 0
        if found:
            yield path


def clean_conda_meta(staging: Path, public_url: Callable[[str], str]) -> None:
    """Remove paths of this machine and secrets of channels from `conda-meta`."""
    for path in sorted((staging / "conda-meta").glob("*.json")):
        record = json.loads(path.read_bytes())
        for key in ("extracted_package_dir", "package_tarball_full_path", "link", "indexed_timestamp"):
            record.pop(key, None)
        for key in ("url", "channel"):
            if isinstance(record.get(key), str):
                record[key] = public_url(record[key])
        write_file(path, json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")
    (staging / "CACHEDIR.TAG").unlink(missing_ok=True)  # would exclude the environment from backups
    _check_links(staging)


def _check_links(staging: Path) -> None:
    for place, folders, names in os.walk(staging):
        for name in (*folders, *names):
            path = Path(place, name)
            if path.is_symlink() and path.readlink().is_relative_to(staging):
                raise InstallError(f"{path.relative_to(staging)} is a link into the staging folder")
