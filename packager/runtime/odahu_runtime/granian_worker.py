"""A gunicorn worker that leaves HTTP to granian's Rust core: gunicorn starts, watches and replaces the processes.

The core reads heads and bodies and writes answers without the interpreter, in a thread of its own. It tells of a
request by calling the scheduler's `_schedule_fn`, and of a body that has come by calling what was left with its future,
in one of its threads for Python. Such a thread predicts what it has heard of, as far as the gate lets it: one is always
left to hear of other requests, so that health checks are answered meanwhile. Slow clients hold none.

These classes have no promise of stability: the version is pinned, and this module is the only one that knows them. The
interface is RSGI (github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md), without an event loop.
"""

from __future__ import annotations

import contextvars
import gc
import os
import select
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from gunicorn.workers.base import Worker

from . import log, rlimits
from .http import Job, Request, error_reply, in_terms_of, no_body, too_large
from .scheduler import READING, Exchange, Gate, overdue_replies, pause

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Type

    from .batching import Limits
    from .http import Reply

_TICK_SECONDS = 0.25
_IDLE_SECONDS = 366 * 24 * 3600  # after which the core ends a thread: never
_STACK_BYTES = 8 * 1024 * 1024  # of the core's threads: as those that Python starts, since the model runs in them
_TOGETHER_SECONDS = 0.05  # after lines of the log were written, in which others are kept back
_LOOK_SECONDS = 0.025  # between two looks for a request, once the worker is to end
_QUIET_LOOKS = 12  # without one, after which the connections are closed
_LAST_LOOKS = 20  # whether they are
_ERROR = 400  # and above, the statuses that are errors
_CONNECTIONS = 65536  # in hand at once; the kernel keeps more
_KEEPALIVE_MILLISECONDS = 75_000  # as for gunicorn: longer than load balancers keep a connection


class _Http1(NamedTuple):
    """The core reads these by name; the limits are its own defaults."""

    header_read_timeout: int = _KEEPALIVE_MILLISECONDS
    keep_alive: bool = True
    max_buffer_size: int = 8192 + 4096 * 100
    pipeline_flush: bool = False


class _Loop:
    """As much of an event loop as the core needs: what it wants called is called at once, in its thread."""

    def call_soon(self, call: Callable[..., None], *arguments: Any, context: Any = None) -> None:  # noqa: ARG002
        call(*arguments)

    call_soon_threadsafe = call_soon


def worker_class(core: Any, threads: int, timeout: int, batches: Limits) -> Type[Worker]:
    """The class of the workers for gunicorn's arbiter."""

    class GranianWorker(_Worker):
        def run(self) -> None:
            self._gate = Gate(threads, timeout, self._answer, self.wsgi.predict_together, batches)
            self.serve(core, timeout)

    return GranianWorker


