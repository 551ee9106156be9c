"""JSON of a model's results, which every client can read.

No library is imported for it: values of numpy, pandas and others are recognized by their behaviour.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import numbers
import pathlib
import uuid
from collections import abc
from itertools import chain
from typing import TYPE_CHECKING

from . import fast_json

if TYPE_CHECKING:
    from typing import Any, Callable, Optional, Tuple

    Default = Callable[[Any], Any]

_SCALARS = {int, float, bool, str, type(None)}


def dumps(value: Any, indent: Optional[int] = None, default: Optional[Default] = None) -> str:
    """Write a value as strict JSON; `default` as in `plain`.

    Raises:
        TypeError: The value, or one within it, can't be represented in JSON.
    """
    return encoded(value, default).decode() if indent is None else _dumps(value, indent, default)


def encoded(value: Any, default: Optional[Default] = None) -> bytes:
    """Like `dumps`, on one line, in UTF-8.

    Raises:
        TypeError: The value, or one within it, can't be represented in JSON.
    """
    if default is None:
        try:
            return fast_json.dumps(value, _step_once)
        except fast_json.Refused:
            pass
    return _dumps(value, None, default).encode()


def _dumps(value: Any, indent: Optional[int], default: Optional[Default]) -> str:
    """Write JSON with the standard library."""

    def step(item: Any) -> Any:
        return _step_once(item, default)

    try:
        # Much faster than `plain`, and correct unless there is a NaN or a key that JSON doesn't have.
        return json.dumps(value, indent=indent, allow_nan=False, default=step)
    except (TypeError, ValueError):
        return json.dumps(plain(value, default), indent=indent, allow_nan=False)


def _step_once(item: Any, default: Optional[Default] = None) -> Any:
    """Like `_step`, for callers that may have to start over."""
    if isinstance(item, abc.Iterator):
        raise TypeError("can be read only once")
    return _step(item, default)


def plain(value: Any, default: Optional[Default] = None) -> Any:  # noqa: PLR0911  (a case, a return)
    """Convert a value to the types of JSON.

    NaN and the infinities become null, because JSON has no such numbers. `default` is the model's own
    `JSONEncoder.default`, called first for values of other types; its TypeError means that it can't convert one.

    Raises:
        TypeError: The value, or one within it, can't be represented in JSON.
    """
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, (str, int, float)) and isinstance(value, enum.Enum):
        return plain(value.value, default)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return list(value) if _is_plain(value) else [plain(item, default) for item in value]
    if isinstance(value, dict):
        return {_key(key, default): plain(item, default) for key, item in value.items()}
    return plain(_step(value, default), default)


def _is_plain(values: Any) -> bool:
    """Whether a list holds only JSON values and lists of them; takes a few interpreter steps for the whole list."""
    types = set(map(type, values))
    if types == {list}:
        return _is_plain(list(chain.from_iterable(values)))
    if not types <= _SCALARS:
        return False
    # A sum is finite only if all addends are; finite numbers with an infinite sum go the slower way.
    return float not in types or math.isfinite(sum([value for value in values if isinstance(value, float)]))


def _key(key: Any, default: Optional[Default]) -> str:
    key = plain(key, default)
    return key if isinstance(key, str) else json.dumps(key)


def _step(value: Any, default: Optional[Default]) -> Any:
    """Convert a value one level; the result may hold values that have to be converted, too."""
    if default is not None:
        try:
            return default(value)
        except TypeError:
            pass
    return _simplify(value)


def _simplify(value: Any) -> Any:
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if hasattr(value, "to_numpy") and hasattr(value, "__iter__"):
        return _table(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return _array(value)
    for convert in ("toarray", "as_py", "numpy"):  # sparse matrices; Arrow's values; TensorFlow's tensors
        if callable(getattr(value, convert, None)):
            return getattr(value, convert)()
    return _standard(value)


def _standard(value: Any) -> Any:
    for types, convert in _STANDARD:
        if isinstance(value, types):
            return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, abc.Iterable):
        return list(value)
    raise TypeError(f"a value of type {type(value).__module__}.{type(value).__qualname__} can't be represented in JSON")


def _table(value: Any) -> Any:
    """Return the rows of a DataFrame, or the values of a Series, an Index and the like."""
    if not hasattr(value, "columns"):
        return list(value)
    if hasattr(value, "iter_rows"):
        return list(value.iter_rows())
    # As objects, for one type for all the columns would turn the integers into floats.
    return value.astype(object).to_numpy().tolist()


def _array(value: Any) -> Any:
    """Return a numpy array or scalar as Python values."""
    kind = getattr(value.dtype, "kind", "")
    if kind == "M":
        return _dates(value.astype(str).tolist())
    if kind == "m":
        return value.astype("timedelta64[us]").tolist()
    if kind == "f":
        return value.astype("float64").tolist()  # `tolist` leaves a long double unchanged
    if kind == "c":
        return value.astype("complex128").tolist()
    return value.tolist()


def _dates(value: Any) -> Any:
    if isinstance(value, list):
        return [_dates(item) for item in value]
    return None if value == "NaT" else value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _in_order(values: Any) -> Any:
    try:
        return sorted(values)
    except TypeError:
        return list(values)


# Types of the standard library, subclasses before their bases.
_STANDARD: Tuple[Tuple[Any, Callable[[Any], Any]], ...] = (
    (enum.Enum, lambda value: value.value),
    ((dt.date, dt.time), lambda value: value.isoformat()),  # a datetime is a date
    (dt.timedelta, lambda value: value.total_seconds()),
    ((bytes, bytearray, memoryview), lambda value: _text(bytes(value))),
    (numbers.Integral, int),
    ((decimal.Decimal, numbers.Real), float),
    ((complex, uuid.UUID, pathlib.PurePath), str),
    (abc.Mapping, dict),
    (abc.Set, _in_order),
)
