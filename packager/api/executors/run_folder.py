"""The folder of one run on this machine: what is asked, what came of it, its log, and whether it is still at work."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.errors import PackagerError
from packager.system.folders import remove_folder
from packager.system.process import HELD

if TYPE_CHECKING:
    from collections.abc import Callable

_STUCK_SECONDS = 10.0  # how long processes may take to die of SIGKILL
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class RunFolder:
    """One run's folder; nobody but its user reads it."""

    path: Path

    @property
    def lock(self) -> Path:
        """Is locked (flock(2)) as long as the run's outer process or its worker lives."""
        return self.path / "lock"

    @property
    def order(self) -> Path:
        """What the run is to do: `words`, the arguments of `packager`, and `logBytes`."""
        return self.path / "order.json"

    @property
    def manifest(self) -> Path:
        """The mp.json, with secrets in clear; gone when the run has ended."""
        return self.path / "mp.json"

    @property
    def work(self) -> Path:
        """Where the run's temporary files lie; gone when it has ended."""
        return self.path / "work"

    @property
    def termination_log(self) -> Path:
        """What the packager says at its end: its results, or its error."""
        return self.path / "termination.json"

    @property
    def result(self) -> Path:
        """The packager's results."""
        return self.path / "result.json"

    @property
    def errors(self) -> Path:
        """What the outer process itself had to say."""
        return self.path / "shim.txt"

    @property
    def log(self) -> Path:
        """The log's folder."""
        return self.path / "log"

    @property
    def _exit(self) -> Path:
        return self.path / "exit.json"

    def make(self) -> None:
        """Make it anew, without anything that an earlier try left.

        Raises:
            OSError: It can't be made.
        """
        if self.path.exists():
            remove_folder(self.path)
        self.path.mkdir(mode=0o700, parents=True)
        self.work.mkdir(mode=0o700)

    def is_held(self) -> bool:
        """Tell whether it is at work."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def end_run(self, grace: float, reap: Callable[[], object]) -> None:
        """End the run: SIGTERM, and SIGKILL after `grace` seconds; return when nothing of it is at work.

        Raises:
            PackagerError: It doesn't end.
        """
        kill_at = time.monotonic() + grace
        asked: set[int] = set()
        while self.is_held():
            now = time.monotonic()
            if now > kill_at + _STUCK_SECONDS:
                raise PackagerError(
                    f"processes of {self.path.name} don't die of SIGKILL: {self._holders()}",
                    hint="they wait for the kernel, mostly for a disk or a network file system",
                )
            for pid in self._holders():
                if now > kill_at or pid not in asked:
                    asked.add(pid)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL if now > kill_at else signal.SIGTERM)
            time.sleep(_PAUSE_SECONDS)
            reap()

    def _holders(self) -> list[int]:
        """Return the processes that were given the lock: the outer process and its worker."""
        found = []
        for name in os.listdir("/proc"):  # noqa: PTH208  (names, nothing else)
            if name.isdigit() and int(name) != os.getpid():
                with suppress(OSError):  # it has just ended, or is another user's
                    if Path("/proc", name, "fd", str(HELD)).samefile(self.lock):
                        found.append(int(name))
        return found

    def write_exit_code(self, code: int) -> None:
        """Note how the run ended."""
        temporary = self.path / "exit.json.new"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"exitCode": code}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._exit)

    def exit_code(self) -> int | None:
        """Return how the run ended, as the shell counts; None where its outer process was killed."""
        code = _read_object(self._exit).get("exitCode")
        return code if isinstance(code, int) else None

    def results(self) -> dict[str, str]:
        """Return the packager's results; they are written only when the image stands at its destination."""
        return {str(name): value for name, value in _read_object(self.result).items() if isinstance(value, str)}

    def error(self) -> dict[str, str]:
        """Return the packager's own error: `code`, `message`, `hint`; empty where it wrote none."""
        error = _read_object(self.termination_log).get("error")
        return {str(name): str(value) for name, value in error.items()} if isinstance(error, dict) else {}

    def changed(self) -> float:
        """Return when its log was written to last, or itself made, in seconds since 1970.

        Raises:
            FileNotFoundError: It is gone.
        """
        return max(path.stat().st_mtime for path in (self.path, *self.log.glob("*")))

    def take_secrets_away(self) -> None:
        """Remove what the run needed and nobody needs after it."""
        for path in (self.manifest, self.order):
            path.unlink(missing_ok=True)
        if self.work.exists():
            remove_folder(self.work)

    def keep_log_only(self) -> None:
        """Remove everything but the log: the rest is in the store."""
        self.take_secrets_away()
        for path in (self.result, self.termination_log, self._exit, self.errors, self.lock):
            with suppress(FileNotFoundError):
                path.unlink()


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
