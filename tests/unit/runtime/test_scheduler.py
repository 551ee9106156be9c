from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from packager.runtime.odahu_runtime import granian_worker, threaded_worker
from packager.runtime.odahu_runtime.batching import Limits
from packager.runtime.odahu_runtime.http import Job, Request, error_reply
from packager.runtime.odahu_runtime.inputs import Batch
from packager.runtime.odahu_runtime.prediction import Part, Prediction
from packager.runtime.odahu_runtime.scheduler import PREDICTING, READING, WAITING, Exchange, Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packager.runtime.odahu_runtime.http import Reply

REPLIES = {READING: error_reply(408, ""), WAITING: error_reply(504, "wait"), PREDICTING: error_reply(504, "predict")}
OK = error_reply(200, "ok")
SURE = 4  # looks in a row


class Desk:
    def __init__(self, threads: int, timeout: float = 30) -> None:
        self.answers: dict[Exchange, list[Reply]] = {}
        self.done = threading.Semaphore(0)
        self.gate = Gate(threads, timeout, self.answer)
        self.gate.start()

    def answer(self, exchange: Exchange, reply: Reply) -> None:
        self.answers.setdefault(exchange, []).append(reply)
        self.done.release()

    def enter(self, age: float = 0) -> Exchange:
        exchange = Exchange(None, Request("POST", "/", "-", lambda _: None))
        exchange.began -= age
        self.gate.enter(exchange)
        return exchange

    def submit(self, exchange: Exchange, work: Callable[[], Reply]) -> None:
        """As the threads of a server do: whoever submits may have to predict."""
        job = Job(False, lambda *_: work())  # noqa: FBT003
        threading.Thread(target=self.gate.submit, args=(exchange, job, b""), daemon=True).start()

    def wait(self) -> None:
        assert self.done.acquire(timeout=30)

    def stand_by(self) -> None:
        """Have a thread that stands by, as while predictions are brief."""
        self.gate.submit(self.enter(), Job(False, lambda *_: OK), b"")  # noqa: FBT003
        self.wait()
        threading.Thread(target=self.gate.rest, daemon=True).start()
        wait_until(self.gate._standing_by.locked)  # noqa: SLF001


