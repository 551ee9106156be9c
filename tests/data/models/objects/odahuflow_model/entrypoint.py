"""A model that predicts on objects."""

from typing import Any, Dict, List


def init() -> str:
    return "objects"


def get_object_input_type() -> Any:
    return List[Dict[str, Any]]


def predict_on_objects(objects: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    return [{"name": item["name"], "letters": len(item["name"])} for item in objects]
