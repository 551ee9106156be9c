"""The values of CSV cells, which are text: converted to the types that the model's `info()` names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .inputs import LARGEST_INTEGER, LEAST_INTEGER, beyond_64_bits

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Sequence

    from .column_names import ColumnNames
    from .schema import Column

    Reader = Callable[[str], Any]

# As in JSON, and with a sign. Other numbers of Python's (1_000, an Arabic digit) are text.
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_LONG = re.compile(r"[+-]?[0-9]{19,}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|infinity)", re.IGNORECASE)
_WORDS = {"": None, "nan": None, "true": True, "false": False}


class CellError(ValueError):
    """A cell does not have its column's type; the message is that type."""


def readers(given: Sequence[str], names: ColumnNames) -> List[Reader]:
    """Return a reader for the cells of each column: for the column's type, or for an unknown column `guess`.

    Raises:
        InputError: A name could refer to several of the model's columns.
    """
    places = [names.find(name) for name in given]
    return [guess if place is None else reader_of(names.columns[place]) for place in places]


def guess(text: str) -> Any:
    """Return a number or a boolean if the cell looks like one, None if it is empty, else its text."""
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        return number(text)
    except CellError:
        return text


def mismatch(text: str) -> Any:
    """Return the value that a cell looks like, which does not have its column's type.

    Raises:
        InputError: It is a whole number beyond 64 bits.
    """
    if _LONG.fullmatch(text.strip()):
        raise beyond_64_bits(text.strip(), "; send a float (1e20) where the last digits don't matter")
    return guess(text)


def integer(text: str) -> Any:
    """Read an integer, or None from an empty cell.

    Raises:
        CellError: It is neither.
    """
    try:
        value = number(text)
    except CellError as error:
        raise CellError(str(error).replace("a number", "a whole number")) from error
    if not isinstance(value, float):
        return value
    # 3.0: pandas writes integers with missing values so.
    if value.is_integer() and LEAST_INTEGER <= value <= LARGEST_INTEGER:
        return int(value)
    raise CellError("a whole number")


def number(text: str) -> Any:
    """Read a number, or None from an empty cell or a NaN; true and false are 1 and 0.

    Raises:
        CellError: It is neither, or a whole number beyond 64 bits.
    """
    text = text.strip()
    if _INTEGER.fullmatch(text):
        value = int(text)
        if LEAST_INTEGER <= value <= LARGEST_INTEGER:
            return value
    word = text.lower()
    if word in _WORDS:
        return None if _WORDS[word] is None else int(word == "true")
    if _LONG.fullmatch(text):
        raise CellError("a number of 64 bits")
    if _NUMBER.fullmatch(text):
        return float(text)
    raise CellError("a number")


def boolean(text: str) -> Any:
    """Read True from `true` and `1`, False from `false` and `0`, None from an empty cell or a NaN.

    Raises:
        CellError: It is another text.
    """
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    if word in ("1", "0", "1.0", "0.0"):  # 1.0: pandas writes booleans with missing values so
        return word in ("1", "1.0")
    raise CellError("true or false")


def string(text: str) -> Any:
    """Read text, or None from an empty cell."""
    return text or None


_READERS: Dict[str, Reader] = {"integer": integer, "number": number, "boolean": boolean, "string": string}
_TEXTS = ("object", "date", "time", "datetime", "category")


def reader_of(column: Column) -> Reader:
    """Return the reader for the cells of a model's column."""
    text = column.stated and column.type.lower().startswith(_TEXTS)
    return _READERS.get(column.kind, string if text else guess)