class Steps(Prediction):
    """A prediction that notes its steps; the body says which it is."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.held, self.go_on = threading.Event(), threading.Event()

    def read(self, request: Request, body: bytes) -> Part | Reply:
        self.taken.append(("read", body))
        return REPLIES[READING] if body == b"bad" else Part(self, request, Batch([body]), {})

    def predict(self, part: Part) -> Any:
        body = part.batch.data[0]
        self.taken.append(("predict", body))
        if body == b"hold":
            self.hold()
        if body == b"exit":
            raise SystemExit(3)
        return REPLIES[WAITING] if body == b"fail" else (body, [])

    def finish(self, part: Part, result: Any) -> Reply:
        assert part.batch.data == [result[0]]
        self.taken.append(("finish", result[0]))
        if result[0] == b"hold finish":
            self.hold()
        return OK

    def hold(self) -> None:
        self.held.set()
        assert self.go_on.wait(30)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_every_request_gets_its_own_answer() -> None:
    desk = Desk(3)
    exchanges = [desk.enter() for _ in range(50)]
    for number, exchange in enumerate(exchanges):
        desk.submit(exchange, lambda number=number: error_reply(200 + number, ""))  # type: ignore[misc]
    for _ in exchanges:
        desk.wait()
    assert [desk.answers[exchange][0].status for exchange in exchanges] == [200 + number for number in range(50)]
    assert len(desk.gate) == 0


def test_while_predictions_are_brief_one_thread_makes_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packager.runtime.odahu_runtime.scheduler._LATE", 10.0)
    desk = Desk(4)
    threads: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(*, hold: bool = False) -> Reply:
        threads.append(threading.get_ident())
        if hold:
            begun.set()
            assert go_on.wait(30)
        return OK

    desk.submit(desk.enter(), lambda: work(hold=True))
    assert begun.wait(30)
    for _ in range(5):
        desk.submit(desk.enter(), work)
    wait_until(lambda: len(desk.gate._waiting) == 5)  # noqa: SLF001
    assert len(threads) == 1
    go_on.set()
    for _ in range(6):
        desk.wait()
    assert (len(threads), len(set(threads))) == (6, 1)


def test_when_one_takes_long_the_others_take_part() -> None:
    desk = Desk(2)
    go_on = threading.Event()

    def hold() -> Reply:
        assert go_on.wait(30)
        return error_reply(201, "")

    slow, brisk = desk.enter(), desk.enter()
    desk.submit(slow, hold)
    desk.submit(brisk, lambda: OK)
    desk.wait()
    assert (list(desk.answers), desk.answers[brisk][0].status) == ([brisk], 200)
    go_on.set()
    desk.wait()
    assert desk.answers[slow][0].status == 201


@pytest.mark.parametrize(("state", "status"), [(READING, 408), (WAITING, 504), (PREDICTING, 504)])
def test_who_is_late_is_answered_once(state: str, status: int) -> None:
    desk = Desk(2, timeout=30)
    late, soon = desk.enter(age=31), desk.enter(age=1)
    late.state = state
    assert not desk.gate.expire(REPLIES)
    assert [reply.status for reply in desk.answers[late]] == [status]
    assert soon not in desk.answers
    assert not desk.gate.reply(late, OK)
    assert not desk.gate.expire({})


def test_what_waited_too_long_is_never_predicted() -> None:
    desk = Desk(1)
    late, next_one = desk.enter(age=31), desk.enter()
    desk.gate.expire(REPLIES)
    desk.submit(late, lambda: pytest.fail("predicted"))
    desk.submit(next_one, lambda: OK)
    desk.wait()
    desk.wait()
    assert desk.answers[next_one] == [OK]


def test_a_model_that_keeps_every_thread_is_given_up() -> None:
    desk = Desk(2, timeout=30)
    back = threading.Event()
    held = []
    for number in range(2):
        exchange = desk.enter(age=31)
        held.append(exchange)
        desk.submit(exchange, lambda: OK if back.wait(30) else REPLIES[READING])
        until = time.monotonic() + 30
        while exchange.state != PREDICTING and time.monotonic() < until:
            time.sleep(0.001)
        looks = [desk.gate.expire(REPLIES) for _ in range(SURE + 1)]
        assert looks == [number == 1 and look >= SURE - 1 for look in range(SURE + 1)]
    waiting = desk.enter()
    desk.gate.give_up(error_reply(503, "gone"))
    assert [reply.status for reply in desk.answers[waiting]] == [503]
    back.set()
    until = time.monotonic() + 30
    while desk.gate.expire(REPLIES) and time.monotonic() < until:
        time.sleep(0.001)
    assert not desk.gate.expire(REPLIES)
    assert [desk.answers[exchange][0].status for exchange in held] == [504, 504]


def test_a_model_that_comes_back_after_a_stall_is_not_given_up() -> None:
    desk = Desk(1, timeout=30)
    for _ in range(3):  # each is another one, so their looks don't add up
        back = threading.Event()
        late = desk.enter(age=31)
        desk.submit(late, lambda back=back: OK if back.wait(30) else REPLIES[READING])  # type: ignore[misc]
        wait_until(lambda late=late: late.state == PREDICTING)  # type: ignore[misc]
        assert [desk.gate.expire(REPLIES) for _ in range(SURE - 1)] == [False] * (SURE - 1)
        assert desk.answers[late] == [REPLIES[PREDICTING]]
        back.set()
        wait_until(lambda: not desk.gate._stuck and bool(desk.gate._free))  # noqa: SLF001
    assert not desk.gate.expire(REPLIES)


def test_a_stall_is_no_time_that_the_model_keeps_a_thread() -> None:
    gate = Desk(2, timeout=30).gate
    gate._stuck[0] = time.monotonic() - 31  # noqa: SLF001
    assert [gate.expire(REPLIES) for _ in range(SURE)] == [False] * (SURE - 1) + [True]


def test_without_a_limit_nothing_is_late() -> None:
    desk = Desk(1, timeout=0)
    desk.enter(age=1e6)
    assert not desk.gate.expire({})
    assert len(desk.gate) == 1


def test_who_submits_predicts_and_takes_those_along_that_came_meanwhile() -> None:
    desk = Desk(1)
    first, second = desk.enter(), desk.enter()
    threads = []

    def one() -> Reply:
        threads.append(threading.get_ident())
        if len(threads) == 1:
            # While the only number is taken, so that it has to wait for this one's end.
            desk.gate.submit(second, Job(False, lambda *_: one()), b"")  # noqa: FBT003
            assert second.state == WAITING
        return OK

    desk.gate.submit(first, Job(False, lambda *_: one()), b"")  # noqa: FBT003
    assert threads == [threading.get_ident()] * 2
    assert list(desk.answers) == [first, second]
    assert desk.gate.borrowed == 1


def test_one_of_those_who_hear_of_requests_never_stands_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packager.runtime.odahu_runtime.scheduler._IDLE", 30.0)
    desk = Desk(2)
    desk.gate.submit(desk.enter(), Job(False, lambda *_: OK), b"")  # noqa: FBT003
    back = threading.Semaphore(0)

    def rest() -> None:
        desk.gate.rest()
        back.release()

    for _ in range(3):
        threading.Thread(target=rest, daemon=True).start()
    assert back.acquire(timeout=30)
    assert not back.acquire(timeout=0.2)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a busy machine makes no difference to who waits for whom."""
    for name in ("_PATIENCE", "_ON_ITS_WAY", "_BRIEF", "_LOOK"):
        monkeypatch.setattr(f"packager.runtime.odahu_runtime.scheduler.{name}", 30.0)


