"""gunicorn's worker with threads, where there is no granian: the same gate, the same time limits, the same end.

The pool's threads read requests and write answers, as gunicorn has it. The model is asked by threads of our own, as
many as are wanted, so that who reads and writes is never one of those that the model keeps.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from gunicorn.workers.gthread import ThreadWorker

from . import log
from .http import error_reply
from .inputs import InputError
from .scheduler import READING, WAITING, Exchange, Gate, overdue_replies, pause
from .wsgi import CLOSE, read_body

if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple, Type

    from .batching import Limits
    from .http import Job, Reply, Request

SPARE_THREADS = (
    64  # that read and write, besides those whose request is the model's: so many slow clients hold nobody up
)
_TICK_SECONDS = 0.25
_LOOK_SECONDS = 0.05  # between two looks for a request, once the worker is to end
_QUIET_LOOKS = 6  # without one, after which the connections are closed


def worker_class(threads: int, timeout: int, batches: Limits) -> Type[ThreadWorker]:
    """The class of the workers for gunicorn's arbiter."""

    class Threaded(_Worker):
        def run(self) -> None:
            self.serve(threads, timeout, batches)

    return Threaded


class _Waiter:
    """Where a thread waits for its answer."""

    __slots__ = ("came", "reply", "sock")

    def __init__(self, sock: Optional[socket.socket]) -> None:
        self.sock = sock
        self.came = threading.Event()
        self.reply: Any = None


class _Worker(ThreadWorker):  # type: ignore[misc]
    alive: bool
    wsgi: Any
    _closing = False  # SIGTERM may come at any time
    _handled = 0  # connections whose request ended
    _woken = 0  # times that the loop has gone on because of the pipe

    def serve(self, threads: int, timeout: int, batches: Limits) -> None:
        """Serve until a signal, the master's end, or a model that doesn't come back; then let the requests finish."""
        self._timeout = timeout
        self._application = self.wsgi
        self._gate = Gate(threads, timeout, _hand_over, self._application.predict_together, batches)
        self._gate.start()
        self._line: SimpleQueue[Tuple[Exchange, Job, bytes]] = SimpleQueue()
        self._active = 0
        self._count = threading.Lock()
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()
        self._application.turns = self._take_turns
        self.wsgi = self._call
        self.poller.register(self.PIPE[0], selectors.EVENT_READ, self._drain)  # so that signals wake the loop
        threading.Thread(target=self._watch, daemon=True).start()
        super().run()

    def handle_exit(self, _signal: int, _frame: Any) -> None:
        """SIGTERM: each answer ends its connection from now on, and when no request comes any more the loop ends."""
        self._closing = True

    def handle(self, conn: Any) -> Any:
        """A client that stops sending, or reading, holds a thread no longer than the timeout."""
        conn.sock.settimeout(self._timeout or None)
        with self._count:
            self._active += 1
        try:
            return super().handle(conn)
        finally:
            with self._count:
                self._active -= 1
                self._handled += 1

    def _drain(self, pipe: int) -> None:
        self._woken += 1
        with suppress(BlockingIOError):
            os.read(pipe, 4096)

    def _call(self, environ: Dict[str, Any], start_response: Any) -> Any:
        environ[CLOSE] = start_response.__self__.force_close
        if self._closing:
            environ[CLOSE]()
        return self._application(environ, start_response)

    def _take_turns(self, environ: Dict[str, Any], request: Request, job: Job) -> Reply:
        """Read the body, and wait until the request is answered by whoever does."""
        waiter = _Waiter(environ.get("gunicorn.socket"))
        exchange = Exchange(waiter, request)
        self._gate.enter(exchange)
        metrics = self._application.metrics
        metrics.in_flight(len(self._gate))
        try:
            body = read_body(environ, self._application.max_body) if job.reads else b""
        except InputError as error:
            exchange.state = WAITING
            self._gate.reply(exchange, error_reply(error.status, str(error)))
        else:
            exchange.state = WAITING
            self._line.put((exchange, job, body))
        waiter.came.wait()
        metrics.in_flight(len(self._gate))
        reply: Reply = waiter.reply
        return reply

    def _work(self) -> None:
        while True:
            self._gate.submit(*self._line.get())

    def _watch(self) -> None:
        """Answer who is overdue; end the loop when the model is to be given up, or when nobody asks any more."""
        overdue = overdue_replies(self._timeout)
        until: Optional[float] = None
        quiet = handled = 0  # looks in a row, as a process that is stalled sees no seconds go by
        while self.alive:
            woken = self._woken
            if self._closing:
                os.write(self.PIPE[1], b".")  # a loop that doesn't go on has heard of nobody either
            ran = pause(_LOOK_SECONDS if self._closing else _TICK_SECONDS) and self._woken != woken
            if self._gate.expire(overdue):
                log.write("ERROR", "The model does not come back: this worker is replaced")
                break
            if self._closing:
                self._application.closing = True
                now = time.monotonic()
                until = until or now + self.cfg.graceful_timeout - 2
                asked = self.futures or self._active or self._handled != handled
                quiet = quiet + 1 if ran and not asked else 0
                handled = self._handled
                if now > until or quiet == _QUIET_LOOKS:
                    self.alive = False
                    os.write(self.PIPE[1], b".")
                    return
        self.alive = False
        os.write(self.PIPE[1], b".")
        gone = error_reply(503, "The model hangs, and this worker is replaced; try again")
        while True:  # until the process ends: whoever still comes is answered
            self._gate.give_up(gone)
            time.sleep(_LOOK_SECONDS)


def _hand_over(exchange: Exchange, reply: Reply) -> None:
    waiter: _Waiter = exchange.proto
    waiter.reply = reply
    if exchange.state == READING and waiter.sock is not None:
        with suppress(OSError):
            waiter.sock.shutdown(socket.SHUT_RD)  # who reads from it finds the end, and then this answer
    waiter.came.set()
