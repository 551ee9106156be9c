"""The outer process: whatever ends the work, no process and no folder of it is left, and its end is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.proc import children_of, processes_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
AS_PROCESS_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL")
PLACES = [
    pytest.param((), id="child"),
    pytest.param(AS_PROCESS_1, id="process 1", marks=pytest.mark.needs("root", "unshare")),
]
PROGRAM = """
    import os, signal, subprocess, sys, time
    from pathlib import Path
    from packager.launcher import supervise

    def work(folder):
        os.mkdir(folder, 0o700)
        os.mkdir(folder + "/auth")
        Path(folder, "auth", "config.json").write_text("a login")
        os.chmod(folder + "/auth", 0o500)
        # One in the session, one that has left it and lost its parent, and one that ignores SIGTERM as well.
        subprocess.Popen(["sleep", "1000"])
        subprocess.run(["sh", "-c", "setsid sleep 1000 & exit 0"])
        subprocess.run(["sh", "-c", "trap '' TERM; setsid sleep 1000 & exit 0"])
        WORK

    sys.exit(supervise(work, sys.argv[1:]))
"""
WAIT = 'print("ready", flush=True); time.sleep(1000)'


class Launched:
    """A program with an outer process and a worker."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], *, is_process_1: bool) -> None:
        self.work, self.termination_log = folder / "work", folder / "termination-log"
        self.process, self._is_process_1 = process, is_process_1

    @property
    def outer(self) -> int:
        return only(children_of(self.process.pid)) if self._is_process_1 else self.process.pid

    @property
    def worker(self) -> int:
        (worker,) = [pid for pid in children_of(self.outer) if b"python" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return worker

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def processes(self) -> list[int]:
        return processes_with("environ", f"PACKAGER_WORK_DIR={self.work}".encode())

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was written to standard error."""
        err = self.process.communicate(timeout=60)[1]
        return self.process.returncode, err

    def error(self) -> str:
        code: str = json.loads(self.termination_log.read_text())["error"]["code"]
        return code


@contextmanager
def launched(folder: Path, work: str, prefix: tuple[str, ...] = (), **environ: str) -> Iterator[Launched]:
    words = ["--termination-log", str(folder / "termination-log")]
    with program(folder, ["-c", textwrap.dedent(PROGRAM).replace("WORK", work), *words], prefix, **environ) as started:
        yield started


@contextmanager
def program(folder: Path, words: list[str], prefix: tuple[str, ...] = (), **environ: str) -> Iterator[Launched]:
    (folder / "work").mkdir()
    with subprocess.Popen(
        [*prefix, sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **environ, "PACKAGER_WORK_DIR": str(folder / "work")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        started = Launched(folder, process, is_process_1=prefix != ())
        try:
            yield started
        finally:
            for pid in started.processes():
                os.kill(pid, signal.SIGKILL)


def only(found: list[int]) -> int:
    (one,) = found
    return one


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("prefix", PLACES)
@pytest.mark.parametrize(
    ("number", "target", "error"),
    [
        (signal.SIGTERM, "outer", "interrupted"),
        (signal.SIGINT, "outer", "interrupted"),
        (signal.SIGTERM, "worker", "interrupted"),
        (signal.SIGKILL, "worker", "killed"),
        (signal.SIGSEGV, "worker", "killed"),
    ],
)
def test_signal_leaves_nothing_and_is_reported(
    tmp_path: Path, prefix: tuple[str, ...], number: signal.Signals, target: str, error: str
) -> None:
    with launched(tmp_path, WAIT, prefix) as program:
        program.wait_until_ready()
        assert len(list(program.work.glob("packager-*/auth/config.json"))) == 1
        os.kill(getattr(program, target), number)
        code, err = program.end()
        assert (code, program.error()) == (128 + number, error), err
        assert err == f"packager: {error} by {number.name}\n"
        assert program.processes() == []
        assert list(program.work.iterdir()) == []


@pytest.mark.parametrize("prefix", PLACES)
def test_exit_code_of_the_worker_counts_and_its_leftovers_are_ended(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    with launched(tmp_path, "os._exit(7)", prefix) as program:
        assert program.end() == (7, "")
        assert program.processes() == []
        assert list(program.work.iterdir()) == []
        assert not program.termination_log.exists()


def test_worker_that_finishes_despite_a_stop_has_not_failed(tmp_path: Path) -> None:
    work = 'signal.signal(15, lambda *_: print("stopped", flush=True)); print("ready", flush=True); sys.stdin.read()'
    with launched(tmp_path, work) as program:
        program.wait_until_ready()
        os.kill(program.outer, signal.SIGTERM)
        assert program.process.stdout is not None
        assert program.process.stdout.readline() == "stopped\n"
        os.kill(program.outer, signal.SIGINT)  # is not passed on: it would kill this worker
        assert program.end() == (0, "")


def test_worker_that_does_not_stop_is_killed_after_the_grace(tmp_path: Path) -> None:
    work = "signal.signal(15, signal.SIG_IGN); " + WAIT
    with launched(tmp_path, work, PACKAGER_STOP_GRACE="0.1") as program:
        program.wait_until_ready()
        os.kill(program.outer, signal.SIGTERM)
        code, err = program.end()
        assert (code, program.error()) == (143, "interrupted"), err
        assert program.processes() == []
        assert list(program.work.iterdir()) == []


def test_worker_ends_with_its_outer_process(tmp_path: Path) -> None:
    work = 'signal.signal(15, lambda *_: Path(os.environ["ENDED"]).touch() or os._exit(0)); ' + WAIT
    with launched(tmp_path, work, ENDED=str(tmp_path / "ended")) as program:
        program.wait_until_ready()
        os.kill(program.outer, signal.SIGKILL)
        wait_for((tmp_path / "ended").exists)


def test_orphans_are_reaped_while_the_worker_runs(tmp_path: Path) -> None:
    work = 'subprocess.run(["sh", "-c", "true & true & true & exit 0"]); print("ready", flush=True); sys.stdin.read()'
    with launched(tmp_path, work) as program:
        program.wait_until_ready()
        # The worker and the two sleeps that have lost their parent: no zombie.
        wait_for(lambda: len(Path(f"/proc/{program.outer}/task/{program.outer}/children").read_text().split()) == 3)


def test_children_that_the_program_had_before_are_left_alone(tmp_path: Path) -> None:
    script = 'sleep 1000 & echo $!; exec "$0" "$@"'
    with launched(tmp_path, "os._exit(0)", ("sh", "-c", script)) as program:
        assert program.process.stdout is not None
        other = int(program.process.stdout.readline())
        assert program.process.wait(60) == 0
        os.kill(other, signal.SIGKILL)


@pytest.mark.parametrize("prefix", PLACES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_the_program_is_imported_is_reported(
    tmp_path: Path, prefix: tuple[str, ...], number: signal.Signals
) -> None:
    reached = tmp_path / "reached"
    (tmp_path / "typer.py").write_text(f"import time\nopen({str(reached)!r}, 'w').close()\ntime.sleep(1000)\n")
    log = str(tmp_path / "termination-log")
    words = ["-m", "packager", "build", "/dev/stdin", f"--termination-log={log}"]
    with program(tmp_path, words, prefix, PYTHONPATH=str(tmp_path)) as started:
        wait_for(reached.exists)
        os.kill(started.outer, number)
        assert started.end() == (128 + number, f"packager: interrupted by {number.name}\n")
        assert started.error() == "interrupted"
        assert started.processes() == []