def submit_all(desk: Desk, steps: Steps, bodies: list[bytes]) -> list[Exchange]:
    """Let all their heads come first, and then their bodies, in the one thread that hears of them."""
    exchanges = [desk.enter() for _ in bodies]
    for exchange in exchanges:
        desk.gate.expect(exchange)
    for exchange, body in zip(exchanges, bodies, strict=True):
        desk.gate.submit(exchange, steps.job(shares=False), body)
    return exchanges


@pytest.mark.usefixtures("patient")
def test_those_that_come_together_take_each_step_together() -> None:
    desk, steps = Desk(2), Steps()
    desk.stand_by()
    bodies = [b"0", b"bad", b"fail", b"3", b"4", b"5"]
    exchanges = submit_all(desk, steps, bodies)
    # The last bodies aren't waited for: the third is the first that comes with fewer than four behind it.
    together = [
        *(("read", body) for body in bodies[:3]),
        *(("predict", body) for body in (b"0", b"fail")),
        ("finish", b"0"),
    ]
    assert steps.taken[: len(together)] == together
    assert [[reply.status for reply in desk.answers[exchange]] for exchange in exchanges] == [
        [status] for status in (200, 408, 504, 200, 200, 200)
    ]
    assert len(desk.gate) == 0


@pytest.mark.usefixtures("patient")
def test_no_more_than_a_few_take_a_step_together() -> None:
    desk, steps = Desk(1), Steps()
    desk.stand_by()
    submit_all(desk, steps, [b"%d" % number for number in range(40)])
    first = [step for step, _ in steps.taken].index("predict")
    assert first == 16
    assert len(desk.answers) == 41


def test_nobody_waits_for_bodies_that_do_not_come() -> None:
    desk, steps = Desk(1), Steps()
    desk.stand_by()
    ready = desk.enter()
    for _ in range(4):
        desk.gate.expect(desk.enter())
    desk.gate.submit(ready, steps.job(shares=False), b"0")  # served at once, or soon by who stands by
    desk.wait()
    assert desk.answers[ready] == [OK]


