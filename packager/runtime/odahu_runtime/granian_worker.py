"""A gunicorn worker that leaves HTTP to granian's Rust core; gunicorn starts, watches and replaces the processes.

The core reads heads and bodies and writes responses in a thread of its own, without the interpreter, so slow clients
block nobody. It calls Python in one thread: for each request head the `_schedule_fn` of the scheduler object, and for
each body the callback of its future. That thread only registers requests and submits them to the RequestScheduler.

Why not granian's public servers: `granian.Granian` starts and replaces its processes itself, and closes connections at
once when it stops; `granian.server.embed.Server` binds its own socket, so workers can't share one, and calls itself
experimental; both run ASGI and RSGI in an asyncio event loop and WSGI in threads that slow clients block. Their Python
modules also log through `logging`, which belongs to the model. So this module drives the classes of the compiled core,
which have no promise of stability: the version is pinned, no other module knows them, and
tests/integration/test_serving_granian.py fails where a version changes what is used here. The interface is RSGI
(github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md).
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

from . import log, process
from .drain import wait_until_quiet
from .http import Request, error_reply, in_protocol_form, no_body, too_large
from .prediction import Job
from .scheduler import READING, Exchange, RequestScheduler

if TYPE_CHECKING:
    from typing import Any, Callable, List, Type, Union

    from .batching import BatchLimits
    from .http import Reply

CHECK_INTERVAL = 0.25  # seconds between two checks for requests whose time is up; the log waits no longer either
LOG_INTERVAL = 0.05  # seconds in which a busy worker writes the log once
CLOSE_SECONDS = 1.0  # in which the core closes its connections at the end
IDLE_SECONDS = 366 * 24 * 3600  # after which the core ends an idle thread: never
MAX_CONNECTIONS = 65536  # open at once; more wait in the kernel
KEEPALIVE_MILLISECONDS = 75_000  # as for gunicorn: longer than load balancers keep a connection
FIRST_ERROR_STATUS = 400


_REPLACED = error_reply(503, "The model hangs, and this worker is replaced; try again")


class _Http1(NamedTuple):
    """The core reads these by name; the limits are its own defaults."""

    header_read_timeout: int = KEEPALIVE_MILLISECONDS
    keep_alive: bool = True
    max_buffer_size: int = 8192 + 4096 * 100
    pipeline_flush: bool = False


class _Loop:
    """The part of an event loop that the core needs: it runs each callback at once, in the core's thread."""

    def call_soon(self, call: Callable[..., None], *arguments: Any, context: Any = None) -> None:  # noqa: ARG002
        call(*arguments)

    call_soon_threadsafe = call_soon


def worker_class(core: Any, threads: int, timeout: int, batches: BatchLimits) -> Type[Worker]:
    """Return the class of the workers for gunicorn's arbiter."""

    class GranianWorker(_Worker):
        def run(self) -> None:
            self._scheduler = RequestScheduler(threads, timeout, self._send, self.wsgi.predict_batch, batches)
            self.serve(core)

    return GranianWorker


