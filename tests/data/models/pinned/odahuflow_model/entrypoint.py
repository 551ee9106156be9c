"""A model whose environment has old versions of what servers are made of; it uses each, and tells which it got."""

import sys
from typing import Any, List, Optional, Tuple

import flask
import granian
import gunicorn
import markupsafe
import numpy as np
import orjson
import packaging.version
import pydantic

NAMES = ("flask", "granian", "gunicorn", "markupsafe", "numpy", "orjson", "packaging", "pydantic")


class Wine(pydantic.BaseModel):
    alcohol: float

    @pydantic.validator("alcohol")
    def is_drinkable(cls, value: float) -> float:  # noqa: N805  (as version 1 has it)
        return min(value, 20.0)


def init() -> str:
    return "matrix"


def predict_on_matrix(
    input_matrix: List[List[Any]],
    provided_columns_names: Optional[List[str]] = None,  # noqa: ARG001
) -> Tuple[List[List[Any]], List[str]]:
    app = flask.Flask("wine")
    app.route("/")(lambda: str(markupsafe.escape("<wine>")))
    used = [
        app.test_client().get("/").data.decode(),
        orjson.loads(orjson.dumps({"a": np.float64(1.5)}, option=orjson.OPT_SERIALIZE_NUMPY))["a"],
        Wine.parse_obj({"alcohol": input_matrix[0][0]}).alcohol,
        float(np.array(input_matrix, dtype=float).sum()),
        packaging.version.parse("1.10") > packaging.version.parse("1.9"),
        gunicorn.__file__ == sys.modules["gunicorn"].__file__,
        granian.__file__ == sys.modules["granian"].__file__,
    ]
    places = [[name, sys.modules[name].__file__] for name in NAMES]
    ours = [name for name in sys.modules if "odahu" in name]
    return [[used, places, ours]], ["seen"]
