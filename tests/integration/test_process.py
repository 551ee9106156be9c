"""run_command with real processes: what it streams, what it keeps, and that nothing of its group outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from packager.errors import Interrupted, ToolMissingError
from packager.system.orphans import nothing_left
from packager.system.process import OutOfBoundsError, run_command
from packager.system.signals import raise_on_stop
from tests.integration.proc import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


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


def zombies() -> list[int]:
    return [entry.pid for entry in processes().values() if entry.is_dead and entry.parent == os.getpid()]


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


def test_what_a_command_leaves_behind_in_its_group_is_ended(mark: str) -> None:
    done = run_command(["sh", "-c", f"sleep {mark} & echo ready"], env=ENV)
    assert (done.returncode, done.output) == (0, "ready")
    wait_for(lambda: with_argument(mark) == [])


def test_what_leaves_its_group_is_ended_where_nothing_may_be_left(mark: str) -> None:
    with nothing_left():
        run_command(["sh", "-c", f"setsid sleep {mark} & (trap '' TERM; setsid sleep {mark} &) & exit 0"], env=ENV)
    assert with_argument(mark) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_ends_the_group_of_a_command(number: signal.Signals, mark: str) -> None:
    script = f"trap '' TERM; sleep {mark} & (trap - TERM; exec sleep {mark}) & echo ready; wait; wait"
    raise_on_stop()
    with pytest.raises(Interrupted) as caught:
        run_command(["sh", "-c", script], env=ENV, on_line=lambda _line: signal.raise_signal(number), grace=0.1)
    assert caught.value.as_error().exit_code == 128 + number
    wait_for(lambda: with_argument(mark) == [])


def test_an_error_while_listening_ends_the_command(mark: str) -> None:
    def fail(_line: str) -> None:
        raise RuntimeError("listener")

    with pytest.raises(RuntimeError, match="listener"):
        run_command(["sh", "-c", f"echo x; sleep {mark}"], env=ENV, on_line=fail)
    wait_for(lambda: with_argument(mark) == [])


def test_other_children_of_ours_are_left_alone(mark: str) -> None:
    with subprocess.Popen(["sleep", mark], env=ENV) as other:
        try:
            run_command(["sh", "-c", "true"], env=ENV)
            assert with_argument(mark) == [other.pid]
        finally:
            other.kill()


def test_cleaning_up_may_run_commands_while_signals_come() -> None:
    cleaned: list[str] = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(run_command(["echo", "cleaned"], env=ENV).output)

    raise_on_stop()
    with pytest.raises(Interrupted):
        work()
    assert cleaned == ["cleaned"]


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
    wait_for(lambda: with_argument(mark) == [])
