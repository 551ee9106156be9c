"""The service: gunicorn's master, and `workers` processes that predict `threads` requests at once.

A worker is granian's Rust core where the image has it (granian_worker.py), else gunicorn's own (threaded_worker.py).

Every worker loads the model itself, after the fork. A worker that can't load it stops the service. Only this module and
the workers import gunicorn, and only within `isolation.private`.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import sys
from array import array
from concurrent.futures import thread  # noqa: F401  (imported later, it would import the model's `queue`)
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.workers import base
from gunicorn.workers.workertmp import WorkerTmp

from . import granian_worker, log, outputs, process, threaded_worker
from .batching import BatchLimits
from .metrics import SharedMetrics
from .model import Model, ModelError
from .wsgi import Application

if TYPE_CHECKING:
    from typing import NoReturn

MODEL_FAILED = 4
_GRACE_SECONDS = 25  # Kubernetes kills after 30
_MASTER_EXTRA_SECONDS = 5
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python has no constant for it
_SPARE_WORKERS = 8  # that signals may add to the configured ones
_BACKLOG = 4096  # connections that may wait in the kernel
_CONNECTIONS = 1000  # of a worker without granian
_STARTED, _FAILED = 1, 2  # states that a worker reports to the master; a failed one has logged the reason
_KEEPALIVE_SECONDS = 75  # longer than load balancers', so that the server never closes a connection under a request


class Settings(NamedTuple):
    """Options of the server; `timeout` in seconds. `core` is granian's core, or None."""

    host: str
    port: int
    workers: int
    threads: int
    timeout: int
    core: Any = None
    batches: BatchLimits = BatchLimits()


def serve(settings: Settings) -> int:
    """Serve until a signal stops the process."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        # Without handlers signals don't stop PID 1, and gunicorn sets up its own later.
        signal.signal(number, _leave)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    process.raise_file_limit()
    util.write_error = _write_error  # gunicorn's own responses are HTML
    if hasattr(os, "memfd_create"):
        base.WorkerTmp = _Heartbeat
    _Server(settings).run()
    return 0


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.shared = SharedMetrics(settings.workers + _SPARE_WORKERS)
        self.metrics: Any = None
        self.started: Any = None
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        serves = settings.threads, settings.timeout, settings.batches
        if settings.core is None:
            worker = threaded_worker.worker_class(*serves)
        else:
            worker = granian_worker.worker_class(settings.core, *serves)
        values = {
            "bind": f"{host}:{settings.port}",
            "workers": settings.workers,
            "threads": settings.threads + threaded_worker.SPARE_THREADS,
            "worker_connections": process.max_connections(_CONNECTIONS),
            # The worker itself watches the model; the master waits a little longer.
            "timeout": settings.timeout + _MASTER_EXTRA_SECONDS if settings.timeout else 0,
            "worker_class": _reporting_start(worker),
            "backlog": _BACKLOG,
            "logger_class": log.Log,
            "graceful_timeout": _GRACE_SECONDS,
            "keepalive": _KEEPALIVE_SECONDS,
            "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None,  # noqa: S108
            "child_exit": _check_start,
            "post_worker_init": _started,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Application:
        """Load the model in a worker; if that fails the service stops, so this process exits at once."""
        try:
            application = Application(
                Model.from_env(os.environ),
                dict(os.environ),
                lambda text: log.write("ERROR", text),
                self.metrics,
                self._settings.batches,
            )
        except ModelError as error:
            if error.details != str(error):
                sys.stderr.write(error.details + "\n")
            log.write("CRITICAL", str(error))
            self.started[0] = _FAILED
            process.exit_now(MODEL_FAILED)

        return application

    def run(self) -> None:
        _Arbiter(self).run()


class _Arbiter(Arbiter):  # type: ignore[misc]
    stopping = False
    # The master exits when a worker exits with one of these codes, and a model can exit with any code.
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1

    def spawn_worker(self) -> Any:
        try:
            return super().spawn_worker()
        except SystemExit as error:
            if os.getpid() == self.pid:
                raise
            process.exit_after_hooks(error.code if isinstance(error.code, int) else 0)  # the worker is done

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002  (gunicorn's signature)
        """Stop the workers; those that still load the model have no requests, and may not handle signals yet."""
        self.stopping = True
        for listener in self.LISTENERS:
            _drop_new_connections(listener.sock)
        for pid, worker in list(self.WORKERS.items()):
            if worker.started[0] != _STARTED:
                self.kill_worker(pid, signal.SIGKILL)
        self._reap_all()  # workers that died together have sent one signal
        super().stop(graceful)

    def handle_chld(self, sig: int, frame: Any) -> None:
        if self.stopping:
            self._reap_all()
        else:
            super().handle_chld(sig, frame)

    def _reap_all(self) -> None:
        for _ in range(len(self.WORKERS) + 1):
            with suppress(HaltServer):
                self.reap_workers()
                return
            self.kill_workers(0)  # forgets workers that have exited

    def handle_usr2(self) -> None:
        """Do nothing: the program is replaced by replacing its container."""


class _Heartbeat(WorkerTmp):  # type: ignore[misc]
    """The file whose time shows that a worker lives; in memory, as there may be no writable folder."""

    def __init__(self, _cfg: Any) -> None:
        self._tmp = os.fdopen(os.memfd_create("heartbeat"), "w+b", 0)


def _reporting_start(worker_class: Any) -> Any:
    class Reporting(worker_class):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.started = mmap.mmap(-1, 1)  # shared with the master
            self.metrics = self.app.shared.acquire()

        def load_wsgi(self) -> None:
            self.app.metrics = self.metrics
            self.app.started = self.started
            super().load_wsgi()

    return Reporting


def _drop_new_connections(listener: socket.socket) -> None:
    """Let the kernel drop new connections, while the workers still accept the existing ones.

    A client then retries and is refused in the end, or reaches another pod. Otherwise connections that are not accepted
    yet would be reset together with their requests. See socket(7), SO_ATTACH_FILTER: the filter
    is one instruction, "return 0": keep no byte of any packet.
    """
    program = array("B", struct.pack("HBBI", 0x06, 0, 0, 0))
    with suppress(OSError):  # the kernel forbids it
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, program.buffer_info()[0]))


def _started(worker: Any) -> None:
    worker.init_signals()  # the model may have changed them
    worker.started[0] = _STARTED
    worker.log.info("Worker %s serves the model", worker.pid)


def _check_start(server: Any, worker: Any) -> None:
    """Stop the service instead of restarting a worker that can't start, say for lack of memory."""
    if worker.started[0] != _STARTED and not server.stopping:
        failed = worker.started[0] == _FAILED
        reason = "the model can't be loaded" if failed else "a worker died while it loaded the model; out of memory?"
        raise HaltServer(reason, MODEL_FAILED)
    worker.started.close()
    server.app.shared.release(worker.metrics)


def _leave(_signal: int, _frame: Any) -> NoReturn:
    process.exit_now(0)


def _write_error(sock: Any, status: int, reason: str, message: str) -> None:
    """Respond to requests that are not valid HTTP, or never reach the application."""
    body = outputs.dumps({"message": message or reason})
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    util.write_nonblock(sock, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1"))
