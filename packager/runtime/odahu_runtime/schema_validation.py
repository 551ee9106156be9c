"""Whether rows are what the model's `info()` says that it takes; columns in another order are put into the model's.

The ordinary path takes a few steps of Python's for a column and none for a cell: `sum()` adds numbers and refuses the
rest. Only rows that don't pass are looked at one by one, to say what is wrong where.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING

from .inputs import Batch, InputError, kind_of

if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, NoReturn, Optional, Sequence, Set, Tuple

    from .schema import Column

_NUMBER, _INTEGER, _BOOLEAN, _STRING = "number", "integer", "boolean", "string"
_WANTED = {_NUMBER: "a number", _INTEGER: "a whole number", _BOOLEAN: "true or false", _STRING: "text"}
_NUMERIC = {int, float, bool, type(None)}
_NESTED = {list, dict}
# The types that suit whatever their value is.
_SURE: Dict[str, Set[type]] = {
    _NUMBER: _NUMERIC,
    _INTEGER: {int, bool, type(None)},
    _BOOLEAN: {bool, type(None)},
    _STRING: {*_NUMERIC, str},
}
_FEW = 8  # rows that are looked at one by one
_REMEMBERED = 64  # at most, of what clients may send in any number
_SHOWN = 5  # problems in a message
_LONGEST = 60  # characters of a value or a name in it
_CHUNK = 1000  # rows that are searched for problems at once


class Checks:
    """The columns that a model takes, and what may stand in them.

    A null is a missing value, which any column may have. A whole number may be written 3.0, a truth value 0 or 1, and a
    number as true or false. Text may be any value but a list or an object: the platform's own toolchain calls columns
    of truth values, and those of several types, `string`. Nothing is converted.
    """

    def __init__(self, columns: Sequence[Column], *, objects: bool = False) -> None:
        """Check for these columns; a model without any takes everything. `objects`: the rows may be objects."""
        self._columns = columns
        self._objects = objects
        self._names = [column.name for column in columns]
        self._kinds = [column.type if column.stated and column.type in _WANTED else "" for column in columns]
        self._numbers = bool(columns) and set(self._kinds) == {_NUMBER}
        self._known: Set[Tuple[type, ...]] = set()
        self._matches: Dict[Tuple[str, ...], Tuple[Optional[List[int]], List[str]]] = {}
        self._least = max((place for place, column in enumerate(columns, 1) if column.required), default=0)
        self.text_columns = frozenset(name for name, kind in zip(self._names, self._kinds) if kind == _STRING)  # noqa: B905

    def apply(self, batch: Batch, first: int = 0) -> Batch:
        """The rows as the model takes them; `first` is the number of the first one.

        Raises:
            InputError: Columns or values are others than the model's; names the first few.
        """
        if not self._columns:
            return batch
        rows, names = batch
        if isinstance(rows[0], dict):
            if self._objects:
                self._check_objects(rows, first)
            return batch
        kinds = self._kinds
        if names is None:
            self._check_width(len(rows[0]))
        elif names != self._names:
            key = tuple(map(str, names))
            order, kinds = self._matches.get(key) or self._match(key)
            if order:
                rows, names = list(map(list, map(itemgetter(*order), rows))), [names[place] for place in order]
                batch = Batch(rows, names)
        own = kinds is self._kinds
        if not (own and ((self._numbers and _adds_up(chain.from_iterable(rows))) or self._are_known(rows))):
            self._check_values(rows, kinds, names, first)
        return batch

    def _are_known(self, rows: List[Any]) -> bool:
        """Whether these are a few rows of types that suited the model before, whatever their values were."""
        if len(rows) > _FEW:
            return False
        for row in rows:
            types = tuple(map(type, row))
            if types not in self._known:
                if not all(not kind or known in _SURE[kind] for known, kind in zip(types, self._kinds)):  # noqa: B905
                    return False
                if len(self._known) < _REMEMBERED:
                    self._known.add(types)
        return True

    def _check_width(self, width: int) -> None:
        if not self._least <= width <= len(self._names):
            raise InputError(f"Every row has {width} values, and the model has {_listed(self._names)}", 422)

    def _match(self, given: Tuple[str, ...]) -> Tuple[Optional[List[int]], List[str]]:
        """Where the model's columns are among those that are given, if elsewhere; and what each that is given takes."""
        wanted, there = Counter(self._names), Counter(given)
        more, missing = there - wanted, wanted - there
        needed = [column.name for column in self._columns if column.required and column.name in missing]
        if needed or (more and missing) or any(name in wanted for name in more):
            self._refuse_names(given, needed or list(missing), more)
        made = self._order(given, more, wanted)
        if not more and len(self._matches) < _REMEMBERED:
            self._matches[given] = made
        return made

    def _order(
        self, given: Tuple[str, ...], more: Counter[str], wanted: Counter[str]
    ) -> Tuple[Optional[List[int]], List[str]]:
        if list(given) == self._names:
            return None, self._kinds
        kinds = self._kinds_by_name()
        if not more and len(wanted) == len(self._names):
            order = [given.index(name) for name in self._names if name in given]
            if order != list(range(len(given))):
                return order, [kinds[given[place]] for place in order] if len(order) < len(self._names) else self._kinds
        return None, [kinds.get(name, "") for name in given]

    def _kinds_by_name(self) -> Dict[str, str]:
        found: Dict[str, str] = {}
        for name, kind in zip(self._names, self._kinds):  # noqa: B905  (of one length)
            found[name] = kind if found.get(name, kind) == kind else ""
        return found

    def _refuse_names(self, given: Sequence[str], missing: List[str], more: Counter[str]) -> NoReturn:
        twice = [name for name in more if name in self._names]
        unknown = [f"{_shown(name)} (column {given.index(name)})" for name in more if name not in self._names]
        parts = [
            f"missing: {_few(map(_shown, dict.fromkeys(missing)))}" if missing else "",
            f"unknown: {_few(unknown)}" if unknown else "",
            f"there too often: {_few(map(_shown, twice))}" if twice else "",
        ]
        said = "; ".join(part for part in parts if part)
        raise InputError(f'"columns" are not the model\'s; {said}; the model has {_listed(self._names)}', 422)

    def _check_objects(self, rows: List[Any], first: int) -> None:
        for column, kind in zip(self._columns, self._kinds):  # noqa: B905  (of one length)
            try:
                values = list(map(itemgetter(column.name), rows))
            except KeyError:
                values = [row.get(column.name) for row in rows]
                if column.required:
                    self._refuse_objects(rows, first)
            if not _fits(values, kind):
                _refuse([[row.get(name) for name in self._names] for row in rows], self._kinds, self._names, first)

    def _refuse_objects(self, rows: List[Any], first: int) -> NoReturn:
        def problems() -> Iterator[str]:
            for number, row in enumerate(rows, first):
                missing = [column.name for column in self._columns if column.required and column.name not in row]
                if missing:
                    unknown = [name for name in row if name not in self._names]
                    told = f", and unknown: {_few(map(_shown, unknown))}" if unknown else ""
                    yield f"row {number}: missing: {_few(map(_shown, missing))}{told}"

        raise InputError(f"{_few(problems(), '; ')} {_counted(first)}; the model has {_listed(self._names)}", 422)

    def _check_values(self, rows: List[Any], kinds: List[str], names: Optional[List[Any]], first: int) -> None:
        for kind, values in zip(kinds, zip(*rows)):  # noqa: B905  (a row may lack optional columns)
            if not _fits(values, kind):
                _refuse(rows, kinds, self._names if names is None else names, first)


