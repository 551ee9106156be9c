"""The requests of a worker process: a queue, the threads that predict, and one rule for those that take too long.

The server's threads register requests and submit them with their bodies; threads of the scheduler take them from the
queue, call the model and send the responses. So a slow client or a slow model never keeps the server from reading the
next request. `check` has to be called several times a second: it answers the requests whose time is up and reports a
model that hangs.
"""

from __future__ import annotations

import time
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from . import log
from .batching import BatchLimits, collect
from .http import Reply, error_reply

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Tuple

    from .http import Request
    from .prediction import Job

    Item = Tuple["Exchange", Job, bytes]

READING, WAITING, PREDICTING = "reading", "waiting", "predicting"
MAX_CHECK_STEP = 0.5  # seconds, twice the usual time between two checks: in a longer one the process was suspended
HANG_GRACE = 1.0  # seconds beyond the timeout in which a prediction may still end


class Exchange:
    """One request and its response.

    Attributes:
        proto: The server's object that the response is sent with.
        request: The head of the request.
        began: Time of its registration, by the scheduler's clock.
        body: The server's pending read of the body, where it can be cancelled.
        state: `reading` (the body), `waiting` (in the queue) or `predicting`.
    """

    __slots__ = ("began", "body", "proto", "request", "state")

    def __init__(self, proto: Any, request: Request) -> None:
        """Start reading."""
        self.proto = proto
        self.request = request
        self.began = 0.0
        self.state = READING
        self.body: Any = None


class RequestScheduler:
    """The requests of a worker that have no response yet. Every method may be called from any thread."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        threads: int,
        timeout: float,
        send: Callable[[Exchange, Reply], None],
        predict_batch: Callable[[List[Tuple[Request, Job, bytes]]], List[Reply]] = lambda _: [],
        batches: BatchLimits = BatchLimits(),  # noqa: B008  (immutable)
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Predict up to `threads` requests at once, each within `timeout` seconds (0: no limit).

        Every response is passed to `send` once. With `batches` of more than one row, jobs that may share a call of the
        model are predicted by `predict_batch`.
        """
        self._threads = threads
        self._timeout = timeout
        self._send = send
        self._predict_batch = predict_batch
        self._batches = batches
        self._clock = clock
        self._queue: SimpleQueue[Item] = SimpleQueue()
        self._open: Dict[Exchange, None] = {}  # by arrival
        self._busy: Dict[int, float] = {}  # when each thread began its current prediction, by `_running`
        self._running = 0.0  # seconds that this process has run: a suspended process makes no prediction late
        self._checked = clock()

    def __len__(self) -> int:
        """How many requests have no response yet."""
        return len(self._open)

    def start(self) -> None:
        """Start the threads that predict; they end with the process."""
        for thread in range(self._threads):
            Thread(target=self._work, args=(thread,), name=f"model-{thread}", daemon=True).start()

    def register(self, exchange: Exchange) -> None:
        """Add a request whose head was read."""
        exchange.began = self._clock()
        self._open[exchange] = None

    def submit(self, exchange: Exchange, job: Job, body: bytes) -> None:
        """Put a registered request with its body into the queue."""
        exchange.state = WAITING
        self._queue.put((exchange, job, body))

    def reply(self, exchange: Exchange, reply: Reply) -> bool:
        """Send the response, unless the request has one already; return whether this one was sent."""
        # A single step of the interpreter: only one of several callers gets the None.
        is_first = self._open.pop(exchange, exchange) is None
        if is_first:
            try:
                self._send(exchange, reply)
            except Exception as error:  # noqa: BLE001  (whatever the server raises, other requests go on)
                log.write("ERROR", f"A response can't be sent: {type(error).__name__}: {error}")
        return is_first

    def reject_all(self, reply: Reply) -> None:
        """Send the same response to every open request."""
        for exchange in list(self._open):
            self.reply(exchange, reply)

    def check(self) -> bool:
        """Answer the requests whose time is up; return whether the model hangs.

        It hangs when it has kept every thread for longer than the timeout, or one thread for twice as long.
        """
        now = self._clock()
        self._running += min(now - self._checked, MAX_CHECK_STEP)
        self._checked = now
        if not self._timeout:
            return False
        for exchange in list(self._open):
            if now - exchange.began <= self._timeout:
                break
            self.reply(exchange, self._timeout_reply(exchange.state))
        spans = [self._running - since - HANG_GRACE for since in list(self._busy.values())]
        late = [span for span in spans if span > self._timeout]
        return len(late) == self._threads or any(span > 2 * self._timeout for span in late)

    def _timeout_reply(self, state: str) -> Reply:
        if state == READING:
            return error_reply(408, "The body was received too slowly")
        if state == WAITING:
            return error_reply(504, f"The model was busy with other requests for {self._timeout:g} seconds")
        return error_reply(504, f"The model did not answer within {self._timeout:g} seconds")

    def _work(self, thread: int) -> None:
        while True:
            self._serve_next(thread)

    def _serve_next(self, thread: int) -> None:
        """Predict the next request; a function of its own, so that nothing of a request is kept afterwards."""
        first = self._queue.get()
        items = collect(self._queue, first, self._batches) if first[1].batchable else [first]
        self._busy[thread] = self._running
        try:
            self._predict([item for item in items if item[0] in self._open])  # the others timed out in the queue
        finally:
            del self._busy[thread]

    def _predict(self, items: List[Item]) -> None:
        for exchange, _, _ in items:
            exchange.state = PREDICTING
        try:
            if len(items) > 1:
                replies = self._predict_batch([(exchange.request, job, body) for exchange, job, body in items])
            else:
                replies = [job.run(exchange.request, body) for exchange, job, body in items]
        except BaseException as error:  # noqa: BLE001  (jobs turn errors into replies; a thread must survive the rest)
            replies = [error_reply(500, f"Exception during prediction: {type(error).__name__}")] * len(items)
        for (exchange, _, _), reply in zip(items, replies):  # noqa: B905  (of one length)
            self.reply(exchange, reply)
