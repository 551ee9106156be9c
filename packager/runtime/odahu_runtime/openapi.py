"""The service's documentation: OpenAPI 3.1, and a self-contained page that shows it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import arrow

if TYPE_CHECKING:
    from typing import Any, Dict, Sequence

    from .schema import Column

    Document = Dict[str, Any]

_JSON = "application/json"
_PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "docs.html")
_ERROR = "#/components/schemas/Error"
_REFUSALS = {
    "400": "The body is invalid; names the position",
    "406": "Arrow is asked for, and the model's environment has no pyarrow",
    "413": "The body exceeds the limit of bytes or rows",
    "415": "Unsupported compression; or Arrow, and the model's environment has no pyarrow",
    "422": "Columns or values don't match the model's; names row and column",
}
_TYPES = ("integer", "number", "boolean", "string")


def page() -> str:
    """Return the documentation page, which reads /openapi.json."""
    with open(_PAGE, encoding="utf-8") as file:
        return file.read()


def openapi(name: str, version: str, properties: Sequence[Document], columns: Sequence[Sequence[Column]]) -> Document:
    """Return the OpenAPI 3.1 document (spec.openapis.org/oas/v3.1.0); both arguments are for input and output."""
    given, returned = properties
    # In the platform's Swagger layout a prediction is a list of numbers. Models return any values, usually rows.
    returned = {**returned, "prediction": {**returned["prediction"], "items": {}}}
    base = f"/v2/models/{name}"
    invoke = _operation("Prediction", "predict", {"$ref": "#/components/schemas/Prediction"})
    invoke["requestBody"] = {
        "description": "Arrow, in and out, is for models whose environment has pyarrow.",
        "required": True,
        "content": {
            _JSON: {"schema": {"type": "object", "required": ["data"], "properties": given}},
            **_other_forms(),
        },
    }
    invoke["responses"]["200"]["content"].update(_other_forms())
    for status, said in _REFUSALS.items():
        invoke["responses"][status] = {"$ref": "#/components/responses/Refused", "description": said}
    infer = _operation("Prediction by the Open Inference Protocol", "infer", {"type": "object"}, error="OipError")
    infer["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}},
    }
    health = {"type": "object"}
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version, "description": f"Predictions of the model {name}."},
        "paths": {
            "/api/model/invoke": {"post": invoke},
            "/api/model/info": {"get": _operation("Swagger 2.0 of the model", "info", health)},
            "/healthcheck": {"get": _operation("Whether predictions can be asked for", "health", health)},
            "/metrics": {
                "get": _operation("Counters for Prometheus", "metrics", {"type": "string"}, kind="text/plain")
            },
            "/v2": {"get": _operation("The server", "server", health)},
            "/v2/health/live": {"get": _operation("Whether the process lives", "live", health)},
            "/v2/health/ready": {"get": _operation("Whether predictions can be asked for", "ready", health)},
            base: {"get": _operation("The model's tensors", "model", health, error="OipError")},
            f"{base}/ready": {"get": _operation("Whether the model is ready", "modelReady", health)},
            f"{base}/infer": {"post": infer},
        },
        "components": {
            "responses": {
                "Refused": {"description": "The error", "content": {_JSON: {"schema": {"$ref": _ERROR}}}},
            },
            "schemas": {
                "Prediction": {"type": "object", "required": ["prediction", "columns"], "properties": returned},
                "Error": {"type": "object", "properties": {"message": {"type": "string"}}},
                "OipError": {"type": "object", "properties": {"error": {"type": "string"}}},
                "InferRequest": _infer_request(),
                "Input": _row(columns[0]),
                "Output": _row(columns[1]),
            },
        },
    }


def _operation(summary: str, name: str, answer: Document, error: str = "Error", kind: str = _JSON) -> Document:
    wrong = {"$ref": f"#/components/schemas/{error}"}
    return {
        "summary": summary,
        "operationId": name,
        "responses": {
            "200": {"description": summary, "content": {kind: {"schema": answer}}},
            "default": {"description": "The error", "content": {_JSON: {"schema": wrong}}},
        },
    }


def _other_forms() -> Document:
    return {"text/csv": {"schema": {"type": "string"}}, **{kind: {"schema": {}} for kind in (arrow.STREAM, arrow.FILE)}}


def _row(columns: Sequence[Column]) -> Document:
    properties = {column.text: {"type": column.type} if column.type in _TYPES else {} for column in columns}
    return {"type": "object", "properties": properties}


def _infer_request() -> Document:
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string"},
            "parameters": {"type": "object"},
            "data": {"type": "array"},
        },
    }
    named = {"name": {"type": "string"}, "parameters": {"type": "object"}}
    output = {"type": "object", "required": ["name"], "properties": named}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "minItems": 1, "items": tensor},
            "outputs": {"type": "array", "items": output},
        },
    }
