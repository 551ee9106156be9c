"""The way of a request through a worker: who waits, how many predict at once, and whose time is up."""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread, get_ident
from typing import TYPE_CHECKING

from . import log
from .batching import Limits, collect
from .http import Reply, error_reply

if TYPE_CHECKING:
    from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple, TypeVar, Union

    from .http import Job, Request
    from .prediction import Part, Result

    _Each = TypeVar("_Each")
    Item = Tuple["Exchange", Job, bytes]

READING, WAITING, PREDICTING = "reading", "waiting", "predicting"
_BRIEF = 0.002  # seconds: predictions that usually take less are made one after the other
# As long as a thread that works keeps the interpreter from those who ask for it (`sys.getswitchinterval()`): they could
# not come in earlier anyway. A model that waits for something else, a database, say, doesn't keep it.
_BRIEF_AT_WORK = 0.005
_ANEW = 10.0  # seconds after which predictions that seem long are measured anew: side by side they take longer
_STEP = 0.002  # seconds after which a step takes in no more
_LATE = 0.02  # seconds that one may take before the others take part
_LOOK = 0.03  # seconds between two looks whether it does; each look disturbs the one that predicts
_COHORT = 16  # requests at most that take a step together
_EXPECTED = 4  # bodies that have to be on their way, if those who wait are to wait for them
_ON_ITS_WAY = 0.02  # seconds after its head in which a body is
_RESCUER = -2  # in place of a number, for the thread that finishes what another has left
_PATIENCE = 0.001  # seconds that those who wait may wait for others
_IDLE = 1.0  # seconds without a prediction, after which nobody stands by
_SHARE = 0.05  # of the newest in what is usual
_SURE = 4  # looks in a row in which the model keeps the same threads, before it is given up
_STALLED = 4  # times its length that a pause may take, before it says that the process was kept from running


class Exchange:
    """One request and its answer.

    Attributes:
        proto: What the server sends the answer with.
        request: What came before the body.
        began: When it came, by the monotonic clock.
        body: What the server still reads the body with, where it can be told to stop.
        state: Where it is: its body is being read, it waits for its turn, or the model has it.
        thread: The number of the thread that predicts for it.
    """

    __slots__ = ("began", "body", "proto", "request", "state", "thread")

    def __init__(self, proto: Any, request: Request) -> None:
        """Begin now."""
        self.proto = proto
        self.request = request
        self.began = time.monotonic()
        self.state = READING
        self.body: Any = None
        self.thread = -1


