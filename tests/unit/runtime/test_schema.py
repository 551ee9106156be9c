from __future__ import annotations

import json
from typing import Any

import pytest

from packager.runtime.odahu_runtime import schema

FEATURE = {"name": "features", "type": "number", "required": True, "example": 0}
# The example of packagers.rst, without its trailing commas: what we print is JSON.
INPUT = """\
{
    "columns": {
        "example": [
            "features",
            "features",
            "features"
        ],
        "items": {
            "type": "string"
        },
        "type": "array"
    },
    "data": {
        "items": {
            "items": {
                "type": "number"
            },
            "type": "array"
        },
        "type": "array",
        "example": [
            [
                0,
                0,
                0
            ]
        ]
    }
}"""
OUTPUT = """\
{
    "prediction": {
        "example": [
            [
                0
            ]
        ],
        "items": {
            "type": "number"
        },
        "type": "array"
    },
    "columns": {
        "example": [
            "predictions"
        ],
        "items": {
            "type": "string"
        },
        "type": "array"
    }
}"""


def test_result_document_has_the_documented_layout() -> None:
    assert json.dumps(schema.input_properties([FEATURE] * 3), indent=4) == INPUT
    assert json.dumps(schema.output_properties([dict(FEATURE, name="predictions")]), indent=4) == OUTPUT


@pytest.mark.parametrize(
    ("described", "names", "examples"),
    [
        ((), [], []),
        (
            [{"name": "a", "type": "string"}, {"name": "b", "type": "integer"}, {"name": "c"}],
            ["a", "b", "c"],
            ["", 0, None],
        ),
        ({"a": {"name": "A", "type": "boolean"}, "b": {"example": 5}}, ["A", "b"], [False, 5]),
    ],
)
def test_names_and_examples(described: Any, names: list[str], examples: list[object]) -> None:
    properties = schema.input_properties(described)
    assert (properties["columns"]["example"], properties["data"]["example"]) == (names, [examples])


def test_swagger() -> None:
    given, returned = schema.input_properties([FEATURE]), schema.output_properties([FEATURE])
    document = schema.swagger("wine", "1.0", given, returned)
    post = document["paths"]["/api/model/invoke"]["post"]
    assert (document["swagger"], document["info"]["title"], document["info"]["version"]) == ("2.0", "wine", "1.0")
    assert post["parameters"][0]["schema"]["properties"] == given
    assert post["responses"]["200"]["schema"]["properties"] == returned
