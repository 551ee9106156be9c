"""The forms that a prediction is answered in: JSON, unless the client asks for another one that there is."""

from __future__ import annotations

import csv
import io
import json
from operator import itemgetter
from typing import TYPE_CHECKING

from . import arrow
from .http import Reply, json_reply
from .inputs import InputError

if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Sequence, Tuple

    from .model import Model

JSON, CSV = "application/json", "text/csv"
_FORMS = {JSON: JSON, CSV: CSV, arrow.STREAM: arrow.STREAM, arrow.FILE: arrow.FILE, "application/*": JSON, "*/*": JSON}


def form(accepted: Optional[str]) -> str:
    """The form that a header `Accept` likes best, of those that there are; JSON where it names none of them.

    Raises:
        InputError: It takes nothing but Arrow, and the model has no pyarrow; 406.
    """
    if accepted is None or accepted in (JSON, "*/*"):
        return JSON
    reason: Optional[InputError] = None
    for name in _wanted(accepted):
        if name not in (arrow.STREAM, arrow.FILE):
            return name
        try:
            arrow.library(406)
        except InputError as error:
            reason = error
        else:
            return name
    if reason is not None:
        raise reason
    return JSON


def reply(kind: str, model: Model, prediction: Any, columns: List[Any], headers: Sequence[Tuple[str, str]]) -> Reply:
    """The answer in a form.

    Raises:
        ModelError: The prediction has no form in JSON, and so in none of them.
    """
    if kind == JSON:
        return json_reply(200, model.text(prediction, columns), headers)
    names, values = _table(*model.values(prediction, columns))
    body = _csv(names, values) if kind == CSV else arrow.write(names, values, kind)
    content_type = f"{CSV}; charset=utf-8" if kind == CSV else kind
    return Reply(200, [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers], body)


def _wanted(accepted: str) -> List[str]:
    """The known forms that are accepted, the best first (RFC 9110, 12.5.1)."""
    found: Dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            weight = float(quality)
        except ValueError:
            weight = 0.0
        if name in _FORMS and weight > 0:
            found.setdefault(_FORMS[name], weight)
    return sorted(found, key=lambda name: -found[name])


def _table(rows: Any, columns: Any) -> Tuple[List[str], List[List[Any]]]:
    """Names and values of columns; what is no table is a column of its own."""
    names = list(map(str, columns)) if isinstance(columns, list) else []
    if not isinstance(rows, list):
        rows = [rows]
    if not rows:
        return names or ["prediction"], [[] for _ in names or [""]]
    widths = set(map(len, rows)) if set(map(type, rows)) == {list} else set()
    if len(widths) != 1 or widths == {0}:
        return ["prediction"], [rows]
    values = [list(map(itemgetter(place), rows)) for place in range(len(rows[0]))]
    if len(names) != len(values):
        names = ["prediction"] if len(values) == 1 else list(map(str, range(len(values))))
    return names, values


def _csv(names: List[str], columns: List[List[Any]]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(names)
    writer.writerows(zip(*map(_cells, columns)))  # noqa: B905  (of one length)
    return stream.getvalue().encode("utf-8", "backslashreplace")


def _cells(values: List[Any]) -> List[Any]:
    """A null is an empty cell; truth values, lists and objects are as JSON writes them."""
    if not set(map(type, values)) & {bool, list, dict}:
        return values
    return [json.dumps(value) if isinstance(value, (bool, list, dict)) else value for value in values]
