"""Counters that all the workers share, in Prometheus' text format.

Every worker counts in its own slot of memory that the master has allocated, and each of them can add the slots up. A
worker that replaces a dead one takes over its slot, so that no counter ever falls. No file is written: the root may be
read-only. Frequent events are queued first and counted in groups.
The format: prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections import deque
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Deque, Dict, Iterator, List, Sequence, Tuple

_STATUSES = ("200", "400", "404", "405", "406", "408", "411", "413", "415", "422", "500", "503", "504", "other")
_ROUTES = ("invoke", "infer", "info", "health", "metadata", "documents", "metrics", "other")
_PREDICTING = ("invoke", "infer")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 100000)

# The layout of a slot, in numbers of 8 bytes.
_REQUESTS = 0
_LATENCY = _REQUESTS + len(_ROUTES) * len(_STATUSES)
_LATENCY_SIZE = len(_SECONDS) + 2  # one bucket above the last bound, and the sum
_SIZES = _LATENCY + len(_PREDICTING) * _LATENCY_SIZE
_SIZES_SIZE = len(_ROWS) + 2
_CALLS = _SIZES + _SIZES_SIZE
_CALLS_SIZE = _SIZES_SIZE
_IN_FLIGHT = _CALLS + _CALLS_SIZE
_SIZE = _IN_FLIGHT + 1
_LAST = len(_STATUSES) - 1
_MOST_PENDING = 64
_COLUMNS = {int(status): column for column, status in enumerate(_STATUSES[:_LAST])}
_PLACES = {
    name: (
        _REQUESTS + row * len(_STATUSES),
        _LATENCY + row * _LATENCY_SIZE if name in _PREDICTING else 0,
    )
    for row, name in enumerate(_ROUTES)
}
_OTHER = _PLACES["other"]


class SharedMetrics:
    """The memory of the master with a slot for each worker, and the free slots."""

    def __init__(self, workers: int) -> None:
        """Allocate slots for so many workers at once."""
        self._cells = memoryview(mmap.mmap(-1, workers * _SIZE * 8)).cast("d")
        self._free = list(range(workers))

    def acquire(self) -> Metrics:
        """Return a slot for a worker that is about to start, or private memory if all slots are taken."""
        if not self._free:
            return Metrics(self._cells, memoryview(bytearray(_SIZE * 8)).cast("d"), -1)
        slot = self._free.pop(0)
        own = self._cells[slot * _SIZE : (slot + 1) * _SIZE]
        own[_IN_FLIGHT] = 0
        return Metrics(self._cells, own, slot)

    def release(self, metrics: Metrics) -> None:
        """Free the slot of a dead worker, which has no requests in flight any more."""
        if metrics.slot >= 0:
            metrics.in_flight(0)
            self._free.append(metrics.slot)


class Metrics:
    """The counters of one worker."""

    def __init__(self, cells: memoryview[float], own: memoryview[float], slot: int) -> None:
        """Count in `own`; report the sums of `cells`."""
        self._all = cells
        self._own = own
        self.slot = slot
        self._lock = Lock()
        self._answers: Deque[Tuple[str, int, float]] = deque()  # to be counted: paths, statuses and seconds
        self._rows: Deque[Tuple[int, int]] = deque()  # to be counted: offset of a histogram, and rows
        self._routes: Dict[str, Tuple[int, int]] = {}  # offsets of the counters and of the latency of a path

    @classmethod
    def alone(cls) -> Metrics:
        """Return the counters of a process without other workers."""
        return SharedMetrics(1).acquire()

    def name_routes(self, names: Dict[str, str]) -> None:
        """Set the names of the paths in the metrics; other paths are `other`."""
        self._routes = {path: _PLACES[name] for path, name in names.items()}

    def answered(self, path: str, status: int, seconds: float, *, last: bool = True) -> None:
        """Count a response; unless it is the `last` for now, it may be counted later with others."""
        self._answers.append((path, status, seconds))
        if last or len(self._answers) >= _MOST_PENDING:
            self.flush()

    def asked(self, rows: int) -> None:
        """Queue the rows of a request, to be counted with its response."""
        self._rows.append((_SIZES, rows))

    def called(self, rows: int) -> None:
        """Queue the rows of a call of the model, to be counted with a response."""
        self._rows.append((_CALLS, rows))

    def flush(self) -> None:
        """Count all queued events."""
        own, routes = self._own, self._routes
        with self._lock:
            while self._answers:
                path, status, seconds = self._answers.popleft()
                requests, latency = routes.get(path, _OTHER)
                own[requests + _COLUMNS.get(status, _LAST)] += 1
                if latency:
                    own[latency + bisect_left(_SECONDS, seconds)] += 1
                    own[latency + _LATENCY_SIZE - 1] += seconds
            while self._rows:
                start, rows = self._rows.popleft()
                own[start + bisect_left(_ROWS, rows)] += 1
                own[start + _SIZES_SIZE - 1] += rows

    def in_flight(self, number: int) -> None:
        """Set the number of requests without a response."""
        self._own[_IN_FLIGHT] = number

    def text(self, name: str, version: str) -> str:
        """Return all metrics, summed over the workers."""
        self.flush()
        total = [sum(self._all[index::_SIZE]) for index in range(_SIZE)]
        if self.slot < 0:
            total = [mine + theirs for mine, theirs in zip(self._own, total)]  # noqa: B905  (of one length)
        return "".join(line + "\n" for line in _lines(total, name, version))


def _lines(total: Sequence[float], name: str, version: str) -> Iterator[str]:
    yield from _head("model_info", "gauge", "The model that is served.")
    yield f'odahu_model_info{{name="{_quoted(name)}",version="{_quoted(version)}"}} 1'
    yield from _head("requests_total", "counter", "Responses by route and status.")
    kinds = {"client": 0.0, "model": 0.0, "timeout": 0.0, "unavailable": 0.0}
    for row, route in enumerate(_ROUTES):
        for column, status in enumerate(_STATUSES):
            count = total[_REQUESTS + row * len(_STATUSES) + column]
            if count:
                yield f'odahu_requests_total{{route="{route}",status="{status}"}} {count:.0f}'
            kind = _kind(status)
            if kind:
                kinds[kind] += count
    yield from _head("errors_total", "counter", "Error responses by kind.")
    for kind, count in kinds.items():
        yield f'odahu_errors_total{{kind="{kind}"}} {count:.0f}'
    yield from _head("requests_in_flight", "gauge", "Requests without a response yet.")
    yield f"odahu_requests_in_flight {total[_IN_FLIGHT]:.0f}"
    yield from _head("request_seconds", "histogram", "Seconds from the head of a prediction request to its response.")
    for row, route in enumerate(_PREDICTING):
        start = _LATENCY + row * _LATENCY_SIZE
        yield from _histogram(f'request_seconds{{route="{route}"', total[start : start + _LATENCY_SIZE], _SECONDS)
    yield from _head("request_rows", "histogram", "Rows in a request.")
    yield from _histogram("request_rows{", total[_SIZES : _SIZES + _SIZES_SIZE], _ROWS)
    yield from _head("batch_rows", "histogram", "Rows in a call of the model.")
    yield from _histogram("batch_rows{", total[_CALLS : _CALLS + _CALLS_SIZE], _ROWS)


def _kind(status: str) -> str:
    kinds = {"408": "timeout", "504": "timeout", "500": "model", "503": "unavailable"}
    return kinds.get(status, "client" if status.startswith("4") else "")


def _head(name: str, kind: str, text: str) -> Tuple[str, str]:
    return f"# HELP odahu_{name} {text}", f"# TYPE odahu_{name} {kind}"


def _histogram(labelled: str, cells: Sequence[float], bounds: Sequence[float]) -> Iterator[str]:
    """Yield the lines of a histogram: cumulative buckets, the sum and the count."""
    name, _, labels = labelled.partition("{")
    counts: List[float] = list(accumulate(cells[:-1]))
    comma = "," if labels else ""
    for bound, count in zip([f"{bound:g}" for bound in bounds] + ["+Inf"], counts):  # noqa: B905  (of one length)
        yield f'odahu_{name}_bucket{{{labels}{comma}le="{bound}"}} {count:.0f}'
    rest = f"{{{labels}}}" if labels else ""
    yield f"odahu_{name}_sum{rest} {cells[-1]!r}"
    yield f"odahu_{name}_count{rest} {counts[-1]:.0f}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
