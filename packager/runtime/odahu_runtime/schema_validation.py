"""Validation of rows against the model's `info()`; columns in another order are reordered to the model's.

Known names are passed on as the model has them, whatever their type. The usual path takes a few interpreter steps per
column and none per cell: `sum()` adds numbers and rejects other values. Only rows that fail this are checked one by
one, to name the invalid cells.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, List, NamedTuple, Optional, Tuple

from .column_names import ColumnNames
from .inputs import LARGEST_INTEGER, LEAST_INTEGER, Batch, InputError, kind_of

if TYPE_CHECKING:
    from typing import Dict, Iterator, NoReturn, Sequence, Set

    from .schema import Column

_NUMBER, _INTEGER, _BOOLEAN = "number", "integer", "boolean"
_WANTED = {_NUMBER: "a number", _INTEGER: "a whole number", _BOOLEAN: "true or false"}
_NUMERIC = {int, float, bool, type(None)}
_TRUTH = {0: False, 1: True, None: None}
_WIDEST = (LEAST_INTEGER, LARGEST_INTEGER)
# The Python types whose values are all valid.
_SURE: Dict[str, Set[type]] = {
    _NUMBER: _NUMERIC,
    _INTEGER: {int, bool, type(None)},
    _BOOLEAN: {bool, type(None)},
}
_FEW = 8  # rows, up to which the types of each row are compared
_REMEMBERED = 64  # maximum of remembered combinations, since clients can send any number of them
_SHOWN = 5  # problems in a message
_LONGEST = 60  # characters of a value or a name in it
_CHUNK = 1000  # rows that are searched for problems at once


class _Type(NamedTuple):
    """The values of a column: numbers, integers in a range, booleans, or with an empty kind any values."""

    kind: str
    range: Tuple[int, int] = _WIDEST

    @classmethod
    def of(cls, column: Column) -> _Type:
        return cls(column.kind, column.range) if column.kind in _WANTED else _ANYTHING

    @property
    def is_sure(self) -> bool:
        """Whether the Python type of a value shows that it is valid."""
        return self.kind != _INTEGER or self.range == _WIDEST

    def __str__(self) -> str:
        wanted = _WANTED[self.kind]
        return wanted if self.is_sure else f"{wanted} from {self.range[0]} to {self.range[1]}"


_ANYTHING = _Type("")


class _Match(NamedTuple):
    """The mapping of a request's columns to the model's.

    Attributes:
        order: The indexes of the model's columns in the request; None if their order is the model's.
        names: Their names, as the model has them where it knows them.
        types: Their types.
    """

    order: Optional[List[int]]
    names: List[Any]
    types: List[_Type]


class SchemaValidator:
    """Checks rows against a model's columns.

    A null is a missing value, which any column may have. An integer may be written 3.0, a boolean 0 or 1; they are
    passed on as 3 and true. A number may be true or false. Columns of text may hold any value: the platform's own
    toolchain calls all columns of objects `string`, also those of booleans and of lists.

    Attributes:
        names: The names of the columns.
    """

    def __init__(self, columns: Sequence[Column], *, objects: bool = False, reject: bool = True) -> None:
        """Check against these columns; without columns all rows are valid.

        `objects`: the rows may be objects. `reject`: reject invalid rows, and not only replace names.
        """
        self.names = ColumnNames(columns)
        self._columns = columns
        self._objects = objects
        self._rejects = reject
        self._places = [column for column in map(self.names.find, self.names.own) if column is not None]
        self._expected = self.names.own if self.names.are_text else None
        self._types = [_Type.of(column) for column in columns]
        self._numbers = bool(columns) and set(self._types) == {_Type(_NUMBER)}
        self._known: Set[Tuple[type, ...]] = set()
        self._matches: Dict[str, _Match] = {}
        self._least = max((place for place, column in enumerate(columns, 1) if column.required), default=0)

    def apply(self, batch: Batch, first: int = 0) -> Batch:
        """Return the rows as the model takes them; `first` is the number of the first row.

        Raises:
            InputError: Columns or values don't match the model's; names the first few.
        """
        if not self._columns:
            return batch
        rows, names, numbers = batch
        if isinstance(rows[0], dict):
            return self._apply_to_objects(batch, first)
        types = self._types
        if names is None:
            if self._rejects:
                self._check_width(len(rows[0]))
        elif names != self._expected:
            match = self._matches.get(repr(names)) or self._match(names)
            if match.order:
                rows = list(map(list, map(itemgetter(*match.order), rows)))
            names, types = list(match.names), match.types
            batch = Batch(rows, names)
        if self._rejects and not (
            types is self._types
            and ((self._numbers and (numbers or _adds_up(chain.from_iterable(rows)))) or self._are_known(rows))
        ):
            self._check_values(rows, types, names, first)
        return batch

    def _are_known(self, rows: List[Any]) -> bool:
        """Whether these are a few rows whose types were valid before."""
        if len(rows) > _FEW:
            return False
        for row in rows:
            types = tuple(map(type, row))
            if types not in self._known:
                if not all(
                    not wanted.kind or (wanted.is_sure and known in _SURE[wanted.kind])
                    for known, wanted in zip(types, self._types)  # noqa: B905
                ):
                    return False
                if len(self._known) < _REMEMBERED:
                    self._known.add(types)
        return True

    def _check_width(self, width: int) -> None:
        if not self._least <= width <= len(self._columns):
            raise InputError(f"Every row has {width} values, and the model has {_listed(self.names.own)}", 422)

    def _match(self, given: List[Any]) -> _Match:
        """Map the columns of a request; the result is remembered for requests with the same columns."""
        own, found = self.names.own, list(map(self.names.find, given))
        if self._rejects:
            self._check_names(given, found)
        names = [name if place is None else own[place] for name, place in zip(given, found)]  # noqa: B905
        known = [place for place in found if place is not None]
        if found == self._places:
            match = _Match(None, names, self._types)
        elif self._rejects and len(known) == len(found) and len(set(self._places)) == len(own):
            order = sorted(range(len(known)), key=known.__getitem__)
            types = self._types if len(known) == len(own) else [self._types[place] for place in sorted(known)]
            match = _Match(order if order != list(range(len(order))) else None, [names[at] for at in order], types)
        else:
            match = _Match(None, names, list(map(self._type_by_name, found)))
        if len(known) == len(found) and len(self._matches) < _REMEMBERED:
            self._matches[repr(given)] = match
        return match

    def _type_by_name(self, found: Optional[int]) -> _Type:
        """Return the type of all columns of one name; any values where their types differ."""
        types = {wanted for place, wanted in zip(self._places, self._types) if place == found}  # noqa: B905
        return types.pop() if len(types) == 1 else _ANYTHING

    def _check_names(self, given: List[Any], found: List[Optional[int]]) -> None:
        """Reject missing required columns, repeated columns and pandas' index."""
        there, wanted = Counter(place for place in found if place is not None), Counter(self._places)
        missing, repeated = wanted - there, there - wanted
        needed = [
            place
            for place, column in zip(self._places, self._columns)  # noqa: B905
            if column.required and place in missing
        ]
        if found[0] is None:
            self.names.reject_index(given)
        for place in repeated:
            if len(self.names.same_text(place)) > 1:
                raise self.names.ambiguous(str(self.names.own[place]), self.names.same_text(place))
        if needed or repeated or (None in found and missing):
            self._reject_names(given, found, needed or list(missing), list(repeated))

    def _reject_names(
        self, given: List[Any], found: List[Optional[int]], missing: List[int], repeated: List[int]
    ) -> NoReturn:
        own = self.names.own
        unknown = [number for number, place in enumerate(found) if place is None]
        parts = [
            f"missing: {_few(_shown(own[place]) for place in dict.fromkeys(missing))}" if missing else "",
            f"unknown: {_few(f'{_shown(given[number])} (column {number})' for number in unknown)}" if unknown else "",
            f"repeated: {_few(_shown(own[place]) for place in repeated)}" if repeated else "",
        ]
        said = "; ".join(part for part in parts if part)
        raise InputError(f"\"columns\" don't match the model's; {said}; the model has {_listed(own)}", 422)

    def _apply_to_objects(self, batch: Batch, first: int) -> Batch:
        if not self._objects:
            return batch
        if not self.names.are_text:
            batch = Batch([self._renamed(row, number) for number, row in enumerate(batch.data, first)], batch.columns)
        if self._rejects:
            self._check_objects(batch.data, first)
        return batch

    def _renamed(self, row: Dict[str, Any], number: int) -> Dict[Any, Any]:
        """Return an object with the model's own names as keys."""
        found = {key: self.names.find(key) for key in row}
        renamed = {key if place is None else self.names.own[place]: row[key] for key, place in found.items()}
        if len(renamed) < len(row):
            raise InputError(f"row {number}: two names refer to the same column {_counted(first=number)}", 422)
        return renamed

    def _check_objects(self, rows: List[Any], first: int) -> None:
        for column, wanted in zip(self._columns, self._types):  # noqa: B905  (of one length)
            try:
                values = list(map(itemgetter(column.name), rows))
            except KeyError:
                values = [row.get(column.name) for row in rows]
                if column.required:
                    self._reject_objects(rows, first)
            made = _as_valid(values, wanted)
            if made is None:
                lists = [[row.get(name) for name in self.names.own] for row in rows]
                _reject(lists, self._types, self.names.own, first)
            if made is not values:
                for row, value in zip(rows, made):  # noqa: B905
                    if column.name in row:
                        row[column.name] = value

    def _reject_objects(self, rows: List[Any], first: int) -> NoReturn:
        def problems() -> Iterator[str]:
            for number, row in enumerate(rows, first):
                missing = [column.name for column in self._columns if column.required and column.name not in row]
                if missing:
                    unknown = [name for name in row if name not in self.names.own]
                    text = f", and unknown: {_few(map(_shown, unknown))}" if unknown else ""
                    yield f"row {number}: missing: {_few(map(_shown, missing))}{text}"

        raise InputError(f"{_few(problems(), '; ')} {_counted(first)}; the model has {_listed(self.names.own)}", 422)

    def _check_values(self, rows: List[Any], types: List[_Type], names: Optional[List[Any]], first: int) -> None:
        for place, (wanted, values) in enumerate(zip(types, zip(*rows))):  # noqa: B905  (a row may lack optional columns)
            made = _as_valid(values, wanted)
            if made is None:
                _reject(rows, types, self.names.own if names is None else names, first)
            if made is not values:
                for row, value in zip(rows, made):  # noqa: B905
                    row[place] = value


