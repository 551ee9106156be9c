"""The formats of a response to a prediction: JSON, unless the client asks for another supported one."""

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
    """Return the supported format that an `Accept` header prefers; JSON where it names no supported one.

    Raises:
        InputError: It accepts only Arrow, and the model has no pyarrow; 406.
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
    """Write the response in a format.

    Raises:
        ModelError: The prediction can't be represented in JSON, and so in no other format.
    """
    if kind == JSON:
        return json_reply(200, model.text(prediction, columns), headers)
    names, values = _table(*model.values(prediction, columns))
    body = _csv(names, values) if kind == CSV else arrow.write(names, values, kind)
    content_type = f"{CSV}; charset=utf-8" if kind == CSV else kind
    return Reply(200, [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers], body)


def _wanted(accepted: str) -> List[str]:
    """Return the supported formats that are accepted, by preference (RFC 9110, 12.5.1)."""
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
    """Return names and values of columns; a prediction that is not a table is one column."""
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
    """Return the cells of a column: null is empty; booleans, lists and objects are JSON text."""
    if not set(map(type, values)) & {bool, list, dict}:
        return values
    return [json.dumps(value) if isinstance(value, (bool, list, dict)) else value for value in values]
