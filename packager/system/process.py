"""The only place that starts processes.

A command leads a session of its own. What leaves its process group is ended by the outer process (`packager.launcher`).
What is detached lives on without us.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from packager.errors import ToolMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

log = logging.getLogger(__name__)

HELD = 3  # the descriptor of the file that a detached program holds
_MOST_LINES = 200
_MOST_CHARACTERS = 4000
_POLL_SECONDS = 0.1
_DRAIN_SECONDS = 1.0  # how long what is in the pipes is read when the command has ended but others hold them open
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4  # linux/prctl.h
_NO_SUCH_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC)
_INSTALL = {
    "buildah": "install Buildah (`apt-get install buildah`, `dnf install buildah`)",
    "executor": "install Kaniko's executor, or use the packager's Job image, which has it",
    "uv": "install the packager again: uv is one of its dependencies",
}


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A process that has ended.

    Attributes:
        returncode: Its exit code; negative for the signal that killed it.
        output: The last lines of its output and errors together, in order, at most 200 lines.
        stdout: Its whole standard output when `capture` asked for it (then it's not in `output`), else empty.
    """

    argv: tuple[str, ...]
    returncode: int
    output: str
    stdout: str = ""


class OutOfBoundsError(Exception):
    """A command ran longer or wrote more than it may, and was ended; the text says which."""


