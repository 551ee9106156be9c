"""The input of predictions: JSON text, parsed and checked before the model gets it."""

from __future__ import annotations

import json
import math
import re
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple

from . import fast_json

if TYPE_CHECKING:
    from typing import Any, List, NoReturn, Optional, Tuple

_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
# The range of integers in JSON: numpy has no larger ones, and orjson turns larger ones into floats.
LEAST_INTEGER, LARGEST_INTEGER = -(1 << 63), (1 << 64) - 1
_SHORTEST = 19  # digits of the shortest number that may exceed the range
_LONG = re.compile(_STRING + rf"|(?<![\d.eE+-])-?\d{{{_SHORTEST},}}(?![\d.eE])", re.DOTALL)
_CLASSES = bytes(48 if byte in b"0123456789" else 32 if byte in b" \t\r\n,:[-" else 46 for byte in range(256))
_LONG_RUN = b" " + b"0" * _SHORTEST
_SHOWN_DIGITS = 40
_NAMES = {str, int, float, bool, type(None)}  # the JSON types of a column name
_COMMA = re.compile(_STRING + r"|,(?=\s*[\]}])", re.DOTALL)
_CONSTANT = re.compile(_STRING + r"|NaN|-?Infinity", re.DOTALL)


class InputError(Exception):
    """The request or the input file is invalid.

    Attributes:
        status: The HTTP status of the response.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        """Reply `message`, over HTTP with `status`."""
        super().__init__(message)
        self.status = status


class Batch(NamedTuple):
    """The rows to predict, and the names of their columns if the caller gave them.

    `numbers` says that all values are known to be numbers, so that their types need no further check.
    """

    data: List[Any]
    columns: Optional[List[Any]] = None
    numbers: bool = False


def parse_strict(text: str) -> Any:
    """Read standard JSON.

    Raises:
        InputError: It is invalid; names line and column.
    """
    try:
        document = fast_json.loads(text)
    except fast_json.Refused:
        document = _parse(text)
    check_integers(text.encode("utf-8", "replace"))
    return document


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise InputError(f"Invalid JSON: {error}") from error
    except _ConstantError as error:
        raise InputError(f"Invalid JSON: {error} is not a JSON value: {_place(text, str(error))}") from error
    except (ValueError, RecursionError) as error:
        check_integers(text.encode("utf-8", "replace"))  # a number of thousands of digits
        raise InputError(f"Invalid JSON: {error}") from error


def check_integers(body: bytes) -> None:
    """Reject JSON with an integer beyond 64 bits, which orjson reads as a float and the standard library does not.

    Raises:
        InputError: There is one; says where.
    """
    if _LONG_RUN not in body.translate(_CLASSES):
        return
    text = body.decode("utf-8", "replace")
    for match in _LONG.finditer(text):
        found = match.group()
        if found[0] != '"' and not _is_in_range(found):
            where = _position(text, match.start())
            raise beyond_64_bits(found, f": {where}; send text, or a float (1e20) where the last digits don't matter")


def beyond_64_bits(digits: str, rest: str) -> InputError:
    """Return the error for an integer beyond 64 bits; `rest` ends its message."""
    shown = digits if len(digits) <= _SHOWN_DIGITS else digits[:_SHOWN_DIGITS] + "..."
    return InputError(f"The whole number {shown} is beyond 64 bits ({LEAST_INTEGER} to {LARGEST_INTEGER}){rest}", 422)


def _is_in_range(digits: str) -> bool:
    short = digits.lstrip("-0")
    return len(short) <= len(str(LARGEST_INTEGER)) and LEAST_INTEGER <= int(digits) <= LARGEST_INTEGER


def are_numbers(rows: List[Any]) -> bool:
    """Whether all values of rows are numbers, none of which can have been an integer beyond 64 bits.

    As fast as a sum, in which large values of opposite sign could cancel out.
    """
    try:
        return max(starmap(math.hypot, rows)) < -LEAST_INTEGER
    except (TypeError, OverflowError):
        return False


def parse_tolerant(text: str) -> Tuple[Any, List[int]]:
    """Read JSON that may have commas after the last item of a list or an object.

    Returns: The value, and the numbers of the lines that have such a comma.

    Raises:
        InputError: It has other errors.
    """
    try:
        return parse_strict(text), []
    except InputError:
        relaxed, lines = _drop_trailing_commas(text)
        if not lines:
            raise
    return parse_strict(relaxed), lines


def read_batch(document: Any) -> Batch:
    """Check that `{"columns": [...], "data": [[...]]}` has that shape; `columns` may be absent.

    Rows may be objects too, for models that predict on objects.

    Raises:
        InputError: It has another shape.
    """
    if not isinstance(document, dict):
        raise InputError(f'Expected an object like {{"columns": [...], "data": [[...]]}}, got {kind_of(document)}')
    columns = document.get("columns") or None
    if columns is not None:
        columns = _read_columns(columns)
    data = document.get("data")
    if not isinstance(data, list):
        raise InputError(f'"data" must be a list of rows, got {kind_of(data)}' if "data" in document else 'No "data"')
    if not data:
        raise InputError('"data" has no rows')
    if not _is_table(data, columns):  # then look closer, to say where
        for number, row in enumerate(data):
            _check_row(number, row, columns, data[0])
    return Batch(data, columns)


def _is_table(data: List[Any], columns: Optional[List[Any]]) -> bool:
    """Whether all rows are lists of one length; without an interpreter step per row, as there may be many."""
    if set(map(type, data)) != {list}:
        return False
    lengths = set(map(len, data))
    return len(lengths) == 1 and (columns is None or lengths == {len(columns)})


def _read_columns(columns: Any) -> List[Any]:
    """Read column names; a list, which is JSON for a tuple, becomes a tuple."""
    if not isinstance(columns, list):
        raise InputError(f'"columns" must be a list of names, got {kind_of(columns)}')
    if set(map(type, columns)) <= _NAMES:
        return columns
    for number, name in enumerate(columns):
        if type(name) not in _NAMES and not (isinstance(name, list) and set(map(type, name)) <= _NAMES):
            raise InputError(f'"columns"[{number}] must be a name, got {kind_of(name)}')
    return [tuple(name) if isinstance(name, list) else name for name in columns]


def _check_row(number: int, row: Any, columns: Optional[List[Any]], first: Any) -> None:
    if not isinstance(row, (list, dict)):
        raise InputError(f'"data"[{number}] must be a row, that is a list of values, got {kind_of(row)}')
    if not isinstance(row, type(first)):
        raise InputError(f'"data"[{number}] is {kind_of(row)}, unlike the first row')
    if columns is not None and isinstance(row, list) and len(row) != len(columns):
        raise InputError(f'"data"[{number}] has {len(row)} values, but there are {len(columns)} columns', 422)
    if isinstance(row, list) and len(row) != len(first):
        raise InputError(f'"data"[{number}] has {len(row)} values, but the first row has {len(first)}', 422)


def kind_of(value: Any) -> str:
    """Describe the JSON type of a value."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return kinds.get(type(value), f"of the type {type(value).__name__}")


class _ConstantError(Exception):
    """NaN, Infinity or -Infinity, which JSON does not have."""


def _refuse(constant: str) -> NoReturn:
    raise _ConstantError(constant)


def _place(text: str, constant: str) -> str:
    return _position(text, next((match.start() for match in _CONSTANT.finditer(text) if match.group() == constant), 0))


def _position(text: str, found: int) -> str:
    line = text.count("\n", 0, found) + 1
    return f"line {line} column {found - text.rfind(chr(10), 0, found)} (char {found})"


def _drop_trailing_commas(text: str) -> Tuple[str, List[int]]:
    """Replace each by a space, so that the positions of other errors stay correct."""
    lines: List[int] = []
    seen = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal seen
        if match.group() != ",":
            return match.group()
        before = match.start() - 1
        while before >= 0 and text[before] in " \t\r\n":
            before -= 1
        if before < 0 or text[before] in "[{,:":
            return ","  # not after an item
        lines.append(text.count("\n", seen, match.start()) + (lines[-1] if lines else 1))
        seen = match.start()
        return " "

    return _COMMA.sub(replace, text), lines
