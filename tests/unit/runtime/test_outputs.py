from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import pathlib
import types
import uuid
from collections import OrderedDict, deque, namedtuple
from typing import Any

import pytest

from packager.runtime.odahu_runtime import outputs

pytestmark = pytest.mark.usefixtures("both_json")


class Colour(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Plain(enum.Enum):
    DAY = dt.date(2020, 2, 29)


@dataclasses.dataclass
class Wine:
    name: str
    scores: tuple[float, ...]


Point = namedtuple("Point", "x y")  # noqa: PYI024  (as models have them)
NAN = float("nan")
UUID = uuid.UUID("ec1bf1cd-216d-4f0a-a62f-bf084c79c58c")
ZONE = dt.timezone(dt.timedelta(hours=2))


CASES = [
    (None, None),
    (True, True),
    (2**70, 2**70),
    (0.5, 0.5),
    (float("nan"), None),
    (float("inf"), None),
    (float("-inf"), None),
    ("è", "è"),
    ((1, [2, (3,)]), [1, [2, [3]]]),
    (Point(1, 2), [1, 2]),
    (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (types.MappingProxyType({"a": {1}}), {"a": [1]}),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({1}), [1]),
    (deque([1]), [1]),
    (range(2), [0, 1]),
    ({1: 1, 2.5: 2, None: 3, False: 4}, {"1": 1, "2.5": 2, "null": 3, "false": 4}),
    ({(1, 2): 1, dt.date(2020, 2, 29): 2}, {"[1, 2]": 1, "2020-02-29": 2}),
    (b"text", "text"),
    (b"\xff\x00", "/wA="),
    (bytearray(b"ab"), "ab"),
    (memoryview(b"ab"), "ab"),
    (dt.datetime(2020, 2, 29, 1, 2, 3, tzinfo=ZONE), "2020-02-29T01:02:03+02:00"),
    (dt.time(1, 2), "01:02:00"),
    (dt.timedelta(seconds=1.5), 1.5),
    (decimal.Decimal("1.25"), 1.25),
    (decimal.Decimal("NaN"), None),
    (fractions.Fraction(1, 4), 0.25),
    (1 + 2j, "(1+2j)"),
    (UUID, "ec1bf1cd-216d-4f0a-a62f-bf084c79c58c"),
    (pathlib.PurePosixPath("/a"), "/a"),
    (Colour.RED, "red"),
    (Level.LOW, 1),
    (Plain.DAY, "2020-02-29"),
    (Wine("x", (1.0, float("nan"))), {"name": "x", "scores": [1.0, None]}),
]


def named(value: object) -> str:
    return repr(value).partition(" at 0x")[0]


@pytest.mark.parametrize(("value", "expected"), CASES, ids=named)
def test_dumps(value: object, expected: object) -> None:
    assert json.loads(outputs.dumps(value)) == expected


@pytest.mark.parametrize(("value", "expected"), CASES, ids=named)
def test_nan_does_not_change_other_values(value: object, expected: object) -> None:
    assert json.loads(outputs.dumps([NAN, value])) == [None, expected]


@pytest.mark.parametrize("value", [object(), [print], {"a": Wine}])
def test_value_without_a_json_form_is_an_error(value: object) -> None:
    with pytest.raises(TypeError, match="can't be represented in JSON"):
        outputs.dumps(value)


def test_encoder_of_the_model_is_called_first() -> None:
    class Encoder(json.JSONEncoder):
        def default(self, o: Any) -> Any:
            return {"set": [dt.date(2020, 2, 29)]} if isinstance(o, set) else super().default(o)

    value, expected = [{1}, frozenset({2})], [{"set": ["2020-02-29"]}, [2]]
    assert json.loads(outputs.dumps(value, default=Encoder().default)) == expected
    assert outputs.plain(value, Encoder().default) == expected


def test_iterator_becomes_a_list() -> None:
    assert outputs.dumps(iter([0.5, NAN])) == "[0.5, null]"


def test_circular_value_is_an_error() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(RecursionError):
        outputs.dumps(circle)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([[1.5, "a", None], [float("nan"), "b", True]], [[1.5, "a", None], [None, "b", True]]),
        ([float("inf"), float("-inf"), 1], [None, None, 1]),
        ([1e308, 1e308], [1e308, 1e308]),
        ([[1], [[float("nan")]]], [[1], [[None]]]),
        ([10**400, 0.5], [10**400, 0.5]),
        ([], []),
        ([[], []], [[], []]),
    ],
)
def test_fast_path_for_many_values_equals_the_slow_one(value: object, expected: object) -> None:
    assert outputs.plain(value) == expected
