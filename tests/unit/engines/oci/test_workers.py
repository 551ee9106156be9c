"""Threads that end together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from packager.engines.oci.workers import StoppedError, Workers
from packager.errors import BuildError
from packager.models.image import Descriptor
from packager.registry.blobs import BytesBlob

if TYPE_CHECKING:
    from collections.abc import Iterator

KNOWN = Descriptor(media_type="x", digest="sha256:" + "0" * 64, size=1)


class Endless:
    """A blob that never ends by itself."""

    def __init__(self) -> None:
        self.reading = threading.Event()

    def stream(self) -> Iterator[bytes]:
        while True:
            self.reading.set()
            yield b"x"

    def descriptor(self) -> None:
        return None


def read(blob: object) -> None:
    for _ in blob.stream():  # type: ignore[attr-defined]
        pass


def test_results_in_their_order_with_more_work_than_threads() -> None:
    with Workers(threads=2) as workers:
        futures = [workers.start(lambda number=number: number * 2) for number in range(20)]  # type: ignore[misc]
        workers.wait()
        assert [future.result() for future in futures] == list(range(0, 40, 2))


def test_as_many_run_at_once_as_there_are_threads() -> None:
    both = threading.Barrier(2)
    with Workers(threads=2) as workers:
        for _ in range(4):
            workers.start(lambda: both.wait(30))
        workers.wait()


def test_the_first_failure_is_raised_and_ends_the_others() -> None:
    blob, never = Endless(), threading.Event()

    def fail() -> None:
        blob.reading.wait(30)
        raise BuildError("the first")

    def bring() -> None:
        with Workers(threads=2) as workers:
            reading = workers.start(lambda: read(workers.stoppable(blob)))
            waiting.append(reading)
            workers.start(fail)
            waiting.append(workers.start(never.set))  # there is no thread for it until one of the others ends
            workers.start(lambda: read(workers.stoppable(blob)))
            workers.wait()

    waiting: list[object] = []
    with pytest.raises(BuildError, match="the first"):
        bring()
    assert isinstance(waiting[0].exception(timeout=0), StoppedError)  # type: ignore[attr-defined]


def test_an_interruption_ends_them_too() -> None:
    blob = Endless()

    def bring() -> None:
        with Workers() as workers:
            futures.append(workers.start(lambda: read(workers.stoppable(blob))))
            blob.reading.wait(30)
            raise KeyboardInterrupt

    futures: list[object] = []
    with pytest.raises(KeyboardInterrupt):
        bring()
    assert isinstance(futures[0].exception(timeout=0), StoppedError)  # type: ignore[attr-defined]


def test_one_that_hangs_is_left_behind_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packager.engines.oci.workers._SETTLE", 0.01)
    hangs, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        hangs.wait(60)

    def bring() -> None:
        with Workers() as workers:
            workers.start(hang)
            begun.wait(30)
            raise BuildError("no")

    with pytest.raises(BuildError, match="no"):
        bring()
    left = [thread for thread in threading.enumerate() if thread.name.startswith("blob-")]
    assert all(thread.daemon for thread in left)  # the interpreter doesn't wait for it
    assert left
    hangs.set()
    for thread in left:
        thread.join(30)


def test_a_blob_passes_unchanged_while_nothing_fails() -> None:
    with Workers() as workers:
        blob = workers.stoppable(BytesBlob(data=b"data", known=KNOWN))
        assert b"".join(blob.stream()) == b"data"
        assert blob.descriptor() == KNOWN