class _Worker(Worker):  # type: ignore[misc]
    def serve(self, core: Any, timeout: int) -> None:
        """Serve until a signal, the master's end, or a model that doesn't come back; then let the requests finish."""
        gc.freeze()  # what the model has loaded stays: no collection needs to look through it again
        self._context = contextvars.copy_context()
        self._closing = False
        self._keep_until = 0.0  # what the log keeps back, by the monotonic clock
        self._gate.start()
        stopped = threading.Event()
        signal = core.WorkerSignal()
        signal.add_cb(stopped.set)
        server = core.RSGIWorker(
            self.age,
            (None, core.SocketHolder(self.sockets[0].sock.fileno(), False, self.cfg.backlog)),  # noqa: FBT003
            None,  # no pipe for its own metrics
            *(1, 1, self._gate.borrowed + 1, _IDLE_SECONDS),  # threads: of its runtime, for files, and for Python
            rlimits.connections(_CONNECTIONS),
            "1",
            _Http1(),
            None,
            False,  # noqa: FBT003  (no WebSockets)
            None,
            *(False, None, None, None, "tls1.3", None, [], False),  # no TLS: that is the ingress' part
            (None, None),
        )
        loop = _Loop()
        os.environ["RUST_MIN_STACK"] = str(_STACK_BYTES)
        server.serve_str(_scheduler(core, loop, self._hear), loop, signal)
        del os.environ["RUST_MIN_STACK"]
        overdue = overdue_replies(timeout)
        lost = self._watch(overdue)
        self._closing = self.wsgi.closing = True
        if lost:
            log.write("ERROR", "The model does not come back: this worker is replaced")
        else:
            self._finish_requests(overdue)
        signal.set()
        self._await_end(stopped, lost=lost)
        log.flush()
        self.wsgi.metrics.settle()

    def _watch(self, overdue: Dict[str, Reply]) -> bool:
        """Live, until it is time to stop; true when it is for a model that doesn't come back."""
        while self.alive and self.ppid == os.getppid():
            self.notify()
            log.flush()
            self.wsgi.metrics.settle()
            if self._gate.expire(overdue):
                return True
            if select.select([self.PIPE[0]], [], [], _TICK_SECONDS)[0]:
                os.read(self.PIPE[0], 4096)  # a signal came
        return False

    def _finish_requests(self, overdue: Dict[str, Reply]) -> None:
        """Go on answering until no request comes for a while; each answer says that the connection ends with it.

        So a client that asks again within that while never sends a request into a connection that is being closed. One
        that had its last answer before the signal, and was idle for longer, may: it has to ask again.
        """
        until = time.monotonic() + self.cfg.graceful_timeout - 2
        quiet = 0  # looks, and not seconds: a process that was kept from running has heard of nobody meanwhile
        while quiet < _QUIET_LOOKS and time.monotonic() < until:
            self.notify()
            ran = pause(_LOOK_SECONDS)
            self._gate.expire(overdue)
            quiet = quiet + 1 if ran and not len(self._gate) else 0

    def _await_end(self, stopped: threading.Event, *, lost: bool) -> None:
        """Let the core close the connections; these are looks too."""
        for _ in range(_LAST_LOOKS):
            if stopped.wait(_TICK_SECONDS / 5):
                return
            if lost:  # else the threads still answer what comes over connections that were there already
                self._gate.give_up(error_reply(503, "The model hangs, and this worker is replaced; try again"))

    def _hear(self, watcher: Any) -> None:
        """A request came."""
        scope = watcher.scope
        path = scope.path
        # Of headers that are there twice the first; to ask the core for each takes longer.
        headers = dict(scope.headers.items()[::-1])
        request = Request(
            scope.method,
            unquote(path) if "%" in path else path,
            scope.client.rpartition(":")[0],
            headers.get,
        )
        exchange = Exchange(watcher, request)
        self._gate.enter(exchange)
        self.wsgi.metrics.in_flight(len(self._gate))
        try:
            step = self.wsgi.begin(request)
            if isinstance(step, Job):
                self._read(exchange, step)
            else:
                self._gate.reply(exchange, step)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client gets an answer)
            self._gate.reply(exchange, error_reply(500, f"{type(error).__name__}: {error}"))
        self._gate.rest()

    def _read(self, exchange: Exchange, job: Job) -> None:
        header = exchange.request.header
        length = header("content-length")
        if not job.reads or length == "0":
            self._gate.submit(exchange, job, b"")
        elif length is not None:
            if int(length) > self.wsgi.max_body:
                self._gate.reply(exchange, too_large(self.wsgi.max_body))
                return

            self._gate.expect(exchange)
            future = exchange.body = exchange.proto.proto()
            future.add_done_callback(partial(self._come, exchange, job), context=self._context)
        elif header("transfer-encoding") is None:
            self._gate.reply(exchange, no_body())
        else:
            self._read_chunks(exchange, job)

    def _come(self, exchange: Exchange, job: Job, future: Any) -> None:
        """A body came."""
        try:
            body = future.result()
        except Exception as error:  # noqa: BLE001  (the core has its own kinds: the client left, or sent nonsense)
            self._gate.reply(exchange, _unreadable(error))
            return
        exchange.body = None  # it leads back here, and no collector of garbage finds that
        self._gate.submit(exchange, job, body)
        self._gate.rest()

    def _read_chunks(self, exchange: Exchange, job: Job) -> None:
        """Read a body of unknown length piece by piece, so that its size is known before it is too large.

        The core ends each with an empty piece, and gives one more where it can't read on, or has read trailers.
        """
        chunks: List[bytes] = []
        size = 0
        iterator = exchange.proto.proto.__aiter__()

        def ask() -> None:
            try:
                future = exchange.body = iterator.__anext__()
            except StopAsyncIteration:
                done()
                return
            future.add_done_callback(self._unless_gone(exchange, come), context=self._context)

        def come(future: Any) -> None:
            nonlocal size
            try:
                chunk = future.result()
            except StopAsyncIteration:
                done()
                return
            chunks.append(chunk)
            size += len(chunk)
            if size > self.wsgi.max_body:
                self._gate.reply(exchange, too_large(self.wsgi.max_body))
            elif chunks[-2:] == [b"", b""] and exchange.request.header("trailer") is None:
                self._gate.reply(exchange, error_reply(400, "The body can't be read: it ended before its last chunk"))
            else:
                ask()

        def done() -> None:
            exchange.body = None
            self._gate.submit(exchange, job, b"".join(chunks))

        ask()

    def _unless_gone(self, exchange: Exchange, step: Callable[[Any], None]) -> Callable[[Any], None]:
        def call(future: Any) -> None:
            try:
                step(future)
            except Exception as error:  # noqa: BLE001  (as above)
                self._gate.reply(exchange, _unreadable(error))

        return call

    def _answer(self, exchange: Exchange, reply: Reply) -> None:
        close = self._closing
        if reply.status >= _ERROR:
            reply = in_terms_of(exchange.request, reply)
            close = close or (exchange.state == READING and _has_body(exchange.request))  # the core reads no further
        headers = reply.headers
        if exchange.state == READING and exchange.body is not None:
            exchange.body.cancel()  # else the core reads on, and the connection stays as long as the client likes
        exchange.body = None
        if close:
            headers = [*headers, ("Connection", "close")]
        request = exchange.request
        exchange.proto.proto.response_bytes(reply.status, headers, b"" if request.method == "HEAD" else reply.body)
        now = time.monotonic()
        seconds = now - exchange.began
        metrics, waiting = self.wsgi.metrics, len(self._gate)
        metrics.in_flight(waiting)
        metrics.answered(request.path, reply.status, seconds, last=not waiting)
        last = not waiting and now > self._keep_until
        if last:
            self._keep_until = now + _TOGETHER_SECONDS
        log.access(request, reply.status, len(reply.body), seconds, last=last)


def _scheduler(core: Any, loop: _Loop, hear: Callable[[Any], None]) -> Any:
    class Scheduler(core.CallbackScheduler):  # type: ignore[misc]
        __slots__ = ()

        def __init__(self, *_: Any) -> None:
            super().__init__()
            self._schedule_fn = hear  # type: ignore[misc]  # the core's own slot

    return Scheduler(loop, hear, None, lambda *_: None, lambda *_: None)


def _unreadable(error: Exception) -> Reply:
    # The core's future keeps the error, whose traceback would keep the future, and no collector of garbage finds that.
    error.__traceback__ = None
    return error_reply(400, f"The body can't be read: {error}")


def _has_body(request: Request) -> bool:
    length = request.header("content-length")
    return request.header("transfer-encoding") is not None or length not in (None, "0")
