"""The names of a model's columns, and how names in a request refer to them.

A model may name its columns by numbers, truth values, times or tuples (pandas' `MultiIndex`). JSON has only some of
these types; CSV, Arrow and the Open Inference Protocol have only text. So a name in a request is looked up by its type
and value first, then as the service's documents show the model's names, then by its text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import outputs
from .inputs import InputError

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

    from .schema import Column

    Index = Dict[Any, List[int]]

_UNNAMED = ("", "Unnamed: 0")  # the name of an index as pandas writes it, and as it reads it
_MIDNIGHT = " 00:00:00"


class ColumnNames:
    """The names of a model's columns.

    Attributes:
        columns: The columns.
        own: Their names, as the model gives them.
        are_text: Whether all of them are text.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        """Index the names of these columns; several columns may have the same name."""
        self.columns = columns
        self.own = [column.name for column in columns]
        self.are_text = all(type(name) is str for name in self.own)
        first: Dict[Any, int] = {}
        for place, name in enumerate(self.own):
            first.setdefault(_typed(name), place)
        self._exact = {name: [place] for name, place in first.items()}
        self._shown = self._index(first, lambda name: iter([_typed(_as_json(name))]))
        self._text = self._index(first, lambda name: iter([str(name)]))
        self._spellings = self._index(first, _spellings)

    def _index(self, first: Dict[Any, int], keys: Callable[[Any], Iterator[Any]]) -> Index:
        found: Index = {}
        for place in first.values():
            for key in dict.fromkeys(keys(self.own[place])):
                found.setdefault(key, []).append(place)
        return found

    def __contains__(self, given: object) -> bool:
        """Whether a name refers to at least one column."""
        return bool(self._candidates(given))

    def find(self, given: Any) -> Optional[int]:
        """Return the index of the first column that a name refers to, or None for an unknown name.

        Raises:
            InputError: It could refer to several columns with different names.
        """
        found = self._candidates(given)
        if len(found) > 1:
            raise self.ambiguous(str(given), found)
        return found[0] if found else None

    def _candidates(self, given: Any) -> List[int]:
        typed = _typed(given)
        found = self._exact.get(typed) or self._shown.get(typed) or self._text.get(str(given))
        if found:
            return found
        spellings = dict.fromkeys(_spellings(given))
        return list(dict.fromkeys(place for text in spellings for place in self._spellings.get(text, ())))

    def same_text(self, place: int) -> List[int]:
        """Return the indexes of all columns whose names have the same text as the name of the column at `place`."""
        return self._text[str(self.own[place])]

    def ambiguous(self, text: str, places: Sequence[int]) -> InputError:
        """Return the error for a name that could refer to several columns."""
        meant = ", ".join(f"{_shortened(repr(self.own[place]))} (column {place})" for place in places)
        return InputError(
            f'"columns" are ambiguous: {_shortened(repr(text))} may be any of the model\'s columns {meant}; send JSON, '
            "where names have types, or rows without names",
            422,
        )

    def reject_index(self, given: Sequence[Any]) -> None:
        """Reject the index of a pandas DataFrame: a first column without a name, which the model doesn't have.

        Raises:
            InputError: The first name is that of an index.
        """
        first, *others = given
        is_known = any(name in self for name in _UNNAMED)
        if first in _UNNAMED and (not is_known or any(name in _UNNAMED for name in others)):
            raise InputError(
                f'The first column has no name ("{first}"), and the model has no such column: it looks like the index '
                "of a pandas frame; leave it out, for CSV with to_csv(index=False)",
                422,
            )


def _typed(name: Any) -> Any:
    """Return a key that is equal only for names of the same type and value."""
    return (tuple, tuple(map(_typed, name))) if isinstance(name, tuple) else (type(name), name)


def _as_json(name: Any) -> Any:
    """Return a name as JSON has it; a list becomes a tuple."""
    try:
        shown = outputs.plain(name)
        hash(tuple(shown) if isinstance(shown, list) else shown)
    except TypeError:
        return str(name)
    return tuple(shown) if isinstance(shown, list) else shown


def _spellings(name: Any) -> Iterator[str]:
    """Yield the texts that tools write for a name."""
    yield str(name)
    shown = _as_json(name)
    if isinstance(shown, str):
        yield shown  # a time in ISO 8601
    if isinstance(shown, bool):
        yield str(shown).lower()
    if isinstance(shown, float) and shown.is_integer():
        yield str(int(shown))  # JavaScript has no other 1.0
    if shown is None:
        yield ""  # pandas' CSV
    if isinstance(name, tuple):
        yield str(tuple(map(str, name)))  # pyarrow
    if not isinstance(name, str) and str(name).endswith(_MIDNIGHT):
        yield str(name)[: -len(_MIDNIGHT)]  # pandas' CSV


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[:most] + "..."
