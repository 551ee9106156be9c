"""Micro-batching: requests that come together share one call of a matrix model, and each gets its own rows back."""

from __future__ import annotations

import time
from queue import Empty
from typing import TYPE_CHECKING, NamedTuple

from .inputs import Batch, InputError
from .model import ModelError

if TYPE_CHECKING:
    from queue import SimpleQueue
    from typing import Any, Dict, Iterator, List, Tuple

    from .http import Reply
    from .metrics import Metrics
    from .model import Model
    from .prediction import Part

    Key = Tuple[Any, ...]


class Limits(NamedTuple):
    """The most rows that share a call, and the seconds that the first request waits for others; 1 row: none do."""

    rows: int = 1
    seconds: float = 0.0


def collect(line: SimpleQueue[Any], first: Any, limits: Limits) -> List[Any]:
    """Take what stands in the line behind `first`, and what comes while it may wait; at most a request a row."""
    found = [first]
    until = time.monotonic() + limits.seconds
    while len(found) < limits.rows:
        wait = until - time.monotonic()
        try:
            found.append(line.get(timeout=wait) if wait > 0 else line.get_nowait())
        except Empty:
            break
    return found


def answer(parts: List[Part], model: Model, limits: Limits, metrics: Metrics) -> List[Reply]:
    """Predict for all, in as few calls as their columns, their shapes and the limit allow; the order stays.

    Where a call for several fails, or does not give a row for a row, each of them is predicted alone: so only a request
    that is bad by itself gets an error.
    """
    replies: Dict[int, Reply] = {}
    for group in _groups(parts, limits.rows):
        if len(group) == 1 or not _together([parts[index] for index in group], group, replies, model, metrics):
            for index in group:
                replies[index] = parts[index].prediction.complete(parts[index])
    return [replies[index] for index in range(len(parts))]


def _groups(parts: List[Part], most: int) -> Iterator[List[int]]:
    """The places of those that may share a call."""
    open_groups: Dict[Key, Tuple[List[int], int]] = {}
    for index, part in enumerate(parts):
        rows, columns, _ = part.batch
        key = (None if columns is None else tuple(columns), type(rows[0]), len(rows[0]))
        group, size = open_groups.get(key, ([], 0))
        if group and size + len(rows) > most:
            yield group
            group, size = [], 0
        open_groups[key] = ([*group, index], size + len(rows))
    for group, _ in open_groups.values():
        yield group


def _together(parts: List[Part], places: List[int], replies: Dict[int, Reply], model: Model, metrics: Metrics) -> bool:
    rows = [row for part in parts for row in part.batch.data]
    try:
        prediction, columns = model.predict_raw(Batch(rows, parts[0].batch.columns))
    except (InputError, ModelError):
        return False
    try:
        if _length(prediction) != len(rows):
            return False
        shares = list(_shares(prediction, [len(part.batch.data) for part in parts]))
    except Exception:  # noqa: BLE001  (whatever a table that can't be cut raises)
        return False
    metrics.called(len(rows))
    for part, place, share in zip(parts, places, shares):  # noqa: B905  (of one length)
        replies[place] = part.prediction.finish(part, (share, columns))
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
        # Of what is computed later (dask's) the length isn't known: None, NaN or an object of its own.
        return shape[0] if shape and isinstance(shape[0], int) else -1
    return len(prediction) if isinstance(prediction, (list, tuple)) else -1
