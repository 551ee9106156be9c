"""A model that gives back whatever it gets, so that only the server can be at fault."""

from typing import Any, Dict, List, Optional, Tuple


def init() -> str:
    return "matrix"


def predict_on_matrix(
    input_matrix: List[List[Any]],
    provided_columns_names: Optional[List[str]] = None,  # noqa: ARG001
) -> Tuple[List[List[Any]], List[str]]:
    return input_matrix, [f"given {number}" for number in range(len(input_matrix[0]))]


def info() -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
    column = {"type": "number", "required": True, "example": 1}
    return [{"name": "a", **column}, {"name": "b", **column}], [{"name": "given 0", **column}]
