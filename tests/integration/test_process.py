"""run_command with real processes: what it streams, what it keeps, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from packager.errors import Interrupted, ToolMissingError
from packager.system.process import OutOfBoundsError, run_command, stop_signals
from packager.system.process_tree import processes
from packager.system.signals import deferred_stop, raise_pending_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
# Starts a child in its group, one in a session of its own that has lost its parent, and one that ignores SIGTERM.
FAMILY = """
    sleep {mark} &
    sh -c 'setsid sleep {mark} & exit 0'
    setsid sh -c 'trap "" TERM; : >"$0"; while :; do sleep {mark} & wait; done' {ready} &
    until [ -e {ready} ]; do sleep 0.02; done
    echo ready
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def family(mark: str, folder: Path) -> str:
    return textwrap.dedent(FAMILY.format(mark=mark, ready=folder / "ready"))


def with_argument(mark: str) -> list[int]:
    found = []
    for pid in processes():
        try:
            words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(pid)
    return found


_earlier: set[int] = set()


@pytest.fixture(autouse=True)
def earlier() -> None:
    """What other tests of this process have left behind comes to it as well, once `run_command` was used."""
    _earlier.clear()
    _earlier.update(processes())


def zombies() -> list[int]:
    found = [entry.pid for entry in processes().values() if entry.is_dead and entry.parent == os.getpid()]
    return [pid for pid in found if pid not in _earlier]


@pytest.fixture
def mark() -> Iterator[str]:
    """A number that only this test's sleeps have as an argument."""
    text = f"1{os.getpid()}{time.monotonic_ns() % 10**6}"
    yield text
    left = with_argument(text)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
    assert zombies() == []


def test_output_and_errors_are_one_stream_in_order() -> None:
    lines: list[str] = []
    done = run_command(["sh", "-c", "echo one; echo two >&2; echo; echo three; exit 3"], env=ENV, on_line=lines.append)
    assert done.returncode == 3
    assert lines == ["one", "two", "three"]
    assert done.output == "one\ntwo\nthree"
    assert done.stdout == ""


def test_captured_output_is_whole_and_apart() -> None:
    lines: list[str] = []
    done = run_command(["sh", "-c", "seq 1 5000; echo aside >&2"], env=ENV, capture=True, on_line=lines.append)
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 5001))
    assert done.output == "aside"
    assert lines == ["aside"]


def test_lines_come_while_the_command_runs(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        heard.touch()

    script = 'echo a; until [ -e "$0" ]; do sleep 0.02; done; echo b'
    run_command(["sh", "-c", script, str(heard)], env=ENV, on_line=listen, seconds=60)
    assert lines == ["a", "b"]


def test_only_the_last_lines_are_kept() -> None:
    done = run_command(["seq", "1", "100000"], env=ENV)
    assert done.output.split("\n") == [str(number) for number in range(99801, 100001)]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (r"caf\351 \303\251", ["caf\ufffd é"]),
        (r"10%%\r20%%\r30%%\r\ndone", ["10%", "20%", "30%", "done"]),
        (r"no newline at the end", ["no newline at the end"]),
        (r"", []),
    ],
)
def test_what_is_no_plain_line(printed: str, expected: list[str]) -> None:
    lines: list[str] = []
    run_command(["printf", printed], env=ENV, on_line=lines.append)
    assert lines == expected


def test_a_line_without_end_takes_no_memory() -> None:
    done = run_command(["sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x; echo; echo end"], env=ENV)
    long, end = done.output.split("\n")
    assert long == "x" * 4000 + "…"
    assert end == "end"


def test_the_environment_is_exactly_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "s3cret")
    done = run_command(["env"], env={"PATH": ENV["PATH"], "ONE": "1"}, capture=True)
    assert sorted(done.stdout.split()) == sorted([f"PATH={ENV['PATH']}", "ONE=1"])


def test_the_working_directory(tmp_path: Path) -> None:
    assert run_command(["pwd"], env=ENV, cwd=tmp_path, capture=True).stdout.strip() == str(tmp_path)
    with pytest.raises(FileNotFoundError):
        run_command(["pwd"], env=ENV, cwd=tmp_path / "nowhere")


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError) as caught:
        run_command(["buildah", "--version"], env={"PATH": str(tmp_path)})
    assert "'buildah'" in caught.value.message
    assert "apt-get install buildah" in caught.value.hint
    assert caught.value.exit_code == 43


def test_death_by_a_signal_is_negative() -> None:
    assert run_command(["sh", "-c", "kill -9 $$"], env=ENV).returncode == -9


