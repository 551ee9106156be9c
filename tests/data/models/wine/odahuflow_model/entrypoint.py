"""The model of the document: three features, one prediction."""

from typing import Any, Dict, List, Optional, Tuple

WEIGHTS = (0.5, 0.25, 0.125)
_ready = []


def init() -> str:
    _ready.append(True)
    return "matrix"


def predict_on_matrix(
    input_matrix: List[List[Any]], provided_columns_names: Optional[List[str]] = None
) -> Tuple[List[List[float]], Tuple[str, ...]]:
    if len(_ready) != 1:
        raise RuntimeError(f"init() was called {len(_ready)} times")
    if provided_columns_names is not None and set(provided_columns_names) != {"features"}:
        raise ValueError(f"unknown columns {provided_columns_names}")
    return [[sum(w * x for w, x in zip(WEIGHTS, row))] for row in input_matrix], ("predictions",)  # noqa: B905


def info() -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
    print("a word on stdout")
    feature = {"name": "features", "type": "number", "required": True, "example": 0}
    return [feature] * 3, [{"name": "predictions", "type": "number", "required": True, "example": 0}]
