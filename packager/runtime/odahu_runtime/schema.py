"""The model's schemas in the layout that `info` prints and the Swagger document carries.

The layout is the platform's: its order of keys, and `number` as the type of a cell whatever the model says, for its
clients read them so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .inputs import LARGEST_INTEGER, LEAST_INTEGER

if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    Schema = Dict[str, Any]

_EXAMPLES = {"integer": 0, "number": 0, "string": "", "boolean": False}
# The words that models are described with: OpenAPI's types, and numpy's and MLflow's.
_KINDS = {
    **dict.fromkeys(("integer", "int", "uint", "long"), "integer"),
    **dict.fromkeys(("number", "float", "double", "decimal"), "number"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("string", "str", "text"), "string"),
}
_SIZED = re.compile(r"(u?int|float)(8|16|32|64|128)")


class Column(NamedTuple):
    """A column of the model's input or output.

    Its name is the model's own, which may be of any type; `text` is how documents show it. Its type is `number`, and
    not `stated`, where the model says none; it is `required` unless the model says false.
    """

    name: Any
    type: str
    required: bool = True
    stated: bool = True

    @property
    def text(self) -> str:
        """The name as text."""
        return str(self.name)

    @property
    def kind(self) -> str:
        """Its type in OpenAPI's words: `integer`, `number`, `boolean`, `string`; empty where it is of no such type."""
        word = self.type.lower()
        sized = _SIZED.fullmatch(word)
        return _KINDS.get(sized.group(1) if sized else word, "") if self.stated else ""

    @property
    def range(self) -> Tuple[int, int]:
        """The least and the largest whole number of its type; where that has no size, all that 64 bits may hold."""
        sized = _SIZED.fullmatch(self.type.lower())
        if self.kind != "integer" or sized is None:
            return LEAST_INTEGER, LARGEST_INTEGER
        bits = int(sized.group(2))
        return (0, (1 << bits) - 1) if sized.group(1) == "uint" else (-(1 << bits - 1), (1 << bits - 1) - 1)


def described_columns(described: Any) -> List[Dict[str, Any]]:
    """One of the lists that `info()` returns, or older models' object of columns by name, as a list."""
    if hasattr(described, "items"):
        return [dict({"name": name}, **column) for name, column in described.items()]
    return list(described)


def columns(described: Any) -> List[Column]:
    """The columns of one of the lists that `info()` returns."""
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
    """A name as it is; a list, which JSON has for a tuple, as a tuple."""
    try:
        hash(name)
    except TypeError:
        return tuple(map(_hashable, name)) if isinstance(name, list) else str(name)
    return name


def input_properties(described: Any) -> Schema:
    """The properties of a request, from the first list that `info()` returns."""
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
    """The properties of an answer, from the second list that `info()` returns."""
    names, examples = names_and_examples(described)
    return {
        "prediction": {"example": [examples], "items": {"type": "number"}, "type": "array"},
        "columns": {"example": names, "items": {"type": "string"}, "type": "array"},
    }


def swagger(name: str, version: str, inputs: Schema, outputs: Schema) -> Schema:
    """The Swagger 2.0 document of a service; clients read `paths["/api/model/invoke"].post` in it."""
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
                "description": "What is wrong",
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
    """The names and the examples of a list of `{name, type, required?, example}`."""
    columns = described_columns(described)
    names = [column["name"] for column in columns]
    return names, [column.get("example", _EXAMPLES.get(str(column.get("type")))) for column in columns]
