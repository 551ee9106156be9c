"""The model's schemas in the layout that `info` prints and the Swagger document carries.

The layout is the platform's, as its clients expect it: the order of keys, and `number` as the type of every cell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .inputs import LARGEST_INTEGER, LEAST_INTEGER

if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    Schema = Dict[str, Any]

_EXAMPLES = {"integer": 0, "number": 0, "string": "", "boolean": False}
# The type names in descriptions of models: those of OpenAPI, numpy and MLflow.
_KINDS = {
    **dict.fromkeys(("integer", "int", "uint", "long"), "integer"),
    **dict.fromkeys(("number", "float", "double", "decimal"), "number"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("string", "str", "text"), "string"),
}
_SIZED = re.compile(r"(u?int|float)(8|16|32|64|128)")


class Column(NamedTuple):
    """A column of the model's input or output.

    The name is the model's own and may be of any type; documents show it as `text`. Without a type in `info()` the type
    is `number` and not `stated`. A column is `required` unless the model says false.
    """

    name: Any
    type: str
    required: bool = True
    stated: bool = True

    @property
    def text(self) -> str:
        """Return the name as text."""
        return str(self.name)

    @property
    def kind(self) -> str:
        """Return the OpenAPI type: `integer`, `number`, `boolean` or `string`; empty for other types."""
        word = self.type.lower()
        sized = _SIZED.fullmatch(word)
        return _KINDS.get(sized.group(1) if sized else word, "") if self.stated else ""

    @property
    def range(self) -> Tuple[int, int]:
        """Return the smallest and the largest integer of the type; 64 bits where the type has no size."""
        sized = _SIZED.fullmatch(self.type.lower())
        if self.kind != "integer" or sized is None:
            return LEAST_INTEGER, LARGEST_INTEGER
        bits = int(sized.group(2))
        return (0, (1 << bits) - 1) if sized.group(1) == "uint" else (-(1 << bits - 1), (1 << bits - 1) - 1)


def described_columns(described: Any) -> List[Dict[str, Any]]:
    """Return a list of columns from `info()`; older models return an object of columns by name."""
    if hasattr(described, "items"):
        return [dict({"name": name}, **column) for name, column in described.items()]
    return list(described)


def columns(described: Any) -> List[Column]:
    """Return the columns of a list from `info()`."""
    return [
        Column(
            _hashable(column["name"]),
            str(column.get("type") or "number"),
            column.get("required") is not False,
            bool(column.get("type")),
        )
        for column in described_columns(described)
    ]


def _hashable(name: Any) -> Any:
    """Return a name; a list, which is JSON for a tuple, becomes a tuple."""
    try:
        hash(name)
    except TypeError:
        return tuple(map(_hashable, name)) if isinstance(name, list) else str(name)
    return name


def input_properties(described: Any) -> Schema:
    """Return the properties of a request, from the first list that `info()` returns."""
    names, examples = names_and_examples(described)
    return {
        "columns": {"example": names, "items": {"type": "string"}, "type": "array"},
        "data": {
            "items": {"items": {"type": "number"}, "type": "array"},
            "type": "array",
            "example": [examples],
        },
    }


def output_properties(described: Any) -> Schema:
    """Return the properties of a response, from the second list that `info()` returns."""
    names, examples = names_and_examples(described)
    return {
        "prediction": {"example": [examples], "items": {"type": "number"}, "type": "array"},
        "columns": {"example": names, "items": {"type": "string"}, "type": "array"},
    }


def swagger(name: str, version: str, inputs: Schema, outputs: Schema) -> Schema:
    """Return the Swagger 2.0 document of a service; clients read `paths["/api/model/invoke"].post` in it."""
    json_type = ["application/json"]
    request = {"type": "object", "required": ["data"], "properties": inputs}
    invoke = {
        "description": "Execute prediction",
        "consumes": json_type,
        "produces": json_type,
        "summary": "Prediction",
        "parameters": [{"in": "body", "name": "PredictionParameters", "required": True, "schema": request}],
        "responses": {
            "200": {"description": "Results of prediction", "schema": {"type": "object", "properties": outputs}},
            "default": {
                "description": "The error",
                "schema": {"type": "object", "properties": {"message": {"type": "string"}}},
            },
        },
    }
    return {
        "swagger": "2.0",
        "info": {"title": name, "description": f"Predictions of the model {name}.", "version": version},
        "basePath": "/",
        "schemes": ["http", "https"],
        "paths": {
            "/api/model/info": {"get": _get("Info", "Return a swagger info about model")},
            "/api/model/invoke": {"post": invoke},
            "/healthcheck": {"get": _get("Health", "Whether predictions can be asked for")},
        },
    }


def _get(summary: str, description: str) -> Schema:
    answer = {"description": summary, "schema": {"type": "object"}}
    return {
        "description": description,
        "produces": ["application/json"],
        "summary": summary,
        "responses": {"200": answer},
    }


def names_and_examples(described: Any) -> Tuple[List[Any], List[Any]]:
    """Return the names and the examples of a list of `{name, type, required?, example}`."""
    columns = described_columns(described)
    names = [column["name"] for column in columns]
    return names, [column.get("example", _EXAMPLES.get(str(column.get("type")))) for column in columns]
