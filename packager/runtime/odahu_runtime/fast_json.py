"""JSON by orjson, if the image has it; the standard library handles and explains all that orjson rejects."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Union

_found: Dict[str, Any] = {}


class Refused(Exception):  # noqa: N818  (not an error: the standard library is tried)
    """orjson is missing, or rejects this value."""


def use(orjson: Optional[Any]) -> None:
    """Use orjson from now on, or without a module no longer."""
    _found.clear()
    if orjson is not None:
        _found["loads"], _found["dumps"] = orjson.loads, orjson.dumps
        # The runtime has its own format for these two; orjson's may change.
        _found["option"] = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def loads(text: Union[str, bytes]) -> Any:
    """Read standard JSON, as text or UTF-8.

    Raises:
        Refused: The standard library has to do it.
    """
    if not _found:
        raise Refused
    try:
        return _found["loads"](text)
    except ValueError as error:
        raise Refused from error


def dumps(value: Any, default: Callable[[Any], Any]) -> bytes:
    """Write JSON on one line, in UTF-8; NaN becomes null.

    `default` converts values of other types, as in the standard library.

    Raises:
        Refused: The standard library has to do it.
    """
    if not _found:
        raise Refused
    try:
        written: bytes = _found["dumps"](value, default, _found["option"])
    except (TypeError, ValueError) as error:
        raise Refused from error
    return written