def _adds_up(values: Any) -> bool:
    try:
        sum(values)
    except (TypeError, OverflowError):
        return False
    return True


def _as_valid(values: Sequence[Any], wanted: _Type) -> Optional[Sequence[Any]]:
    """Return the values of a column as the model takes them, usually unchanged; None if they are invalid."""
    kind = wanted.kind
    if not kind:
        return values
    if kind != _BOOLEAN and wanted.is_sure:
        try:
            if isinstance(sum(values), int) or kind == _NUMBER:
                return values  # a single float would make the sum a float
        except (TypeError, OverflowError):
            pass
    types = set(map(type, values))
    if not types <= _NUMERIC:
        return None
    if kind == _INTEGER:
        return _whole(values, wanted.range, floats=float in types)
    if kind == _BOOLEAN and not types <= _SURE[_BOOLEAN]:
        return list(map(_TRUTH.get, values)) if set(values) <= set(_TRUTH) else None
    return values


def _whole(values: Sequence[Any], span: Tuple[int, int], *, floats: bool) -> Optional[Sequence[Any]]:
    if floats:
        if not all(map(float.is_integer, [value for value in values if isinstance(value, float)])):
            return None
        values = [int(value) if isinstance(value, float) else value for value in values]
    numbers = [value for value in values if value is not None]
    return values if not numbers or (span[0] <= min(numbers) and max(numbers) <= span[1]) else None


def _reject(rows: Sequence[Any], types: Sequence[_Type], names: Sequence[Any], first: int) -> NoReturn:
    def problems() -> Iterator[str]:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            if None not in map(_as_valid, zip(*chunk), types):  # noqa: B905
                continue
            for number, row in enumerate(chunk, first + start):
                for place, (value, wanted, name) in enumerate(zip(row, types, names)):  # noqa: B905
                    if _as_valid((value,), wanted) is None:
                        text = f"{_shown(value)} is {kind_of(value)}, not {wanted}"
                        yield f"row {number}, column {place} ({_shown(name)}): {text}"

    raise InputError(f"{_few(problems(), '; ')} {_counted(first)}", 422)


def _counted(first: int) -> str:
    return f"(rows count from {1 if first else 0})"


def _few(items: Any, between: str = ", ") -> str:
    found: List[str] = []
    for item in items:
        if len(found) == _SHOWN:
            return between.join(found) + f"{between}and more"
        found.append(item)
    return between.join(found)


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(map(_shown, names[:20])) + (", ..." if len(names) > 20 else "")  # noqa: PLR2004
    return f"{len(names)} columns: {shown}" if len(names) != 1 else f"the column {shown}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
