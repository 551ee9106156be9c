from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from packager import start
from packager.errors import Interrupted
from packager.system import signals
from packager.system.signals import deferred_stop, finish_work, private_folder, raise_pending_stop, stop_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def stop_now() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_private_folder_is_gone_after_the_block(tmp_path: Path) -> None:
    with private_folder("a-", tmp_path) as folder:
        (folder / "file").touch()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list(tmp_path.iterdir())


def test_a_stop_in_the_block_takes_the_folder_along(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), stop_signals(), private_folder("a-", tmp_path):
        stop_now()
        raise AssertionError("the stop came too late")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["mkdtemp", "rmtree"])
def test_a_stop_while_the_folder_is_made_or_removed_waits_until_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    module = tempfile if moment == "mkdtemp" else shutil
    real = getattr(module, moment)

    def interrupted(*args: object, **options: object) -> object:
        result = real(*args, **options)
        stop_now()
        return result

    monkeypatch.setattr(module, moment, interrupted)
    with pytest.raises(Interrupted), stop_signals(), private_folder("a-", tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_is_removed_although_a_thread_goes_on_writing(tmp_path: Path) -> None:
    wrote = threading.Event()

    def write(folder: Path) -> None:
        end, number = time.monotonic() + 0.5, 2000
        while time.monotonic() < end:
            with suppress(OSError):  # it is removed at the same time
                while time.monotonic() < end:
                    (folder / str(number)).touch()
                    number += 1
                    wrote.set()

    with private_folder("a-", tmp_path) as folder:
        (folder / "deep").mkdir()
        for number in range(2000):
            (folder / "deep" / str(number)).touch()
        thread = threading.Thread(target=write, args=(folder / "deep",))
        thread.start()
        assert wrote.wait(60)
    thread.join()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_made_read_only_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.rmtree

    def as_another_user(path: Path, *, ignore_errors: bool) -> None:  # root may remove everything
        folders = (path, path / "in", path / "in" / "side")
        if path.exists() and all(one.stat().st_mode & 0o700 == 0o700 for one in folders):
            real(path, ignore_errors=ignore_errors)

    with private_folder("a-", tmp_path) as folder:
        (folder / "in" / "side").mkdir(parents=True)
        (folder / "in" / "out").symlink_to(tmp_path)
        for path in (folder / "in" / "side", folder / "in", folder):
            path.chmod(0o500)
        tmp_path.chmod(0o755)
        monkeypatch.setattr(shutil, "rmtree", as_another_user)
    assert not list(tmp_path.iterdir())
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_folder_that_can_not_be_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with private_folder("a-", tmp_path) as folder:
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
        monkeypatch.setattr(signals, "_REMOVAL", 0.1)
    assert str(folder) in caplog.text


def test_a_stop_that_was_held_back_is_raised_when_asked_for() -> None:
    with pytest.raises(Interrupted), stop_signals():
        with deferred_stop():
            stop_now()
        raise_pending_stop()
        raise AssertionError("the stop was lost")


def test_a_stop_after_the_work_is_done_changes_nothing() -> None:
    with stop_signals():
        finish_work()
        stop_now()


def test_a_second_stop_is_ignored() -> None:
    cleaned = False
    with pytest.raises(Interrupted) as caught, stop_signals():
        try:
            stop_now()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            cleaned = True
    assert cleaned
    assert caught.value.signal_number == signal.SIGTERM


def _wait_for_the_stop() -> None:
    for _ in range(1000):
        time.sleep(0.01)
    raise AssertionError("the stop was lost")


def _between_blocks(done: list[str]) -> None:
    """What stands in contextlib, say: the code of a library that a stop must not leave in the middle."""
    program = "kill(getpid(), 15)\nfor _ in range(1000): pass\ndone.append('all of it')"
    exec(program, {"__name__": "contextlib", "kill": os.kill, "getpid": os.getpid, "done": done})  # noqa: S102


class _Killing:
    def __init__(self, done: list[str]) -> None:
        self._done = done

    def __del__(self) -> None:
        stop_now()
        self._done.append("all of it")


def _closed_generator(done: list[str]) -> None:
    def generate() -> Iterator[None]:
        try:
            yield
        finally:
            done.append("as far as it came")
            stop_now()

    generator = generate()
    next(generator)
    del generator  # Python closes it, and lets no exception out


@pytest.mark.parametrize("place", [_between_blocks, _Killing, _closed_generator])
def test_a_stop_in_a_place_that_it_can_not_leave_comes_a_moment_later(
    place: Callable[[list[str]], object], capfd: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []
    with pytest.raises(Interrupted) as caught, stop_signals():
        place(done)
        assert len(done) == 1
        _wait_for_the_stop()
    assert caught.value.signal_number == signal.SIGTERM
    assert len(done) == 1
    assert capfd.readouterr().err == ""


@pytest.fixture
def no_new_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(signals, "start_new_thread", refuse)


@pytest.mark.usefixtures("no_new_threads")
def test_a_stop_that_no_thread_can_bring_again_comes_at_once() -> None:
    done: list[str] = []
    with pytest.raises(Interrupted), stop_signals():
        _between_blocks(done)
    assert not done


@pytest.mark.usefixtures("no_new_threads")
def test_a_stop_that_was_lost_and_no_thread_can_bring_again_is_kept() -> None:
    done: list[str] = []
    with pytest.raises(Interrupted), stop_signals():
        _closed_generator(done)
        assert done
        raise_pending_stop()
        raise AssertionError("the stop was lost")


def test_what_else_nobody_can_raise_is_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: told.append(unraisable.exc_value))

    class Failing:
        def __del__(self) -> None:
            raise ValueError("of its own")

    with stop_signals():
        Failing()
    assert [str(error) for error in told] == ["of its own"]


def test_a_folder_that_a_thread_makes_anew_after_a_stop_is_removed(tmp_path: Path) -> None:
    threads: list[threading.Thread] = []

    def make_anew(folder: Path) -> None:
        while folder.exists():
            time.sleep(0.001)
        folder.mkdir()

    with pytest.raises(Interrupted), stop_signals(), private_folder("a-", tmp_path) as folder:
        threads.append(threading.Thread(target=make_anew, args=(folder,)))
        threads[0].start()
        stop_now()
    threads[0].join()
    assert not list(tmp_path.iterdir())


def test_a_stop_is_answered_to_the_end_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with stop_signals():
        start.answer_stop(signal.SIGTERM, None)
    assert ended == [143]
    start.answer_stop(signal.SIGTERM, None)
    assert ended == [143]
