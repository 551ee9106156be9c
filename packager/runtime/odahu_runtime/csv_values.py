"""The cells of CSV files, which are text: values of the types that the model's `info()` names."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Sequence

    from .schema import Column

    Reader = Callable[[str], Any]

# As JSON writes them, and a sign: what else Python would take (1_000, an Arabic digit) is text.
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|infinity)", re.IGNORECASE)
_LONGEST_INTEGER = 1000  # digits; Python itself reads more of them slowly, or not at all
_TRUE, _FALSE = ("true", "1"), ("false", "0")


class CellError(ValueError):
    """A cell isn't of its column's type; the text says which that is."""


def readers(names: Sequence[str], described: Sequence[Column]) -> List[Reader]:
    """How the cells of each column are read: by the type that the model gives the column, else by their look."""
    kinds = {column.name: column.type.lower() for column in described}
    return [_reader(kinds.get(name, "")) for name in names]


def guess(text: str) -> Any:
    """A number where it looks like one, None where it's empty, else the text."""
    if not text or text.lower() == "nan":
        return None
    return number(text) if _NUMBER.fullmatch(text) and len(text) < _LONGEST_INTEGER else text


def integer(text: str) -> Any:
    """A whole number, or None for an empty cell.

    Raises:
        CellError: It is neither.
    """
    try:
        value = number(text)
    except CellError:
        value = math.inf
    if not isinstance(value, float):
        return value
    if value.is_integer():  # 3.0: pandas writes a column with holes so
        return int(value)
    raise CellError("a whole number")


def number(text: str) -> Any:
    """A number, or None for an empty cell or a NaN.

    Raises:
        CellError: It is neither.
    """
    text = text.strip()
    if not text or text.lower() == "nan":
        return None
    if _INTEGER.fullmatch(text) and len(text) < _LONGEST_INTEGER:
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    raise CellError("a number")


def boolean(text: str) -> Any:
    """True for `true` and `1`, False for `false` and `0`, None for an empty cell.

    Raises:
        CellError: It is none of these.
    """
    text = text.strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if not text:
        return None
    raise CellError("true or false")


def _text(text: str) -> str:
    return text


# The words that GPPI models are described with: OpenAPI's types, and numpy's and MLflow's.
_READERS: Dict[str, Reader] = {
    **dict.fromkeys(("integer", "int", "long"), integer),
    **dict.fromkeys(("number", "float", "double", "decimal"), number),
    **dict.fromkeys(("boolean", "bool"), boolean),
    **dict.fromkeys(("string", "str", "text", "object", "date", "datetime", "category"), _text),
}
_SIZED = re.compile(r"(u?int|float|datetime)\d+.*")


def _reader(kind: str) -> Reader:
    sized = _SIZED.fullmatch(kind)
    return _READERS.get(sized.group(1).replace("uint", "int") if sized else kind, guess)
