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
UUID = uuid.UUID("ec1bf1cd-216d-4f0a-a62f-bf084c79c58c")
ZONE = dt.timezone(dt.timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
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
        ((item for item in "ab"), ["a", "b"]),
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
    ],
    ids=repr,
)
def test_plain(value: object, expected: object) -> None:
    plain = outputs.plain(value)
    assert plain == expected
    assert json.loads(outputs.dumps(plain)) == expected


@pytest.mark.parametrize("value", [object(), [print], {"a": Wine}])
def test_what_has_no_form_is_an_error(value: object) -> None:
    with pytest.raises(TypeError, match="has no form in JSON"):
        outputs.plain(value)


def test_the_models_encoder_is_asked_first() -> None:
    class Encoder(json.JSONEncoder):
        def default(self, o: Any) -> Any:
            return {"set": [dt.date(2020, 2, 29)]} if isinstance(o, set) else super().default(o)

    assert outputs.plain([{1}, frozenset({2})], Encoder().default) == [{"set": ["2020-02-29"]}, [2]]