class _Worker(Worker):  # type: ignore[misc]
    def serve(self, core: Any) -> None:
        """Serve until a signal, the end of the master or a model that hangs; then finish the open requests."""
        gc.freeze()  # what the model has loaded stays: no collection needs to traverse it again
        self._context = contextvars.copy_context()
        self._closing = False
        self._next_log = 0.0  # when a busy worker writes the log again, by the monotonic clock
        self._scheduler.start()
        stopped = threading.Event()
        signal = core.WorkerSignal()
        signal.add_cb(stopped.set)
        server = core.RSGIWorker(
            self.age,
            (None, core.SocketHolder(self.sockets[0].sock.fileno(), False, self.cfg.backlog)),  # noqa: FBT003
            None,  # no pipe for its own metrics
            blocking_threads=1,  # the core reads no files
            py_threads_idle_timeout=IDLE_SECONDS,
            backpressure=process.max_connections(MAX_CONNECTIONS),
            http1_opts=_Http1(),
        )
        loop = _Loop()
        server.serve_str(_core_scheduler(core, loop, self._on_head), loop, signal)
        hangs = self._watch()
        self._closing = self.wsgi.closing = True
        if hangs:
            log.write("ERROR", "The model hangs: this worker is replaced")
            self._scheduler.reject_all(_REPLACED)
        else:
            wait_until_quiet(self._is_quiet, self.cfg.graceful_timeout - 2)
        signal.set()
        until = time.monotonic() + CLOSE_SECONDS
        while not stopped.wait(CLOSE_SECONDS / 20) and time.monotonic() < until:
            if hangs:  # requests that arrive over open connections
                self._scheduler.reject_all(_REPLACED)
        log.flush()
        self.wsgi.metrics.flush()

    def _watch(self) -> bool:
        """Check the requests until it is time to stop; return whether the model hangs."""
        while self.alive and self.ppid == os.getppid():
            self.notify()
            log.flush()
            self.wsgi.metrics.flush()
            if self._scheduler.check():
                return True
            if select.select([self.PIPE[0]], [], [], CHECK_INTERVAL)[0]:
                os.read(self.PIPE[0], 4096)  # a signal arrived
        return False

    def _is_quiet(self) -> bool:
        self.notify()
        self._scheduler.check()
        return len(self._scheduler) == 0

    def _on_head(self, watcher: Any) -> None:
        """Start a request whose head was read."""
        scope = watcher.scope
        path = scope.path
        # Of repeated headers the first; asking the core for single ones takes longer.
        headers = dict(scope.headers.items()[::-1])
        request = Request(
            scope.method,
            unquote(path) if "%" in path else path,
            scope.client.rpartition(":")[0],
            headers.get,
        )
        exchange = Exchange(watcher, request)
        self._scheduler.register(exchange)
        self.wsgi.metrics.in_flight(len(self._scheduler))
        try:
            step = self.wsgi.begin(request)
            if isinstance(step, Job):
                self._read(exchange, step)
            else:
                self._scheduler.reply(exchange, step)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client gets a response)
            self._scheduler.reply(exchange, error_reply(500, f"{type(error).__name__}: {error}"))

    def _read(self, exchange: Exchange, job: Job) -> None:
        header = exchange.request.header
        length = header("content-length")
        if not job.reads_body or length == "0":
            self._scheduler.submit(exchange, job, b"")
        elif length is not None:
            if int(length) > self.wsgi.max_body:
                self._scheduler.reply(exchange, too_large(self.wsgi.max_body))
                return

            future = exchange.body = exchange.proto.proto()
            future.add_done_callback(partial(self._on_body, exchange, job), context=self._context)
        elif header("transfer-encoding") is None:
            self._scheduler.reply(exchange, no_body())
        else:
            self._read_chunks(exchange, job)

    def _on_body(self, exchange: Exchange, job: Job, future: Any) -> None:
        try:
            body = future.result()
        except Exception as error:  # noqa: BLE001  (the core's own classes: the client left, or sent invalid HTTP)
            self._scheduler.reply(exchange, _unreadable(error))
            return
        exchange.body = None  # it refers to this exchange, a cycle that the garbage collector can't see
        self._scheduler.submit(exchange, job, body)

    def _read_chunks(self, exchange: Exchange, job: Job) -> None:
        """Read a body of unknown length in chunks, and stop where it becomes too large.

        The core ends each body with an empty chunk, and adds another where it can't read on or has read trailers.
        """
        chunks: List[bytes] = []
        size = 0
        iterator = exchange.proto.proto.__aiter__()

        def read_next() -> None:
            try:
                future = exchange.body = iterator.__anext__()
            except StopAsyncIteration:
                done()
                return
            future.add_done_callback(self._guarded(exchange, on_chunk), context=self._context)

        def on_chunk(future: Any) -> None:
            nonlocal size
            try:
                chunk = future.result()
            except StopAsyncIteration:
                done()
                return
            chunks.append(chunk)
            size += len(chunk)
            if size > self.wsgi.max_body:
                self._scheduler.reply(exchange, too_large(self.wsgi.max_body))
            elif chunks[-2:] == [b"", b""] and exchange.request.header("trailer") is None:
                self._scheduler.reply(exchange, _unreadable("it ended before its last chunk"))
            else:
                read_next()

        def done() -> None:
            exchange.body = None
            self._scheduler.submit(exchange, job, b"".join(chunks))

        read_next()

    def _guarded(self, exchange: Exchange, step: Callable[[Any], None]) -> Callable[[Any], None]:
        def call(future: Any) -> None:
            try:
                step(future)
            except Exception as error:  # noqa: BLE001  (as above)
                self._scheduler.reply(exchange, _unreadable(error))

        return call

    def _send(self, exchange: Exchange, reply: Reply) -> None:
        close = self._closing
        if reply.status >= FIRST_ERROR_STATUS:
            reply = in_protocol_form(exchange.request, reply)
            close = close or (exchange.state == READING and _has_body(exchange.request))  # the core reads no further
        headers = reply.headers
        if exchange.state == READING and exchange.body is not None:
            exchange.body.cancel()  # else the core goes on reading for as long as the client keeps the connection
        exchange.body = None
        if close:
            headers = [*headers, ("Connection", "close")]
        request = exchange.request
        exchange.proto.proto.response_bytes(reply.status, headers, b"" if request.method == "HEAD" else reply.body)
        now = time.monotonic()
        seconds = now - exchange.began
        metrics, waiting = self.wsgi.metrics, len(self._scheduler)
        metrics.in_flight(waiting)
        metrics.answered(request.path, reply.status, seconds, last=not waiting)
        last = not waiting and now > self._next_log
        if last:
            self._next_log = now + LOG_INTERVAL
        log.access(request, reply.status, len(reply.body), seconds, last=last)


def _core_scheduler(core: Any, loop: _Loop, on_head: Callable[[Any], None]) -> Any:
    class Scheduler(core.CallbackScheduler):  # type: ignore[misc]
        __slots__ = ()

        def __init__(self, *_: Any) -> None:
            super().__init__()
            self._schedule_fn = on_head  # type: ignore[misc]  # a slot of the core's class

    return Scheduler(loop, on_head, None, lambda *_: None, lambda *_: None)


def _unreadable(error: Union[Exception, str]) -> Reply:
    if isinstance(error, Exception):
        # The core's future keeps it, and its traceback keeps the future: a cycle that the garbage collector can't see.
        error.__traceback__ = None
    return error_reply(400, f"The body can't be read: {error}")


def _has_body(request: Request) -> bool:
    length = request.header("content-length")
    return request.header("transfer-encoding") is not None or length not in (None, "0")