class Gate:
    """The requests of a worker that are not answered yet. Every method may be called from any thread.

    A request is predicted by the thread that submits it: to hand it to another takes as long as a small model. Threads
    that have something to do at the same time hand the interpreter to each other, which takes as long again; so while
    predictions are brief, one thread makes them all, hears of requests between them, and the others stand by. They take
    part as soon as one prediction isn't brief: health checks are answered meanwhile, and other predictions are made.

    That thread takes requests a step at a time: the bodies of all that are there are read, then the model is called for
    each, then all are answered. So what a step needs comes into the processor's caches once, and not again after every
    call of the model, which fills them with its own ("cohort scheduling", Larus and Parkes, USENIX 2002); and the
    server's threads are woken less often. No step takes in more after 2 ms, and what a thread has
    read, or has yet to answer, any other can take over.

    Where requests are to share a call, threads of the gate's own take them from a line instead, so that they can meet
    there.
    """

    def __init__(
        self,
        threads: int,
        timeout: float,
        answer: Callable[[Exchange, Reply], None],
        together: Callable[[List[Part]], List[Reply]] = lambda _: [],
        batches: Limits = Limits(),  # noqa: B008  (it can't change)
    ) -> None:
        """Run `threads` requests at once; one may take `timeout` seconds in all (0: any number).

        What is due is sent through `answer`, once for a request. With limits of more than one row in `batches` those
        that may share a call are predicted by `together`.
        """
        self._together = together
        self._batches = batches
        self._threads = threads
        self._timeout = timeout
        self._answer = answer
        self._line: SimpleQueue[Item] = SimpleQueue()
        self._waiting: Deque[Item] = deque()
        self._ready: Deque[Tuple[Exchange, Part]] = deque()  # their bodies are read
        self._made: Deque[Tuple[Exchange, Part, Result]] = deque()  # the model has answered
        self._written: Deque[Tuple[Exchange, Reply]] = deque()  # their answers are to be sent
        self._expected: Deque[Exchange] = deque(maxlen=_EXPECTED)  # the newest whose bodies were asked for
        self._free = list(range(threads))  # the numbers that a thread which predicts may take
        self._open: Dict[Exchange, None] = {}  # in the order in which they came
        self._stuck: Dict[int, float] = {}  # the threads that the model keeps beyond the time, and since when
        self._looked: Deque[float] = deque([0.0] * _SURE, maxlen=_SURE)  # when it was last looked who is late
        self._running: Dict[int, float] = {}  # the threads that predict, and since when
        self._usual = 0.0  # seconds that predictions took lately
        self._worked = 0.0  # and those of a processor
        self._anew = 0.0  # what began earlier isn't counted
        self._last = 0.0  # when the last one was made
        self._since = 0.0  # when the first of those who wait came
        self._impatient_until = 0.0  # the time up to which nobody waits for others
        self._leader = 0  # the thread that predicted last
        self._seats = Semaphore(threads)  # of those who stand by
        self._standing_by = Lock()
        self._rescuing = Lock()

    @property
    def borrowed(self) -> int:
        """How many threads of those who submit may be predicting at once."""
        return 0 if self._batches.rows > 1 else self._threads

    def __len__(self) -> int:
        """How many are not answered."""
        return len(self._open)

    def start(self) -> None:
        """Start the threads where there are any; they end with the process."""
        if self.borrowed:
            return
        for number in range(self._threads):
            Thread(target=self._work, args=(number,), name=f"model-{number}", daemon=True).start()

    def enter(self, exchange: Exchange) -> None:
        """Note a request."""
        self._open[exchange] = None

    def expect(self, exchange: Exchange) -> None:
        """Note that a body was asked for, and will be submitted."""
        self._expected.append(exchange)

    def submit(self, exchange: Exchange, job: Job, body: bytes) -> None:
        """Let a request have its turn: now in this thread, or as soon as one of the others is done with its own."""
        exchange.state = WAITING
        if not self.borrowed:
            self._line.put((exchange, job, body))
            return
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append((exchange, job, body))
        if not self._comes_soon():
            self._work_off()

    def rest(self) -> None:
        """For a thread that has done what it was told: stand by, if another one does it all."""
        if not self.borrowed:
            return
        stood_by = self._leader != get_ident() and self._is_brisk() and self._stand_by()
        if stood_by or (self._waiting and not self._comes_soon()):
            self._work_off()

    def _comes_soon(self) -> bool:
        """Whether others are about to be submitted, that may take their steps with those who wait.

        Bodies come in the order of their heads, unless a client is slow. Where so many are on their way, something
        comes soon: that a few of them are slow holds nobody up. Should none come, one of those who stand by sees it.
        """
        if len(self._waiting) >= _COHORT or len(self._expected) < _EXPECTED:
            return False
        try:
            first = self._expected[0]
        except IndexError:
            return False  # another thread has just found that nothing came
        if first.state != READING:
            return False
        now = time.monotonic()
        return (
            now - self._since < _PATIENCE
            and self._impatient_until < now < first.began + _ON_ITS_WAY
            and self._standing_by.locked()
        )

    def _work_off(self) -> None:
        # Each step is one for the interpreter. Whoever gives a number back looks whether somebody came meanwhile.
        while self._waiting or self._ready or self._made or self._written:
            if self._running and self._is_brisk():
                if self._stand_by():
                    continue
                return  # who predicts now looks again before it is done
            self._send_written()
            try:
                thread = self._free.pop()
            except IndexError:
                return  # who has the last number takes this one too
            try:
                self._serve(thread)
            finally:
                self._free.append(thread)

    def _stand_by(self) -> bool:
        """Let the thread that predicts do it all, until it takes long or there is nothing to do.

        One of those who stand by looks from time to time, the others wait for it. One thread of those who hear of
        requests never may: false.
        """
        if not self._seats.acquire(blocking=False):
            return False
        try:
            with self._standing_by:
                while self._is_brisk():
                    last = self._last
                    time.sleep(_LOOK)
                    if self._waiting and not self._running and last == self._last:
                        self._expected.clear()  # nothing came soon
                        self._impatient_until = time.monotonic() + _IDLE
                        break
        finally:
            self._seats.release()
        return True

    def _is_brisk(self) -> bool:
        """Whether predictions are brief, and the newest of those that are being made isn't late."""
        if not self._are_brief():
            return False
        since = list(self._running.values())  # a copy, in one step for the interpreter
        now = time.monotonic()
        if not since:
            return now < self._last + _IDLE
        first = min(since)
        # One that has just begun says nothing as long as none was done since the oldest began.
        return now < first + _LATE or (self._last > first and now < max(since) + _LATE)

    def _are_brief(self) -> bool:
        return self._usual <= _BRIEF or self._usual <= min(_BRIEF_AT_WORK, self._worked * 2)

    def _serve(self, thread: int) -> None:
        """Take those who wait through their steps, several at a time, until there is nobody left."""
        self._leader = get_ident()
        try:
            while self._waiting or self._ready or self._made or self._written:
                worked = time.thread_time()
                began = self._running[thread] = time.monotonic()
                read = 0 if self._ready else self._read_waiting(thread, began + _STEP)
                predicted = self._predict_ready(thread, began + _STEP)
                self._finish_made(thread)
                self._send_written()
                self._note(began, predicted or read or 1, time.thread_time() - worked)
                self._stuck.pop(thread, None)  # the model has come back
        finally:
            self._running.pop(thread, None)
            self._stuck.pop(thread, None)

    def _note(self, began: float, count: int, worked: float = 0.0) -> None:
        """Note how long predictions take, and how much of it a processor."""
        self._last = time.monotonic()
        if began >= self._anew:
            self._usual += ((self._last - began) / count - self._usual) * _SHARE
            self._worked += (worked / count - self._worked) * _SHARE

    def _read_waiting(self, thread: int, until: float) -> int:
        count = 0
        for item in islice(_taken(self._waiting), _COHORT):
            count += 1
            part = self._begin(item, thread)
            if part is not None:
                self._ready.append((item[0], part))
            if time.monotonic() > until:
                break
        return count

    def _begin(self, item: Item, thread: int) -> Optional[Part]:
        """Do the job of one who is still there, as far as the call of the model where it has steps."""
        exchange, job, body = item
        if exchange not in self._open:
            return None  # its time was up before its turn came
        exchange.thread = thread
        try:
            if job.prediction is None:
                exchange.state = PREDICTING
                step: Union[Part, Reply] = job.run(exchange.request, body)
            else:
                step = job.prediction.read(exchange.request, body)
        except BaseException as fault:  # noqa: BLE001  (none of its own gets out of a step; what does must not stay)
            step = _fault(fault)
        if isinstance(step, Reply):
            self.reply(exchange, step)
            return None
        return step

    def _predict_ready(self, thread: int, until: float) -> int:
        count = 0
        for exchange, part in _taken(self._ready):
            count += 1
            if exchange in self._open:
                exchange.thread = thread
                exchange.state = PREDICTING
                try:
                    result = part.prediction.predict(part)
                except BaseException as fault:  # noqa: BLE001
                    result = _fault(fault)
                if isinstance(result, Reply):
                    self.reply(exchange, result)
                else:
                    self._made.append((exchange, part, result))
            if time.monotonic() > until:
                break
        return count

    def _finish_made(self, thread: int) -> None:
        """Write the answers to what was predicted; the model may have a part in it."""
        for exchange, part, result in _taken(self._made):
            if exchange not in self._open:
                continue
            exchange.thread = thread
            try:
                reply = part.prediction.finish(part, result)
            except BaseException as fault:  # noqa: BLE001
                reply = _fault(fault)
            self._written.append((exchange, reply))

    def _send_written(self) -> None:
        """Send the answers right after each other."""
        for exchange, reply in _taken(self._written):
            self.reply(exchange, reply)

    def _rescue(self) -> None:
        """Finish what a thread has left that the model keeps; one thread at a time, beside those with a number."""
        if not self._rescuing.acquire(blocking=False):
            return
        try:
            self._finish_made(_RESCUER)
            self._work_off()
        finally:
            self._stuck.pop(_RESCUER, None)
            self._rescuing.release()

    def reply(self, exchange: Exchange, reply: Reply) -> bool:
        """Answer a request and say whether this was it: it may have been answered already."""
        # One step for the interpreter, so that only one of those who try gets the None.
        mine = self._open.pop(exchange, exchange) is None
        if mine:
            try:
                self._answer(exchange, reply)
            except Exception as fault:  # noqa: BLE001  (of the server's core; those who come after are not to suffer)
                log.write("ERROR", f"An answer can't be sent: {type(fault).__name__}: {fault}")
        return mine

    def expire(self, replies: Dict[str, Reply]) -> bool:
        """Answer those whose time is up, by where they are; tell whether the model has to be given up.

        It has when it keeps all the threads, or one for as long again, and still does a few looks later: after the
        process was stalled everyone is late at once, and a model that is well comes back as soon as it may run.
        """
        now = time.monotonic()
        self._looked.append(now)
        if now > self._anew + _ANEW and not self._are_brief():
            self._anew, self._usual, self._worked = now, 0.0, 0.0
        if (self._made or self._written or (self._free and (self._ready or self._waiting))) and not self._is_brisk():
            # The thread that had them is kept by the model, and perhaps there is no request that brings another one.
            Thread(target=self._rescue, daemon=True).start()
        for exchange in list(self._open):
            if not self._timeout or now - exchange.began <= self._timeout:
                break
            state = exchange.state
            thread = exchange.thread
            marked = state == PREDICTING and thread not in self._stuck
            if marked:
                self._stuck[thread] = now
            if not self.reply(exchange, replies[state]) and marked:
                self._stuck.pop(thread, None)
        stuck = list(self._stuck.values())
        before = self._looked[0]
        kept = sum(since <= before for since in stuck)
        return bool(stuck) and (kept >= self._threads or before - min(stuck) > self._timeout)

    def give_up(self, reply: Reply) -> None:
        """Answer everyone: there is nobody left to predict."""
        for exchange in list(self._open):
            self.reply(exchange, reply)

    def _work(self, thread: int) -> None:
        while True:
            item = self._line.get()
            items = collect(self._line, item, self._batches) if item[1].shares else [item]
            began = self._running[thread] = time.monotonic()
            try:
                self._predict_together(items, thread)
            except BaseException as fault:  # noqa: BLE001
                for exchange, _, _ in items:
                    self.reply(exchange, _fault(fault))
            finally:
                self._note(began, len(items))
                self._running.pop(thread, None)
                self._stuck.pop(thread, None)

    def _predict_together(self, items: List[Item], thread: int) -> None:
        parts: List[Tuple[Exchange, Part]] = []
        for item in items:
            item[0].state = PREDICTING
            part = self._begin(item, thread)
            if part is not None:
                parts.append((item[0], part))
        if parts:
            replies = self._together([part for _, part in parts])
            for (exchange, _), reply in zip(parts, replies):  # noqa: B905  (of one length)
                self.reply(exchange, reply)


def _taken(line: Deque[_Each]) -> Iterator[_Each]:
    """Take from a line until it is empty; other threads may take from it too."""
    while True:
        try:
            item = line.popleft()
        except IndexError:
            return
        yield item


def _fault(fault: BaseException) -> Reply:
    return error_reply(500, f"Exception during prediction: {type(fault).__name__}")


def pause(seconds: float) -> bool:
    """Sleep, and tell whether it took about as long: else the process was stalled, and has heard of nobody."""
    began = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - began <= seconds * _STALLED


def overdue_replies(timeout: float) -> Dict[str, Reply]:
    """What those are answered whose time is up, by where they are."""
    seconds = f"{timeout:g} seconds"
    return {
        READING: error_reply(408, "The body came too slowly"),
        WAITING: error_reply(504, f"The model was busy with other requests for {seconds}"),
        PREDICTING: error_reply(504, f"The model did not answer within {seconds}"),
    }
