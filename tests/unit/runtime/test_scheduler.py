from __future__ import annotations

import threading
import time
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest

from packager.runtime.odahu_runtime.batching import BatchLimits
from packager.runtime.odahu_runtime.http import Request, error_reply
from packager.runtime.odahu_runtime.prediction import Job, Prediction
from packager.runtime.odahu_runtime.scheduler import (
    HANG_GRACE,
    MAX_CHECK_STEP,
    PREDICTING,
    READING,
    WAITING,
    Exchange,
    RequestScheduler,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from packager.runtime.odahu_runtime.http import Reply

OK = error_reply(200, "ok")
GONE = error_reply(503, "gone")
TIMEOUT = 30.0
NO_BATCHES = BatchLimits()


class Hold:
    """A prediction that begins, and ends when the test says so."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> Reply:
        self.begun.set()
        assert self.go_on.wait(60)
        return OK


class SchedulerHarness:
    """A scheduler whose clock is the test's, and the responses that it has sent."""

    def __init__(self, threads: int = 1, timeout: float = TIMEOUT, batches: BatchLimits = NO_BATCHES) -> None:
        self.now = 1000.0
        self.sent: SimpleQueue[tuple[Exchange, int]] = SimpleQueue()
        self.batch_sizes: list[int] = []
        self.scheduler = RequestScheduler(
            threads, timeout, self.send, self.predict_batch, batches, clock=lambda: self.now
        )
        self.scheduler.start()

    def send(self, exchange: Exchange, reply: Reply) -> None:
        self.sent.put((exchange, reply.status))

    def predict_batch(self, requests: list[tuple[Request, Job, bytes]]) -> list[Reply]:
        self.batch_sizes.append(len(requests))
        return [error_reply(int(body), "") for _, _, body in requests]

    def register(self) -> Exchange:
        exchange = Exchange(None, Request("POST", "/", "-", lambda _: None))
        self.scheduler.register(exchange)
        return exchange

    def submit(self, work: Callable[[], Reply], exchange: Exchange | None = None) -> Exchange:
        exchange = exchange or self.register()
        self.scheduler.submit(exchange, Job(reads_body=False, run=lambda *_: work()), b"")
        return exchange

    def hold(self) -> Hold:
        hold = Hold()
        self.submit(hold)
        assert hold.begun.wait(60)
        return hold

    def next_response(self) -> tuple[Exchange, int]:
        return self.sent.get(timeout=60)

    def pass_time(self, seconds: float) -> bool:
        """Let the time pass with a check in each step; return what the last check says."""
        hangs = self.scheduler.check()
        for _ in range(round(seconds / MAX_CHECK_STEP)):
            self.now += MAX_CHECK_STEP
            hangs = self.scheduler.check()
        return hangs


def test_every_request_gets_its_own_response() -> None:
    harness = SchedulerHarness(threads=3)
    expected = {harness.submit(lambda status=status: error_reply(status, "")): status for status in range(200, 250)}  # type: ignore[misc]
    assert dict(harness.next_response() for _ in expected) == expected
    assert len(harness.scheduler) == 0
    assert harness.sent.empty()


def test_as_many_predictions_as_threads_run_at_once_and_the_next_waits() -> None:
    harness = SchedulerHarness(threads=2)
    holds = [harness.hold() for _ in range(2)]
    waiting = harness.submit(lambda: OK)
    assert waiting.state == WAITING
    holds[0].go_on.set()
    assert [harness.next_response()[1] for _ in range(2)] == [200, 200]
    assert len(harness.scheduler) == 1
    holds[1].go_on.set()
    assert harness.next_response()[1] == 200


def test_predictions_start_in_the_order_of_submission() -> None:
    harness = SchedulerHarness()
    hold = harness.hold()
    exchanges = [harness.submit(lambda: OK) for _ in range(5)]
    hold.go_on.set()
    harness.next_response()
    assert [harness.next_response()[0] for _ in exchanges] == exchanges


@pytest.mark.parametrize(("state", "status"), [(READING, 408), (WAITING, 504), (PREDICTING, 504)])
def test_request_beyond_the_timeout_is_answered_once_by_its_state(state: str, status: int) -> None:
    harness = SchedulerHarness(threads=2)
    late = harness.register()
    late.state = state
    harness.now += TIMEOUT
    in_time = harness.register()
    assert not harness.pass_time(1)
    assert harness.next_response() == (late, status)
    assert not harness.scheduler.reply(late, OK)
    assert harness.sent.empty()
    assert harness.scheduler.reply(in_time, OK)


def test_request_that_timed_out_in_the_queue_is_not_predicted() -> None:
    harness = SchedulerHarness()
    hold = harness.hold()
    predicted: list[str] = []

    def predict_late() -> Reply:
        predicted.append("late")
        return OK

    late = harness.submit(predict_late)
    harness.pass_time(TIMEOUT + 1)
    assert {harness.next_response() for _ in range(2)} >= {(late, 504)}
    hold.go_on.set()
    in_time = harness.submit(lambda: OK)
    assert harness.next_response() == (in_time, 200)
    assert predicted == []


def test_result_of_a_prediction_that_timed_out_is_dropped() -> None:
    harness = SchedulerHarness()
    hold = harness.hold()
    harness.pass_time(TIMEOUT + 0.5)
    assert harness.next_response()[1] == 504
    hold.go_on.set()
    following = harness.submit(lambda: OK)
    assert harness.next_response() == (following, 200)


def test_without_a_timeout_nothing_is_late_and_nothing_hangs() -> None:
    harness = SchedulerHarness(timeout=0)
    hold = harness.hold()
    harness.now += 1e6
    assert not harness.pass_time(5)
    assert len(harness.scheduler) == 1
    hold.go_on.set()


def test_model_hangs_when_it_keeps_every_thread_beyond_the_timeout() -> None:
    harness = SchedulerHarness(threads=2)
    holds = [harness.hold(), harness.hold()]
    assert not harness.pass_time(TIMEOUT + HANG_GRACE)
    assert harness.pass_time(MAX_CHECK_STEP)
    waiting = harness.register()
    harness.scheduler.reject_all(GONE)
    assert [harness.next_response() for _ in range(3)][-1] == (waiting, 503)
    for hold in holds:
        hold.go_on.set()


def test_model_hangs_when_it_keeps_one_of_several_threads_for_twice_the_timeout() -> None:
    harness = SchedulerHarness(threads=2)
    hold = harness.hold()
    assert not harness.pass_time(2 * TIMEOUT + HANG_GRACE)
    assert harness.pass_time(MAX_CHECK_STEP)
    hold.go_on.set()


def test_thread_that_comes_back_late_is_not_counted_again() -> None:
    harness = SchedulerHarness()
    for _ in range(3):
        hold = harness.hold()
        assert not harness.pass_time(TIMEOUT + HANG_GRACE)
        assert harness.next_response()[1] == 504
        hold.go_on.set()
        assert harness.submit(lambda: OK) == harness.next_response()[0]


def test_suspended_process_makes_no_prediction_hang() -> None:
    harness = SchedulerHarness()
    hold = harness.hold()
    for _ in range(3):
        harness.now += 3600
        assert not harness.scheduler.check()
    assert harness.next_response()[1] == 504
    hold.go_on.set()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), RuntimeError("x")])
