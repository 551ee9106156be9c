"""Micro-batching: requests that arrive together share a call of a matrix model, and each gets its own rows back."""

from __future__ import annotations

import time
from queue import Empty
from typing import TYPE_CHECKING, NamedTuple

from .http import Reply
from .inputs import Batch, InputError
from .model import ModelError

if TYPE_CHECKING:
    from queue import SimpleQueue
    from typing import Any, Dict, Iterator, List, Tuple

    from .http import Request
    from .metrics import Metrics
    from .model import Model
    from .prediction import Job, ParsedRequest

    Key = Tuple[Any, ...]


class BatchLimits(NamedTuple):
    """The maximum of rows in a shared call (1: no sharing), and how many seconds the first request waits for others."""

    rows: int = 1
    seconds: float = 0.0


def collect(queue: SimpleQueue[Any], first: Any, limits: BatchLimits) -> List[Any]:
    """Take the requests behind `first` from the queue, and those that arrive in time; at most one per allowed row."""
    found = [first]
    until = time.monotonic() + limits.seconds
    while len(found) < limits.rows:
        wait = until - time.monotonic()
        try:
            found.append(queue.get(timeout=wait) if wait > 0 else queue.get_nowait())
        except Empty:
            break
    return found


def predict_batch(
    requests: List[Tuple[Request, Job, bytes]], model: Model, limits: BatchLimits, metrics: Metrics
) -> List[Reply]:
    """Answer the requests in their order, in as few calls as their columns, their row lengths and the limit allow.

    Where a shared call fails, or does not return a row for each row, each of its requests is predicted alone: only a
    request that is invalid itself gets an error.
    """
    replies: Dict[int, Reply] = {}
    parts: Dict[int, ParsedRequest] = {}
    for index, (request, job, body) in enumerate(requests):
        step = job.batchable.read(request, body) if job.batchable else job.run(request, body)
        if isinstance(step, Reply):
            replies[index] = step
        else:
            parts[index] = step
    for group in _groups(parts, limits.rows):
        if len(group) == 1 or not _predict_together({index: parts[index] for index in group}, replies, model, metrics):
            for index in group:
                replies[index] = parts[index].prediction.complete(parts[index])
    return [replies[index] for index in range(len(requests))]


def _groups(parts: Dict[int, ParsedRequest], most: int) -> Iterator[List[int]]:
    """Yield the indexes of the requests that can share a call of at most so many rows."""
    open_groups: Dict[Key, Tuple[List[int], int]] = {}
    for index, part in parts.items():
        rows, columns, _ = part.batch
        key = (None if columns is None else tuple(columns), type(rows[0]), len(rows[0]))
        group, size = open_groups.get(key, ([], 0))
        if group and size + len(rows) > most:
            yield group
            group, size = [], 0
        open_groups[key] = ([*group, index], size + len(rows))
    for group, _ in open_groups.values():
        yield group


def _predict_together(
    parts: Dict[int, ParsedRequest], replies: Dict[int, Reply], model: Model, metrics: Metrics
) -> bool:
    batches = [part.batch for part in parts.values()]
    rows = [row for batch in batches for row in batch.data]
    try:
        prediction, columns = model.predict_raw(Batch(rows, batches[0].columns))
    except (InputError, ModelError):
        return False
    try:
        if _length(prediction) != len(rows):
            return False
        shares = list(_shares(prediction, [len(batch.data) for batch in batches]))
    except Exception:  # noqa: BLE001  (a table that can't be sliced raises anything)
        return False
    metrics.called(len(rows))
    for (index, part), share in zip(parts.items(), shares):  # noqa: B905  (of one length)
        replies[index] = part.prediction.finish(part, (share, columns))
    return True


def _shares(prediction: Any, sizes: List[int]) -> Iterator[Any]:
    rows_of = getattr(prediction, "iloc", prediction)  # a table of pandas' by place, not by label
    start = 0
    for size in sizes:
        yield rows_of[start : start + size]
        start += size


def _length(prediction: Any) -> int:
    shape = getattr(prediction, "shape", None)
    if isinstance(shape, tuple):
        # The length of a lazy table (dask's) is unknown: None, NaN or an object of its own.
        return shape[0] if shape and isinstance(shape[0], int) else -1
    return len(prediction) if isinstance(prediction, (list, tuple)) else -1
