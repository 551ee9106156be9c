"""A few threads that bring blobs at the same time, and end together."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from packager.models.image import Descriptor
    from packager.registry.blobs import BlobSource

T = TypeVar("T")

_THREADS = 4
_SETTLE = 5.0  # seconds that threads get to notice that the others have failed


class StoppedError(Exception):
    """Another blob has failed, or the program was told to stop."""


class Workers:
    """Threads for a `with` block: the first failure ends the work of all, and is what is raised."""

    def __init__(self, threads: int = _THREADS) -> None:
        """Start with nothing to do."""
        self._most = threads
        self._threads: list[threading.Thread] = []
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._futures: list[Future[Any]] = []
        self._stopped = threading.Event()

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Begin a piece of work as soon as a thread is free."""
        future: Future[T] = Future()
        self._futures.append(future)
        self._waiting.put(lambda: _do(work, future))
        if len(self._threads) < self._most:
            # A daemon: the interpreter's end waits for those of a ThreadPoolExecutor, and a registry may be silent
            # for longer than whoever has sent SIGTERM waits.
            thread = threading.Thread(target=self._work, name=f"blob-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def wait(self) -> None:
        """Wait for all that was started.

        Raises:
            BaseException: What the first that failed has raised.
        """
        done, _ = wait(self._futures, return_when=FIRST_EXCEPTION)
        for future in done:
            if (error := future.exception()) is not None:
                raise error

    def stoppable(self, blob: BlobSource) -> BlobSource:
        """Return a blob whose stream ends with an error once the work is stopped."""
        return _Stoppable(blob, self._stopped)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads; one that hangs in the network is left behind, it holds nothing that is needed."""
        if error is not None:
            self._stopped.set()
            for future in self._futures:
                future.cancel()  # what hasn't begun
        for _ in self._threads:
            self._waiting.put(None)
        wait(self._futures, timeout=None if error is None else _SETTLE)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            work()


def _do(work: Callable[[], T], future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  (it goes to whoever waits)
        future.set_exception(error)
    else:
        future.set_result(result)


class _Stoppable:
    def __init__(self, blob: BlobSource, stopped: threading.Event) -> None:
        self._blob = blob
        self._stopped = stopped

    def stream(self) -> Iterator[bytes]:
        for chunk in self._blob.stream():
            if self._stopped.is_set():
                raise StoppedError
            yield chunk

    def descriptor(self) -> Descriptor | None:
        return self._blob.descriptor()