def test_error_that_escapes_a_job_is_a_500_and_the_thread_goes_on(error: BaseException) -> None:
    harness = SchedulerHarness()

    def fail() -> Reply:
        raise error

    failing = harness.submit(fail)
    assert harness.next_response() == (failing, 500)
    following = harness.submit(lambda: OK)
    assert harness.next_response() == (following, 200)


def test_response_that_can_not_be_sent_is_logged_and_the_thread_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("packager.runtime.odahu_runtime.log.write", lambda _, text: lines.append(text))
    answered = threading.Event()
    statuses: list[int] = []

    def send(_: Exchange, reply: Reply) -> None:
        statuses.append(reply.status)
        if reply.status == 201:
            raise OSError("no connection")
        answered.set()

    scheduler = RequestScheduler(1, TIMEOUT, send)
    scheduler.start()
    for status in (201, 200):
        exchange = Exchange(None, Request("POST", "/", "-", lambda _: None))
        scheduler.register(exchange)
        scheduler.submit(exchange, Job(reads_body=False, run=lambda *_, status=status: error_reply(status, "")), b"")
    assert answered.wait(60)
    assert (statuses, lines) == ([201, 200], ["A response can't be sent: OSError: no connection"])


class Batchable(Prediction):
    """A prediction that may share a call."""

    def __init__(self) -> None:
        pass

    def run(self, _request: Request, body: bytes) -> Reply:
        return error_reply(int(body), "")


def submit_batchable(harness: SchedulerHarness, status: int) -> Exchange:
    exchange = harness.register()
    harness.scheduler.submit(exchange, Batchable().job(shares=True), b"%d" % status)
    return exchange


def test_batchable_requests_in_the_queue_share_a_call_up_to_the_limit() -> None:
    harness = SchedulerHarness(batches=BatchLimits(rows=3))
    hold = harness.hold()
    exchanges = [submit_batchable(harness, 200 + number) for number in range(5)]
    hold.go_on.set()
    harness.next_response()
    assert [harness.next_response() for _ in exchanges] == [
        (exchange, 200 + number) for number, exchange in enumerate(exchanges)
    ]
    assert harness.batch_sizes == [3, 2]


def test_batchable_request_waits_for_others_within_the_latency() -> None:
    harness = SchedulerHarness(batches=BatchLimits(rows=2, seconds=60))
    first, second = submit_batchable(harness, 201), submit_batchable(harness, 202)
    assert [harness.next_response() for _ in range(2)] == [(first, 201), (second, 202)]
    assert harness.batch_sizes == [2]


def test_request_that_is_alone_in_its_batch_runs_as_usual() -> None:
    harness = SchedulerHarness(batches=BatchLimits(rows=3))
    exchange = submit_batchable(harness, 201)
    assert harness.next_response() == (exchange, 201)
    assert harness.batch_sizes == []


def test_nothing_is_kept_of_a_request_after_its_response() -> None:
    harness = SchedulerHarness()

    class Work:
        def __call__(self) -> Reply:
            return OK

    work = Work()
    kept = weakref.ref(work)
    harness.submit(work)
    harness.next_response()
    del work
    deadline = time.monotonic() + 60
    while kept() is not None:  # until the thread has returned from its work
        assert time.monotonic() < deadline
        time.sleep(0.001)