class Runner(Protocol):
    """How a command is run; tests give one that starts nothing."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        capture: bool = False,
    ) -> Completed:
        """Run `argv` with exactly the environment `env` and wait for it."""


def run_command(  # noqa: PLR0913  (the Runner's parameters, and the grace that the settings give)
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    capture: bool = False,
    grace: float = 10.0,
    text: str = "",
    seconds: float | None = None,
    most: int | None = None,
    confine: Callable[[], None] | None = None,
) -> Completed:
    """Run `argv` with exactly the environment `env` and wait for it; with its defaults, a `Runner`.

    Args:
        argv: The program, looked up in `env`'s PATH, and its arguments; never a shell's text.
        env: The whole environment.
        cwd: The working directory.
        on_line: Called with each line as it comes, without its end. A carriage return ends a line as well, empty lines
            are left out, and a line is cut at 4000 characters.
        capture: Keep standard output whole in `stdout`; only standard error is made into lines then.
        grace: Seconds between SIGTERM and SIGKILL, when we are interrupted.
        text: A few words for its standard input, which is empty otherwise; a pipe holds them (pipe(7)).
        seconds: How long it may run; None is without a limit.
        most: How many bytes of captured output it may write; None is without a limit.
        confine: Called in the new process before the program starts; it may only make system calls.

    Raises:
        ToolMissingError: There is no such program.
        OutOfBoundsError: It ran longer or wrote more than it may.
        BaseException: Whatever interrupted us, after the command's process group was ended.
    """
    log.debug("$ %s", shlex.join(argv))
    lines = _Lines(on_line)
    process = _start(argv, env=env, cwd=cwd, capture=capture, text=text, confine=confine)
    try:
        stdout = _pump(process, lines, _Bounds(seconds=seconds, most=most))
    except BaseException:
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        raise
    finally:
        _signal_group(process, signal.SIGKILL)  # and what it has left of its group
        process.wait()
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
    log.debug("%s exited with %d", argv[0], process.returncode)
    return Completed(
        argv=tuple(argv),
        returncode=process.returncode,
        output="\n".join(lines.last),
        stdout=stdout.decode("utf-8", "replace"),
    )


def start_detached(argv: Sequence[str], *, env: Mapping[str, str], held: int, errors: Path) -> int:
    """Start a program that lives on when we end, in a session of its own, and return its process id.

    It is our child as long as we live: who starts it reaps it (waitpid(2)).

    Args:
        argv: The program's path, and its arguments.
        env: The whole environment.
        held: An open file that it gets as its descriptor 3, with the locks that are on it (flock(2)).
        errors: The file that its standard error is added to; the other two standard streams are empty.

    Raises:
        OSError: It can't be started.
    """
    log.debug("$ %s", shlex.join(argv))
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(errors), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
        (os.POSIX_SPAWN_DUP2, held, HELD),
    ]
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGPIPE]
    return os.posix_spawn(argv[0], list(argv), env, file_actions=actions, setsid=True, setsigdef=signals, setsigmask=())


def _start(  # noqa: PLR0913  (those of run_command)
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    capture: bool,
    text: str,
    confine: Callable[[], None] | None,
) -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(  # noqa: S603  (a list, never a shell)
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE if text else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if capture else subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=confine,  # noqa: PLW1509  (makes system calls alone: safe with threads)
        )
    except OSError as error:
        if error.errno not in _NO_SUCH_PROGRAM or (cwd is not None and not cwd.is_dir()):
            raise
        name = Path(argv[0]).name
        raise ToolMissingError(
            f"the program {argv[0]!r} can't be run: {error.strerror}",
            hint=_INSTALL.get(name, f"install {name}, or add its folder to PATH"),
        ) from error
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(text.encode())
    return process


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _pump(process: subprocess.Popen[bytes], lines: _Lines, bounds: _Bounds) -> bytes:
    """Read the pipes until the process has ended; return its standard output where that is captured."""
    captured = bytearray()
    with selectors.DefaultSelector() as selector:
        if process.stdout is not None:
            take = lines.feed if process.stderr is None else captured.extend
            selector.register(process.stdout, selectors.EVENT_READ, take)
        if process.stderr is not None:
            selector.register(process.stderr, selectors.EVENT_READ, lines.feed)
        ended_at: float | None = None
        while process.poll() is None or selector.get_map():
            if not selector.get_map():
                with suppress(subprocess.TimeoutExpired):  # it has closed its pipes, and mostly ends at once
                    process.wait(_POLL_SECONDS)
            ready = selector.select(timeout=_POLL_SECONDS if ended_at is None and selector.get_map() else 0)
            for key, _events in ready:
                data = os.read(key.fd, 1 << 16)
                key.data(data)
                if not data:
                    selector.unregister(key.fileobj)
            now = time.monotonic()
            bounds.check(len(captured))
            if ended_at is not None and (not ready or now > ended_at + _DRAIN_SECONDS):
                break  # a process that it left behind holds the pipe open
            if ended_at is None and process.poll() is not None:
                ended_at = now
    lines.flush()
    return bytes(captured)


class _Bounds:
    """How long a command may run, and how much it may write."""

    def __init__(self, *, seconds: float | None, most: int | None) -> None:
        self._seconds = seconds
        self._most = most
        self._begin = time.monotonic()

    def check(self, written: int) -> None:
        if self._seconds is not None and time.monotonic() > self._begin + self._seconds:
            raise OutOfBoundsError(f"it had not ended after {self._seconds:.0f} s")
        if self._most is not None and written > self._most:
            raise OutOfBoundsError(f"it wrote more than {self._most} bytes")


class _Lines:
    """Cuts a stream of bytes into lines and keeps the last ones, in bounded memory."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self.last: deque[str] = deque(maxlen=_MOST_LINES)
        self._on_line = on_line
        self._held = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes, and give out the lines that they end."""
        *ended, rest = data.replace(b"\r", b"\n").split(b"\n")
        for line in ended:
            self._hold(line)
            self.flush()
        self._hold(rest)

    def flush(self) -> None:
        """End the line that is held, unless it is empty."""
        text = self._held.decode("utf-8", "replace").rstrip()
        self._held.clear()
        if not text:
            return
        if len(text) > _MOST_CHARACTERS:
            text = text[:_MOST_CHARACTERS] + "…"
        self.last.append(text)
        if self._on_line is not None:
            self._on_line(text)

    def _hold(self, data: bytes) -> None:
        most = 4 * (_MOST_CHARACTERS + 1)  # a character has at most four bytes
        self._held += data[: max(0, most - len(self._held))]


@contextmanager
def unreadable() -> Iterator[None]:
    """Keep our memory and our environment from other processes of our user, for the block (prctl(2), PR_SET_DUMPABLE).

    Programs that we start meanwhile are readable as always. Root with CAP_SYS_PTRACE is not kept out.
    """
    prctl = ctypes.CDLL(None).prctl
    before = prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_DUMPABLE, before, 0, 0, 0)