def test_without_anyone_who_would_see_it_nobody_waits() -> None:
    desk, steps = Desk(1), Steps()
    ready = desk.enter()
    for _ in range(4):
        desk.gate.expect(desk.enter())
    desk.gate.submit(ready, steps.job(shares=False), b"0")
    assert desk.answers[ready] == [OK]


@pytest.mark.parametrize(("threads", "answered"), [(1, [b"0", b"1"]), (2, [b"0", b"1", b"3", b"4"])])
def test_one_that_the_model_keeps_holds_up_none_that_shared_its_steps(threads: int, answered: list[bytes]) -> None:
    desk, steps = Desk(threads), Steps()
    bodies = [b"0", b"1", b"hold", b"3", b"4"]
    exchanges = submit_together(desk, steps, bodies)
    assert steps.held.wait(30)
    time.sleep(0.03)  # now it is late
    assert not desk.gate.expire(REPLIES)
    for _ in answered:
        desk.wait()
    assert [body for exchange, body in zip(exchanges, bodies, strict=True) if exchange in desk.answers] == answered
    steps.go_on.set()
    for _ in range(len(bodies) - len(answered)):
        desk.wait()
    assert all(replies == [OK] for replies in desk.answers.values())


def test_where_calls_are_shared_who_hears_of_requests_never_stands_by() -> None:
    done = threading.Semaphore(0)
    gate = Gate(1, 30, lambda *_: done.release(), lambda parts: [OK for _ in parts], Limits(8, 0))
    gate.start()
    for _ in range(3):
        exchange = Exchange(None, Request("POST", "/", "-", lambda _: None))
        gate.enter(exchange)
        gate.submit(exchange, Steps().job(shares=True), b"0")
        assert done.acquire(timeout=30)
        began = time.monotonic()
        gate.rest()
        assert time.monotonic() - began < 0.5  # it would be a second


def submit_together(desk: Desk, steps: Steps, bodies: list[bytes]) -> list[Exchange]:
    """Have them predicted by a thread of its own, a step at a time."""
    exchanges = [desk.enter() for _ in bodies]
    items = [(exchange, steps.job(shares=False), body) for exchange, body in zip(exchanges, bodies, strict=True)]
    desk.gate._waiting.extend(items[:-1])  # noqa: SLF001
    threading.Thread(target=desk.gate.submit, args=items[-1], daemon=True).start()
    return exchanges


def test_what_gets_out_of_a_step_is_one_answer_and_harms_nobody_else() -> None:
    desk, steps = Desk(1), Steps()
    exchanges = submit_together(desk, steps, [b"0", b"exit", b"2"])
    for _ in exchanges:
        desk.wait()
    assert [desk.answers[exchange][0].status for exchange in exchanges] == [200, 500, 200]
    assert b"SystemExit" in desk.answers[exchanges[1]][0].body
    wait_until(lambda: desk.gate._free == [0])  # noqa: SLF001


def test_an_answer_that_is_never_finished_keeps_one_thread_and_is_given_up() -> None:
    desk, steps = Desk(1, timeout=0.2), Steps()
    held = submit_together(desk, steps, [b"hold finish", b"1"])
    assert steps.held.wait(30)
    time.sleep(0.03)
    began = time.monotonic()
    desk.gate.rest()
    late = desk.enter()
    desk.gate.submit(late, Job(False, lambda *_: OK), b"")  # noqa: FBT003
    assert time.monotonic() - began < 5  # whoever hears of requests goes on to
    assert not desk.gate.expire(REPLIES)
    desk.wait()
    assert list(desk.answers) == [held[1]]
    wait_until(lambda: desk.gate.expire(REPLIES))
    assert desk.answers[held[0]] == [REPLIES[PREDICTING]]
    steps.go_on.set()
    wait_until(lambda: not desk.gate.expire(REPLIES))


