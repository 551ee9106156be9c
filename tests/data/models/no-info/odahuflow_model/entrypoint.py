"""A model without info(), whose answer needs its own encoder, and ours for what that one doesn't know."""

import datetime as dt
import json
from typing import Any, List, Optional, Tuple


class Grade:
    def __init__(self, letter: str) -> None:
        self.letter = letter


class Encoder(json.JSONEncoder):
    def default(self, o: Any) -> Any:
        return {"grade": o.letter} if isinstance(o, Grade) else super().default(o)


def init() -> str:
    return "matrix"


def predict_on_matrix(
    input_matrix: List[List[Any]], provided_columns_names: Optional[List[str]] = None
) -> Tuple[Any, List[str]]:
    row = (Grade("A"), float("nan"), dt.date(2020, 2, 29), provided_columns_names)
    return tuple(row for _ in input_matrix), ["grade", "nan", "day", "columns"]


def get_output_json_serializer() -> type:
    return Encoder
