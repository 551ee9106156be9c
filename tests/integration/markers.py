"""Looking for planted secrets: in text, in files and their archives, and in other processes while a program runs."""

from __future__ import annotations

import base64
import bz2
import gzip
import os
import secrets
import stat
import threading
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

# Every planted secret holds it, so that one search finds all of them, and no other run's. Letters and digits are the
# same quoted for URLs, shells and JSON.
STEM = f"Mk{secrets.token_hex(8)}"
_AROUND = 60
_MOST_BYTES = 64 << 20  # of a file that is looked into


def marked(name: str, rest: str = "") -> str:
    """A secret that can be found again."""
    return f"{STEM}-{name}{rest}"


def _base64_cores(data: bytes) -> Iterator[bytes]:
    """What base64 makes of it after 0, 1 and 2 other bytes, without what the neighbours decide."""
    yield base64.b64encode(data)[: len(data) * 8 // 6]
    yield base64.b64encode(b"\0" + data)[2 : (1 + len(data)) * 8 // 6]
    yield base64.b64encode(b"\0\0" + data)[3 : (2 + len(data)) * 8 // 6]


FORMS = (STEM.encode(), *_base64_cores(STEM.encode()), STEM.encode().hex().encode(), STEM[::-1].encode())


def found_in(data: bytes | str) -> list[str]:
    """Every form of a planted secret in some bytes, each with what is around it."""
    data = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    places = [data.find(form) for form in FORMS]
    return [repr(data[max(0, place - _AROUND) : place + _AROUND]) for place in places if place >= 0]


def found_below(folder: Path, *, given: tuple[Path, ...] = ()) -> list[str]:
    """Every file below a folder that holds a planted secret, packed or not, in its content or its name."""
    findings = []
    for place, folders, names in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *names)):
            if not any(path.is_relative_to(one) for one in given):
                findings += [f"{path}: {finding}" for finding in _found_at(path)]
    return findings


_clean: set[tuple[Path, int, int, int]] = set()  # files that were looked into already, and hold nothing


def _found_at(path: Path) -> list[str]:
    findings = found_in(path.name)
    with suppress(OSError):  # it has just gone
        if path.is_symlink():
            return findings + found_in(str(path.readlink()))
        status = path.stat()
        state = (path, status.st_ino, status.st_size, status.st_mtime_ns)
        if stat.S_ISREG(status.st_mode) and state not in _clean:
            data = path.read_bytes()[:_MOST_BYTES]
            findings += [finding for part in (data, *_unpacked(path, data)) for finding in found_in(part)]
            if not findings:
                _clean.add(state)
    return findings


def _unpacked(path: Path, data: bytes) -> Iterator[bytes]:
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        with zstandard.ZstdDecompressor().stream_reader(data) as stream:
            yield stream.read()
    elif data[:3] == b"BZh":
        yield bz2.decompress(data)
    elif data[:4] == b"PK\3\4":
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())


@dataclass(kw_only=True)
class Watch:
    """Looks at every new process, and at every file below some folders, again and again while a block runs.

    What the program itself was given in its arguments and its environment is its caller's; so is what a fork of it
    holds that hasn't yet become another program.

    Attributes:
        folders: Where files may be written.
        private: Patterns below these folders of the files that may hold secrets while the run lasts, in folders of
            mode 0700 and with mode 0600 themselves.
        commands: The programs that were seen.
        held: The names of the private files that were seen to hold a secret.
    """

    folders: tuple[Path, ...]
    private: tuple[str, ...]
    findings: list[str] = field(default_factory=list)
    commands: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    rounds: int = 0
    _program: int = 0
    _before: frozenset[str] = frozenset()
    _seen: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._before = frozenset(os.listdir("/proc"))  # noqa: PTH208
        for look in (self._look_at_processes, self._look_at_files):
            self._threads.append(threading.Thread(target=self._again, args=(look,), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def of(self, program: int) -> None:
        """Name the program's own process."""
        self._program = program

    def _again(self, look: Callable[[], None]) -> None:
        while not self._stop.wait(0.003):
            look()

    def _look_at_processes(self) -> None:
        if not self._program:
            return
        self.rounds += 1
        own = _read(self._program, "cmdline")
        for pid in os.listdir("/proc"):  # noqa: PTH208
            if pid.isdigit() and pid not in self._before and int(pid) != self._program:
                words, environ = _read(int(pid), "cmdline"), _read(int(pid), "environ")
                if words == own or not words:
                    continue
                self.commands.add(Path(words.split(b"\0")[0].decode()).name)
                for what, data in (("cmdline", words), ("environ", environ)):
                    self.findings += [f"{what} of {words[:200]!r}: {finding}" for finding in found_in(data)]

    def _look_at_files(self) -> None:
        for folder in self.folders:
            for place, _folders, names in os.walk(folder):
                for path in (Path(place, name) for name in names):
                    with suppress(OSError):
                        self._look_at_file(path, folder)

    def _look_at_file(self, path: Path, folder: Path) -> None:
        status = path.lstat()
        state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)
        if not stat.S_ISREG(status.st_mode) or self._seen.get(path) == state:
            return
        self._seen[path] = state
        found = found_in(path.read_bytes())
        if not found:
            return
        inside = path.relative_to(folder)
        if not any(inside.match(pattern) for pattern in self.private):
            self.findings += [f"while it ran, {path}: {finding}" for finding in found]
            return
        self.held.add(path.name)
        modes = (stat.S_IMODE(status.st_mode), stat.S_IMODE(path.parent.stat().st_mode))
        if modes != (0o600, 0o700):
            self.findings.append(f"while it ran, {path} had the mode {modes[0]:o} in a folder of mode {modes[1]:o}")


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path("/proc", str(pid), name).read_bytes()
    return b""