def test_one_that_has_just_begun_does_not_hide_one_that_is_late() -> None:
    gate = Desk(4).gate
    now = time.monotonic()
    gate._running.update({0: now - 1, 1: now + 30})  # noqa: SLF001
    assert not gate._is_brisk()  # noqa: SLF001
    gate._last = now - 0.5  # noqa: SLF001
    assert gate._is_brisk()  # noqa: SLF001


def test_after_bodies_that_did_not_come_nobody_waits_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PATIENCE", "_ON_ITS_WAY"):
        monkeypatch.setattr(f"packager.runtime.odahu_runtime.scheduler.{name}", 30.0)
    desk, steps = Desk(1), Steps()
    desk.stand_by()
    for number in range(2):
        for _ in range(4):
            desk.gate.expect(desk.enter())
        exchange = desk.enter()
        desk.gate.submit(exchange, steps.job(shares=False), b"0")
        if not number:
            desk.wait()  # by the one who stands by
        assert desk.answers[exchange] == [OK]


class Clock:
    """A clock on which time goes by only in sleep; the nth sleep may take longer, or have an effect.

    It's for the thread that makes it: threads that other tests have left standing by have the machine's.
    """

    def __init__(self, slow: dict[int, float] | None = None, during: Callable[[int], None] = lambda _: None) -> None:
        self.now = 1000.0
        self.worked = 0.0
        self.sleeps = 0
        self._thread = threading.get_ident()
        self._slow = slow or {}
        self._during = during

    def monotonic(self) -> float:
        return self.now if threading.get_ident() == self._thread else time.monotonic()

    def thread_time(self) -> float:
        return self.worked if threading.get_ident() == self._thread else time.thread_time()

    def sleep(self, seconds: float) -> None:
        if threading.get_ident() != self._thread:
            time.sleep(seconds)
            return
        self.sleeps += 1
        self.now += self._slow.get(self.sleeps, seconds)
        self._during(self.sleeps)

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("scheduler", "granian_worker", "threaded_worker"):
            monkeypatch.setattr(f"packager.runtime.odahu_runtime.{module}.time", self)


def make_granian_worker() -> Any:
    worker: Any = granian_worker._Worker.__new__(granian_worker._Worker)  # noqa: SLF001
    worker.cfg = SimpleNamespace(graceful_timeout=25)
    worker.notify = lambda: None
    worker._gate = Desk(1).gate  # noqa: SLF001
    return worker


