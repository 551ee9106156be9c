"""A model with packages and modules of its own, named like those of the server, and broken ones among them."""

import importlib
import logging.config
from typing import Any, Dict, List, Optional, Tuple

MINE = (
    "batch",
    "cli",
    "commands",
    "flask",
    "granian",
    "inputs",
    "isolation",
    "model",
    "odahu",
    "odahu_runtime",
    "orjson",
    "outputs",
    "packaging",
    "rest",
    "serve",
    "server",
    "vendor",
    "wsgi",
)

logging.config.dictConfig({"version": 1})  # silences every logger that there is


def init() -> str:
    return "matrix"


def predict_on_matrix(
    input_matrix: List[List[Any]],  # noqa: ARG001
    provided_columns_names: Optional[List[str]] = None,  # noqa: ARG001
) -> Tuple[Any, Tuple[str, ...]]:
    return [[name, importlib.import_module(name).WHOSE] for name in MINE] + [["gunicorn", gunicorn()]], (
        "name",
        "whose",
    )


def gunicorn() -> str:
    try:
        importlib.import_module("gunicorn.workers.gthread")
    except RuntimeError as error:
        return str(error)
    return "not mine"


def info() -> Tuple[Dict[str, Any], Dict[str, Any]]:
    return {"a": {"type": "string"}, "b": {"type": "integer", "example": 7}}, {"name": {}}
