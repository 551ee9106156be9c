"""The way of a request through a worker: who waits, how many predict at once, and whose time is up."""

from __future__ import annotations

import time
from collections import deque
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

from .batching import Limits, Part, collect
from .messages import error_reply

if TYPE_CHECKING:
    from typing import Any, Callable, Deque, Dict, List, Tuple

    from .messages import Job, Reply, Request

    Item = Tuple["Exchange", Job, bytes]

READING, WAITING, PREDICTING = "reading", "waiting", "predicting"
_BRIEF = 0.002  # seconds: predictions that usually take less are made one after the other
_LOOK = 0.02  # seconds between two looks whether the one that is being made takes longer than usual
_IDLE = 1.0  # seconds without a prediction, after which nobody stands by
_SHARE = 0.05  # of the newest in what is usual


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
        self._free = list(range(threads))  # the numbers that a thread which predicts may take
        self._open: Dict[Exchange, None] = {}  # in the order in which they came
        self._stuck: Dict[int, float] = {}  # the threads that the model keeps beyond the time, and since when
        self._running: Dict[int, float] = {}  # the threads that predict, and since when
        self._usual = 0.0  # seconds that predictions took lately
        self._last = 0.0  # when the last one was made
        self._standing_by = Lock()

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

    def submit(self, exchange: Exchange, job: Job, body: bytes) -> None:
        """Let a request have its turn: now in this thread, or as soon as one of the others is done with its own."""
        exchange.state = WAITING
        if not self.borrowed:
            self._line.put((exchange, job, body))
            return
        # Each step is one for the interpreter. Whoever gives a number back looks whether somebody came meanwhile.
        self._waiting.append((exchange, job, body))
        while self._waiting:
            if self._running and self._is_brisk():
                self._stand_by()
                continue
            try:
                thread = self._free.pop()
            except IndexError:
                return  # who has the last number takes this one too
            try:
                self._serve_waiting(thread)
            finally:
                self._free.append(thread)

    def _stand_by(self) -> None:
        """Let the thread that predicts do it all, until it takes long or there is nothing to do.

        One of those who stand by looks from time to time, the others wait for it. There is always a thread that
        doesn't: the one that was predicting when the others began to.
        """
        with self._standing_by:
            while self._is_brisk():
                time.sleep(_LOOK)

    def _is_brisk(self) -> bool:
        """Whether predictions are brief, and the newest of those that are being made isn't late."""
        if self._usual > _BRIEF:
            return False
        since = list(self._running.values())  # a copy, in one step for the interpreter
        return time.monotonic() < (max(since) + _LOOK if since else self._last + _IDLE)

    def _serve_waiting(self, thread: int) -> None:
        while True:
            try:
                item = self._waiting.popleft()
            except IndexError:
                return
            self._predict([item], thread)

    def reply(self, exchange: Exchange, reply: Reply) -> bool:
        """Answer a request and say whether this was it: it may have been answered already."""
        # One step for the interpreter, so that only one of those who try gets the None.
        mine = self._open.pop(exchange, exchange) is None
        if mine:
            self._answer(exchange, reply)
        return mine

    def expire(self, replies: Dict[str, Reply]) -> bool:
        """Answer those whose time is up, by where they are; tell whether the model has to be given up.

        It has when it keeps all the threads, or one for as long again.
        """
        now = time.monotonic()
        for exchange in list(self._open):
            if not self._timeout or now - exchange.began <= self._timeout:
                break
            state = exchange.state
            if state == PREDICTING:
                self._stuck.setdefault(exchange.thread, now)
            if not self.reply(exchange, replies[state]):
                self._stuck.pop(exchange.thread, None)
        stuck = list(self._stuck.values())
        return bool(stuck) and (len(stuck) >= self._threads or now - min(stuck) > self._timeout)

    def give_up(self, reply: Reply) -> None:
        """Answer everyone: there is nobody left to predict."""
        for exchange in list(self._open):
            self.reply(exchange, reply)

    def _work(self, thread: int) -> None:
        while True:
            item = self._line.get()
            if item[1].join is None:
                self._predict([item], thread)
                continue
            items = collect(self._line, item, self._batches)
            self._predict([item for item in items if item[1].join is not None], thread)
            for other in items:
                if other[1].join is None:
                    self._predict([other], thread)

    def _predict(self, items: List[Tuple[Exchange, Job, bytes]], thread: int) -> None:
        parts: List[Tuple[Exchange, Part]] = []
        began = self._running[thread] = time.monotonic()
        try:
            for exchange, job, body in items:
                if exchange not in self._open:
                    continue  # its time was up before its turn came
                exchange.thread = thread
                exchange.state = PREDICTING
                request = exchange.request
                step = job.run(request, body) if job.join is None else job.join(request, body)
                if isinstance(step, Part):
                    parts.append((exchange, step))
                else:
                    self.reply(exchange, step)
            if parts:
                replies = self._together([part for _, part in parts])
                for (exchange, _), reply in zip(parts, replies):  # noqa: B905  (of one length)
                    self.reply(exchange, reply)
        finally:
            self._last = time.monotonic()
            self._usual += (self._last - began - self._usual) * _SHARE
            self._running.pop(thread, None)
            self._stuck.pop(thread, None)


def overdue_replies(timeout: float) -> Dict[str, Reply]:
    """What those are answered whose time is up, by where they are."""
    seconds = f"{timeout:g} seconds"
    return {
        READING: error_reply(408, "The body came too slowly"),
        WAITING: error_reply(504, f"The model was busy with other requests for {seconds}"),
        PREDICTING: error_reply(504, f"The model did not answer within {seconds}"),
    }