def _adds_up(values: Any) -> bool:
    try:
        sum(values)
    except (TypeError, OverflowError):
        return False
    return True


def _fits(values: Sequence[Any], kind: str) -> bool:
    """Whether all the values of a column may stand in it."""
    if not kind:
        return True
    if kind in (_NUMBER, _INTEGER):
        try:
            if isinstance(sum(values), int) or kind == _NUMBER:
                return True  # a float among them would make it one
        except (TypeError, OverflowError):
            pass
    types = set(map(type, values))
    if kind == _STRING:
        return not types & _NESTED
    if not types <= _NUMERIC:
        return False
    if kind == _INTEGER and float in types:
        return all(map(float.is_integer, [value for value in values if isinstance(value, float)]))
    return kind != _BOOLEAN or types <= {bool, type(None)} or set(values) <= {0, 1, None}


def _refuse(rows: Sequence[Any], kinds: Sequence[str], names: Sequence[Any], first: int) -> NoReturn:
    def problems() -> Iterator[str]:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            if all(map(_fits, zip(*chunk), kinds)):  # noqa: B905
                continue
            for number, row in enumerate(chunk, first + start):
                for place, (value, kind, name) in enumerate(zip(row, kinds, names)):  # noqa: B905
                    if not _fits((value,), kind):
                        told = f"{_shown(value)} is {kind_of(value)}, not {_WANTED[kind]}"
                        yield f"row {number}, column {place} ({_shown(str(name))}): {told}"

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


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(_shown, names[:20])) + (", ..." if len(names) > 20 else "")  # noqa: PLR2004
    return f"{len(names)} columns: {shown}" if len(names) != 1 else f"the column {shown}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
