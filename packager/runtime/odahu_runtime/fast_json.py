"""JSON by orjson where the image has it; what it refuses is left to the standard library to read, write or explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Union

_found: Dict[str, Any] = {}


class Refused(Exception):  # noqa: N818  (no error: the slower way is tried)
    """There is no orjson, or it doesn't take this."""


def use(orjson: Optional[Any]) -> None:
    """Use orjson from now on, or no more."""
    _found.clear()
    if orjson is not None:
        _found["loads"], _found["dumps"] = orjson.loads, orjson.dumps
        # These two have a form of ours; what orjson would make of them may change.
        _found["option"] = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def loads(text: Union[str, bytes]) -> Any:
    """Read standard JSON, as text or UTF-8.

    Raises:
        Refused: The standard library has to.
    """
    if not _found:
        raise Refused
    try:
        return _found["loads"](text)
    except ValueError as error:
        raise Refused from error


def dumps(value: Any, default: Callable[[Any], Any]) -> bytes:
    """Write JSON on one line, in UTF-8; NaN becomes null.

    `default` is for what isn't JSON, as the standard library has it.

    Raises:
        Refused: The standard library has to.
    """
    if not _found:
        raise Refused
    try:
        written: bytes = _found["dumps"](value, default, _found["option"])
    except (TypeError, ValueError) as error:
        raise Refused from error
    return written
