"""gunicorn's worker with threads, for images without granian: the same scheduler, time limits and end.

gunicorn's threads read requests and write responses; the threads of the RequestScheduler call the model. So the threads
that read and write are never those that the model keeps.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from gunicorn.workers.gthread import ThreadWorker

from . import log
from .drain import LOOK_INTERVAL, wait_until_quiet
from .http import error_reply
from .inputs import InputError
from .scheduler import READING, WAITING, Exchange, RequestScheduler
from .wsgi import CLOSE, read_body

if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Type

    from .batching import BatchLimits
    from .http import Reply, Request
    from .prediction import Job

SPARE_THREADS = 64  # threads that read and write, besides one for each prediction: as many slow clients block nobody
CHECK_INTERVAL = 0.25  # seconds between two checks for requests whose time is up


def worker_class(threads: int, timeout: int, batches: BatchLimits) -> Type[ThreadWorker]:
    """Return the class of the workers for gunicorn's arbiter."""

    class Threaded(_Worker):
        def run(self) -> None:
            self._timeout = timeout
            self._scheduler = RequestScheduler(threads, timeout, _deliver, self.wsgi.predict_batch, batches)
            self.serve()

    return Threaded


class _Delivery:
    """Where a thread waits for the response to its request."""

    __slots__ = ("arrived", "reply", "sock")

    def __init__(self, sock: Optional[socket.socket]) -> None:
        self.sock = sock
        self.arrived = threading.Event()
        self.reply: Any = None


class _Worker(ThreadWorker):  # type: ignore[misc]
    alive: bool
    wsgi: Any
    _closing = False  # SIGTERM may come at any time
    _active = 0  # connections that a thread handles
    _handled = 0  # connections whose request ended
    _woken = 0  # how often the pipe has woken gunicorn's loop
    _seen = (0, 0)  # `_handled` and `_woken` at the last look

    def serve(self) -> None:
        """Serve until a signal, the end of the master or a model that hangs; then finish the open requests."""
        self._application = self.wsgi
        self._scheduler.start()
        self._count = threading.Lock()
        self._application.finish = self._finish
        self.wsgi = self._call
        self.poller.register(self.PIPE[0], selectors.EVENT_READ, self._drain)  # so that signals wake the loop
        threading.Thread(target=self._watch, daemon=True).start()
        super().run()

    def handle_exit(self, _signal: int, _frame: Any) -> None:
        """SIGTERM: each response ends its connection from now on; when no request arrives any more the loop ends."""
        self._closing = True

    def handle(self, conn: Any) -> Any:
        """Handle a connection; a client that stops sending or reading keeps a thread no longer than the timeout."""
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

    def _wake(self) -> None:
        os.write(self.PIPE[1], b".")

    def _call(self, environ: Dict[str, Any], start_response: Any) -> Any:
        environ[CLOSE] = start_response.__self__.force_close
        if self._closing:
            environ[CLOSE]()
        return self._application(environ, start_response)

    def _finish(self, environ: Dict[str, Any], request: Request, job: Job) -> Reply:
        """Read the body, and wait until the scheduler delivers the response."""
        delivery = _Delivery(environ.get("gunicorn.socket"))
        exchange = Exchange(delivery, request)
        self._scheduler.register(exchange)
        metrics = self._application.metrics
        metrics.in_flight(len(self._scheduler))
        try:
            body = read_body(environ, self._application.max_body) if job.reads_body else b""
        except InputError as error:
            exchange.state = WAITING
            self._scheduler.reply(exchange, error_reply(error.status, str(error)))
        else:
            self._scheduler.submit(exchange, job, body)
        delivery.arrived.wait()
        metrics.in_flight(len(self._scheduler))
        reply: Reply = delivery.reply
        return reply

    def _watch(self) -> None:
        """Check the requests; end the loop when the model hangs, or after SIGTERM when no request arrives any more."""
        while self.alive and not self._closing:
            time.sleep(CHECK_INTERVAL)
            if self._scheduler.check():
                log.write("ERROR", "The model hangs: this worker is replaced")
                self._end_loop()
                gone = error_reply(503, "The model hangs, and this worker is replaced; try again")
                while True:  # until the process ends: requests that arrive over open connections
                    self._scheduler.reject_all(gone)
                    time.sleep(LOOK_INTERVAL)
        if self.alive:
            self._application.closing = True
            self._wake()
            wait_until_quiet(self._is_quiet, self.cfg.graceful_timeout - 2)
            self._end_loop()

    def _end_loop(self) -> None:
        self.alive = False
        self._wake()

    def _is_quiet(self) -> bool:
        """Whether no request was there since the last look, in which gunicorn's loop has run."""
        self._scheduler.check()
        seen, self._seen = self._seen, (self._handled, self._woken)
        self._wake()
        return seen[0] == self._handled and seen[1] != self._woken and not self._active and not self.futures


def _deliver(exchange: Exchange, reply: Reply) -> None:
    delivery: _Delivery = exchange.proto
    delivery.reply = reply
    if exchange.state == READING and delivery.sock is not None:
        with suppress(OSError):
            delivery.sock.shutdown(socket.SHUT_RD)  # the thread that reads finds the end, and then this response
    delivery.arrived.set()
