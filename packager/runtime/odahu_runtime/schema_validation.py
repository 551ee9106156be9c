"""Whether rows are what the model's `info()` says that it takes; columns in another order are put into the model's.

Names that are the model's are handed on as the model has them, whatever type that is. The ordinary path takes a few
steps of Python's for a column and none for a cell: `sum()` adds numbers and refuses the rest. Only rows that don't pass
are looked at one by one, to say what is wrong where.
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
# The types that suit whatever their value is.
_SURE: Dict[str, Set[type]] = {
    _NUMBER: _NUMERIC,
    _INTEGER: {int, bool, type(None)},
    _BOOLEAN: {bool, type(None)},
}
_FEW = 8  # rows that are looked at one by one
_REMEMBERED = 64  # at most, of what clients may send in any number
_SHOWN = 5  # problems in a message
_LONGEST = 60  # characters of a value or a name in it
_CHUNK = 1000  # rows that are searched for problems at once


class _Type(NamedTuple):
    """What a column takes: numbers, whole numbers of a range, truth values, or anything, where the kind is empty."""

    kind: str
    range: Tuple[int, int] = _WIDEST

    @classmethod
    def of(cls, column: Column) -> _Type:
        return cls(column.kind, column.range) if column.kind in _WANTED else _ANYTHING

    @property
    def is_sure(self) -> bool:
        """Whether Python's type of a value says that it suits."""
        return self.kind != _INTEGER or self.range == _WIDEST

    def __str__(self) -> str:
        wanted = _WANTED[self.kind]
        return wanted if self.is_sure else f"{wanted} from {self.range[0]} to {self.range[1]}"


_ANYTHING = _Type("")


class _Match(NamedTuple):
    """How the columns of a request become the model's.

    Attributes:
        order: Where those that the model has are in the request; None where they stay as they are.
        names: Their names, as the model has them where it has them.
        types: What they take.
    """

    order: Optional[List[int]]
    names: List[Any]
    types: List[_Type]