def test_the_command_is_logged_quoted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        run_command(["echo", "two words", "$HOME"], env=ENV)
    assert "$ echo 'two words' '$HOME'" in caplog.text


def test_what_a_command_leaves_behind_is_ended(mark: str, tmp_path: Path) -> None:
    began = time.monotonic()
    done = run_command(["sh", "-c", family(mark, tmp_path)], env=ENV, grace=0.5)
    assert done.returncode == 0
    assert done.output == "ready"
    assert time.monotonic() - began < 60  # they sleep for years
    assert with_argument(mark) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_descendant(number: int, mark: str, tmp_path: Path) -> None:
    script = family(mark, tmp_path) + "wait"
    # The second comes in the middle of cleaning up, and is ignored.
    timers = [threading.Timer(seconds, os.kill, (os.getpid(), number)) for seconds in (0.05, 0.2)]

    def stop(line: str) -> None:
        assert line == "ready"
        with deferred_stop():
            for timer in timers:
                timer.start()
        raise_pending_stop()

    with pytest.raises(Interrupted) as caught, stop_signals():
        try:
            run_command(["sh", "-c", script], env=ENV, on_line=stop, grace=1)
        finally:
            for timer in timers:
                if timer.ident is not None:  # else no line came
                    timer.join()
    assert caught.value.as_error().exit_code == 128 + number
    assert with_argument(mark) == []


def test_an_error_while_listening_ends_the_command(mark: str) -> None:
    def fail(_line: str) -> None:
        raise RuntimeError("listener")

    with pytest.raises(RuntimeError, match="listener"):
        run_command(["sh", "-c", f"echo x; sleep {mark}"], env=ENV, on_line=fail)
    assert with_argument(mark) == []


def test_other_children_of_ours_are_left_alone(mark: str) -> None:
    with subprocess.Popen(["sleep", mark], env=ENV) as other:
        try:
            run_command(["sh", "-c", "true"], env=ENV)
            assert with_argument(mark) == [other.pid]
        finally:
            other.kill()


def test_orphans_are_reaped_while_the_command_runs(tmp_path: Path) -> None:
    orphans: set[int] = set()
    reaped = tmp_path / "reaped"

    def look(line: str) -> None:
        if line != "x":
            orphans.add(int(line))
        elif not orphans & processes().keys():  # it goes on until then
            reaped.touch()

    script = "for i in 1 2 3 4 5; do sh -c 'true & echo $!'; done; until [ -e \"$0\" ]; do echo x; sleep 0.1; done"
    run_command(["sh", "-c", script, str(reaped)], env=ENV, on_line=look, seconds=60)
    assert len(orphans) == 5
    assert zombies() == []


def test_handlers_are_restored_and_a_clean_block_raises_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_cleaning_up_may_run_commands_while_signals_come() -> None:
    cleaned: list[str] = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(run_command(["echo", "cleaned"], env=ENV).output)

    with pytest.raises(Interrupted), stop_signals():
        work()
    assert cleaned == ["cleaned"]


def test_killing_us_ends_the_command(mark: str) -> None:
    program = f"""
        import os
        from packager.system.process import run_command
        run_command(["sleep", "{mark}"], env=dict(os.environ))
    """
    with subprocess.Popen(python(program), env={**ENV, "PYTHONPATH": str(Path.cwd())}) as ours:
        try:
            wait_for(lambda: bool(sleeping(mark)))
        finally:
            ours.kill()
    wait_for(lambda: not with_argument(mark))


def sleeping(mark: str) -> list[int]:
    return [
        pid for pid in with_argument(mark) if Path("/proc", str(pid), "cmdline").read_bytes().startswith(b"sleep\0")
    ]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("script", "seconds", "words"),
    [
        ("sleep {mark} & sleep {mark}", 1.0, "had not ended after 1 s"),
        ("sleep {mark} & while :; do echo y; done", 60.0, "wrote more than 1000 bytes"),
        ("sleep {mark} & exec >&- 2>&-; sleep {mark}", 1.0, "had not ended after 1 s"),
    ],
)
def test_a_command_that_runs_or_writes_without_an_end(mark: str, script: str, seconds: float, words: str) -> None:
    argv = ["sh", "-c", script.format(mark=mark)]
    with pytest.raises(OutOfBoundsError, match=words):
        run_command(argv, env=ENV, capture=True, grace=1.0, seconds=seconds, most=1000)
    assert with_argument(mark) == []
    assert zombies() == []
