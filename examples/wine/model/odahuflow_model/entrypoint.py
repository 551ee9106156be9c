"""The GPPI entry point of the wine model: what the packager's images import and call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
FEATURES: list[dict[str, Any]] = json.loads((HERE / "features.json").read_text(encoding="utf-8"))
NAMES = [feature["name"] for feature in FEATURES]
OUTPUT = [
    {"name": "cultivar", "type": "integer", "required": True, "example": 0},
    {"name": "probability_0", "type": "number", "required": True, "example": 0.98},
    {"name": "probability_1", "type": "number", "required": True, "example": 0.01},
    {"name": "probability_2", "type": "number", "required": True, "example": 0.01},
]
_loaded: dict[str, Any] = {}


def init() -> str:
    """Load the model; called once a process. Says that the model predicts on matrices."""
    _loaded["model"] = joblib.load(HERE / "model.joblib")
    return "matrix"


def predict_on_matrix(
    matrix: Sequence[Sequence[float]], provided_columns_names: Sequence[str] | None = None
) -> tuple[list[list[float]], list[str]]:
    """Give the cultivar of each wine and the probability of each of the three.

    Raises:
        ValueError: A column is missing, unknown or named twice, or a row has another number of values.
    """
    values = np.asarray(matrix, dtype=float).reshape(len(matrix), -1)
    if provided_columns_names is not None:
        values = values[:, _order(list(provided_columns_names))]
    probabilities = _loaded["model"].predict_proba(values)
    rows = [[int(row.argmax()), *(float(value) for value in row)] for row in probabilities]
    return rows, [column["name"] for column in OUTPUT]


def info() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Describe the input and the output columns."""
    return FEATURES, OUTPUT


def _order(columns: list[str]) -> list[int]:
    if sorted(columns) != sorted(NAMES):
        problems = [f"missing: {name}" for name in NAMES if name not in columns]
        problems += [f"unknown: {name}" for name in columns if name not in NAMES]
        problems += [f"named twice: {name}" for name in sorted({name for name in columns if columns.count(name) > 1})]
        raise ValueError("the columns are wrong: " + ", ".join(problems))
    return [columns.index(name) for name in NAMES]