class SchemaValidator:
    """The columns that a model takes, and what may stand in them.

    A null is a missing value, which any column may have. A whole number may be written 3.0, a truth value 0 or 1, and
    these are handed on as 3 and true. A number may be true or false. Columns of text may hold anything: the platform's
    own toolchain calls all columns of objects `string`, also those of truth values and of lists.

    Attributes:
        names: The names of the columns.
    """

    def __init__(self, columns: Sequence[Column], *, objects: bool = False, refuse: bool = True) -> None:
        """Check for these columns; a model without any takes everything.

        `objects`: the rows may be objects. `refuse`: else only names are made the model's.
        """
        self.names = ColumnNames(columns)
        self._columns = columns
        self._objects = objects
        self._refuses = refuse
        self._places = [column for column in map(self.names.find, self.names.own) if column is not None]
        self._expected = self.names.own if self.names.are_text else None
        self._types = [_Type.of(column) for column in columns]
        self._numbers = bool(columns) and set(self._types) == {_Type(_NUMBER)}
        self._known: Set[Tuple[type, ...]] = set()
        self._matches: Dict[str, _Match] = {}
        self._least = max((place for place, column in enumerate(columns, 1) if column.required), default=0)

    def apply(self, batch: Batch, first: int = 0) -> Batch:
        """The rows as the model takes them; `first` is the number of the first one.

        Raises:
            InputError: Columns or values are others than the model's; names the first few.
        """
        if not self._columns:
            return batch
        rows, names, numbers = batch
        if isinstance(rows[0], dict):
            return self._apply_to_objects(batch, first)
        types = self._types
        if names is None:
            if self._refuses:
                self._check_width(len(rows[0]))
        elif names != self._expected:
            match = self._matches.get(repr(names)) or self._match(names)
            if match.order:
                rows = list(map(list, map(itemgetter(*match.order), rows)))
            names, types = list(match.names), match.types
            batch = Batch(rows, names)
        if self._refuses and not (
            types is self._types
            and ((self._numbers and (numbers or _adds_up(chain.from_iterable(rows)))) or self._are_known(rows))
        ):
            self._check_values(rows, types, names, first)
        return batch

    def _are_known(self, rows: List[Any]) -> bool:
        """Whether these are a few rows of types that suited the model before, whatever their values were."""
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
        """What the columns of a request are; remembered for the next one that has the same."""
        own, found = self.names.own, list(map(self.names.find, given))
        if self._refuses:
            self._check_names(given, found)
        names = [name if place is None else own[place] for name, place in zip(given, found)]  # noqa: B905
        known = [place for place in found if place is not None]
        if found == self._places:
            match = _Match(None, names, self._types)
        elif self._refuses and len(known) == len(found) and len(set(self._places)) == len(own):
            order = sorted(range(len(known)), key=known.__getitem__)
            types = self._types if len(known) == len(own) else [self._types[place] for place in sorted(known)]
            match = _Match(order if order != list(range(len(order))) else None, [names[at] for at in order], types)
        else:
            match = _Match(None, names, list(map(self._type_by_name, found)))
        if len(known) == len(found) and len(self._matches) < _REMEMBERED:
            self._matches[repr(given)] = match
        return match

    def _type_by_name(self, found: Optional[int]) -> _Type:
        """What columns of one name take; anything where they differ in that."""
        types = {wanted for place, wanted in zip(self._places, self._types) if place == found}  # noqa: B905
        return types.pop() if len(types) == 1 else _ANYTHING

    def _check_names(self, given: List[Any], found: List[Optional[int]]) -> None:
        """Refuse columns of which one is missing, unless it isn't required, or there too often; or pandas' index."""
        there, wanted = Counter(place for place in found if place is not None), Counter(self._places)
        missing, repeated = wanted - there, there - wanted
        needed = [
            place
            for place, column in zip(self._places, self._columns)  # noqa: B905
            if column.required and place in missing
        ]
        if found[0] is None:
            self.names.refuse_index(given[0])
        for place in repeated:
            if len(self.names.same_text(place)) > 1:
                raise self.names.ambiguous(str(self.names.own[place]), self.names.same_text(place))
        if needed or repeated or (None in found and missing):
            self._refuse_names(given, found, needed or list(missing), list(repeated))

    def _refuse_names(
        self, given: List[Any], found: List[Optional[int]], missing: List[int], repeated: List[int]
    ) -> NoReturn:
        own = self.names.own
        unknown = [number for number, place in enumerate(found) if place is None]
        parts = [
            f"missing: {_few(_shown(own[place]) for place in dict.fromkeys(missing))}" if missing else "",
            f"unknown: {_few(f'{_shown(given[number])} (column {number})' for number in unknown)}" if unknown else "",
            f"there too often: {_few(_shown(own[place]) for place in repeated)}" if repeated else "",
        ]
        said = "; ".join(part for part in parts if part)
        raise InputError(f'"columns" are not the model\'s; {said}; the model has {_listed(own)}', 422)

    def _apply_to_objects(self, batch: Batch, first: int) -> Batch:
        if not self._objects:
            return batch
        if not self.names.are_text:
            batch = Batch([self._renamed(row, number) for number, row in enumerate(batch.data, first)], batch.columns)
        if self._refuses:
            self._check_objects(batch.data, first)
        return batch

    def _renamed(self, row: Dict[str, Any], number: int) -> Dict[Any, Any]:
        """An object whose keys are the model's own names."""
        found = {key: self.names.find(key) for key in row}
        renamed = {key if place is None else self.names.own[place]: row[key] for key, place in found.items()}
        if len(renamed) < len(row):
            raise InputError(f"row {number}: two names stand for the same column {_counted(first=number)}", 422)
        return renamed

    def _check_objects(self, rows: List[Any], first: int) -> None:
        for column, wanted in zip(self._columns, self._types):  # noqa: B905  (of one length)
            try:
                values = list(map(itemgetter(column.name), rows))
            except KeyError:
                values = [row.get(column.name) for row in rows]
                if column.required:
                    self._refuse_objects(rows, first)
            made = _suiting(values, wanted)
            if made is None:
                lists = [[row.get(name) for name in self.names.own] for row in rows]
                _refuse(lists, self._types, self.names.own, first)
            if made is not values:
                for row, value in zip(rows, made):  # noqa: B905
                    if column.name in row:
                        row[column.name] = value

    def _refuse_objects(self, rows: List[Any], first: int) -> NoReturn:
        def problems() -> Iterator[str]:
            for number, row in enumerate(rows, first):
                missing = [column.name for column in self._columns if column.required and column.name not in row]
                if missing:
                    unknown = [name for name in row if name not in self.names.own]
                    told = f", and unknown: {_few(map(_shown, unknown))}" if unknown else ""
                    yield f"row {number}: missing: {_few(map(_shown, missing))}{told}"

        raise InputError(f"{_few(problems(), '; ')} {_counted(first)}; the model has {_listed(self.names.own)}", 422)

    def _check_values(self, rows: List[Any], types: List[_Type], names: Optional[List[Any]], first: int) -> None:
        for place, (wanted, values) in enumerate(zip(types, zip(*rows))):  # noqa: B905  (a row may lack optional columns)
            made = _suiting(values, wanted)
            if made is None:
                _refuse(rows, types, self.names.own if names is None else names, first)
            if made is not values:
                for row, value in zip(rows, made):  # noqa: B905
                    row[place] = value


def _adds_up(values: Any) -> bool:
    try:
        sum(values)
    except (TypeError, OverflowError):
        return False
    return True


def _suiting(values: Sequence[Any], wanted: _Type) -> Optional[Sequence[Any]]:
    """The values of a column as the model takes them, which are the same ones as a rule; None where it doesn't."""
    kind = wanted.kind
    if not kind:
        return values
    if kind != _BOOLEAN and wanted.is_sure:
        try:
            if isinstance(sum(values), int) or kind == _NUMBER:
                return values  # a float among them would make it one
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


def _refuse(rows: Sequence[Any], types: Sequence[_Type], names: Sequence[Any], first: int) -> NoReturn:
    def problems() -> Iterator[str]:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            if None not in map(_suiting, zip(*chunk), types):  # noqa: B905
                continue
            for number, row in enumerate(chunk, first + start):
                for place, (value, wanted, name) in enumerate(zip(row, types, names)):  # noqa: B905
                    if _suiting((value,), wanted) is None:
                        told = f"{_shown(value)} is {kind_of(value)}, not {wanted}"
                        yield f"row {number}, column {place} ({_shown(name)}): {told}"

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