@pytest.mark.parametrize(("slow", "looks"), [({}, 12), ({12: 1.0}, 24), ({5: 1.0, 9: 0.09}, 17)])
def test_a_look_in_which_granians_worker_was_stalled_is_not_quiet(
    slow: dict[int, float], looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(slow)
    clock.use(monkeypatch)
    make_granian_worker()._finish_requests(REPLIES)  # noqa: SLF001
    assert clock.sleeps == looks


@pytest.mark.parametrize(("ends", "looks"), [(3, 3), (99, 20)])
def test_the_end_of_granians_connections_is_awaited_by_looks(
    ends: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock({1: 60.0})
    clock.use(monkeypatch)

    def wait(seconds: float) -> bool:
        clock.sleep(seconds)
        return clock.sleeps == ends

    worker = make_granian_worker()
    waiting = Exchange(None, Request("POST", "/", "-", lambda _: None))
    worker._gate.enter(waiting)  # noqa: SLF001
    worker._await_end(SimpleNamespace(wait=wait), lost=False)  # noqa: SLF001
    assert (clock.sleeps, len(worker._gate)) == (looks, 1)  # noqa: SLF001


@pytest.fixture
def ending_worker() -> Iterator[Any]:
    """gunicorn's, after SIGTERM, without its loop."""
    worker: Any = threaded_worker._Worker.__new__(threaded_worker._Worker)  # noqa: SLF001
    worker.cfg = SimpleNamespace(graceful_timeout=25)
    worker.alive = worker._closing = True  # noqa: SLF001
    worker.futures = deque()
    worker.PIPE = os.pipe()
    os.set_blocking(worker.PIPE[0], False)
    worker._timeout, worker._active = 30, 0  # noqa: SLF001
    worker._application = SimpleNamespace(closing=False)  # noqa: SLF001
    worker._gate = Desk(1).gate  # noqa: SLF001
    try:
        yield worker
    finally:
        for end in worker.PIPE:
            os.close(end)


@pytest.mark.parametrize(
    ("slow", "stalled", "busy", "looks"),
    [
        ({}, (), (), 6),
        ({6: 1.0}, (), (), 12),  # all the process
        ({}, (6, 7), (), 13),  # the loop alone
        ({}, (), (4, 5), 11),  # the loop has handed over a request that no thread of the pool has begun
    ],
)
def test_a_look_in_which_gunicorns_worker_could_hear_of_nobody_is_not_quiet(
    ending_worker: Any,
    slow: dict[int, float],
    stalled: tuple[int, ...],
    busy: tuple[int, ...],
    looks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turn(look: int) -> None:
        ending_worker.futures = deque(["a request"] if look in busy else [])
        if look not in stalled:
            run_loop(ending_worker)

    clock = Clock(slow, turn)
    clock.use(monkeypatch)
    ending_worker._watch()  # noqa: SLF001
    assert (clock.sleeps, ending_worker.alive) == (looks, False)


def test_a_loop_of_gunicorns_that_never_goes_on_ends_in_time(
    ending_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    clock.use(monkeypatch)
    ending_worker._watch()  # noqa: SLF001
    assert 22 < clock.now - 1000 < 24


def run_loop(worker: Any) -> None:
    """Do what gunicorn's loop does when there is something to read in the pipe."""
    for pipe in select.select([worker.PIPE[0]], [], [], 0)[0]:
        worker._drain(pipe)  # noqa: SLF001


def predict_often(desk: Desk, clock: Clock, *, seconds: float, worked: float, times: int = 100) -> None:
    """In this thread; each takes so many seconds, and so many of a processor."""

    def work(*_: object) -> Reply:
        clock.now += seconds
        clock.worked += worked
        return OK

    for _ in range(times):
        desk.gate.submit(desk.enter(), Job(False, work), b"")  # noqa: FBT003


@pytest.mark.parametrize(
    ("seconds", "worked", "brisk"),
    [
        pytest.param(0.001, 0.0, True, id="brief"),
        pytest.param(0.004, 0.004, True, id="holds-the-interpreter"),
        pytest.param(0.004, 0.001, False, id="waits"),
        pytest.param(0.006, 0.006, False, id="long"),
    ],
)
def test_brief_are_those_that_let_nobody_else_in(
    monkeypatch: pytest.MonkeyPatch, seconds: float, worked: float, *, brisk: bool
) -> None:
    desk, clock = Desk(4), Clock()
    clock.use(monkeypatch)
    predict_often(desk, clock, seconds=seconds, worked=worked)
    assert desk.gate._is_brisk() is brisk  # noqa: SLF001


def test_what_seems_long_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Side by side predictions hold each other up; one after the other they are brief again."""
    desk, clock = Desk(4), Clock()
    clock.use(monkeypatch)
    for _ in range(2):
        predict_often(desk, clock, seconds=0.02, worked=0.003)
        desk.gate.expire(REPLIES)
    predict_often(desk, clock, seconds=0.02, worked=0.003, times=1)
    assert not desk.gate._is_brisk()  # noqa: SLF001

    clock.now += 11

    def side_by_side(*_: object) -> Reply:
        desk.gate.expire(REPLIES)  # this one had begun before
        clock.now += 0.5
        return OK

    desk.gate.submit(desk.enter(), Job(False, side_by_side), b"")  # noqa: FBT003
    predict_often(desk, clock, seconds=0.003, worked=0.003)
    assert desk.gate._is_brisk()  # noqa: SLF001
    desk.gate.expire(REPLIES)
    predict_often(desk, clock, seconds=0.02, worked=0.02)
    desk.gate.expire(REPLIES)
    assert not desk.gate._is_brisk()  # noqa: SLF001
