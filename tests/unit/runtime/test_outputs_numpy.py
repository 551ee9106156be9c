"""The values of numpy and pandas, which the runtime knows by how they behave."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from packager.runtime.odahu_runtime import outputs

pytestmark = pytest.mark.usefixtures("both_json")

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.bool_(True), True),  # noqa: FBT003  (numpy's own)
        (np.int8(-5), -5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float16(0.5), 0.5),
        (np.float32(0.25), 0.25),
        (np.float64(NAN), None),
        (np.float32("inf"), None),
        (np.longdouble(0.5), 0.5),
        (np.complex64(1j), "1j"),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), "a"),
        (np.datetime64("2020-02-29"), "2020-02-29"),
        (np.datetime64("2020-02-29T01:02:03.123456789"), "2020-02-29T01:02:03.123456789"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.timedelta64("NaT"), None),
        (np.array(7), 7),
        (np.array("NaT", dtype="datetime64[s]"), None),
        (np.array([[1, 2], [3, 4]], dtype=np.int16), [[1, 2], [3, 4]]),
        (np.array([True, False]), [True, False]),
        (np.array([0.5, NAN], dtype=np.longdouble), [0.5, None]),
        (np.array([0.5, NAN], dtype=np.float16), [0.5, None]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.array([b"a"]), ["a"]),
        (np.array([["2020-02-29", "NaT"]], dtype="datetime64[ns]"), [["2020-02-29T00:00:00.000000000", None]]),
        (np.array([1, "NaT"], dtype="timedelta64[s]"), [1.0, None]),
        (np.array([(1, 2.5, b"x")], dtype=[("a", "i4"), ("b", "f8"), ("c", "S1")]), [[1, 2.5, "x"]]),
        (np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])[0], [1, 2.5]),
        (np.array([None, {1}, np.int8(2)], dtype=object), [None, [1], 2]),
        (np.array({1}, dtype=object), [1]),
        (np.ma.array([1.0, 2.0], mask=[False, True]), [1.0, None]),
        ({np.int64(1): np.float32(2)}, {"1": 2.0}),
        (pd.DataFrame({"a": [1, 2], "b": [0.5, NAN], "c": ["x", None]}), [[1, 0.5, "x"], [2, None, None]]),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), [[1, 2]]),
        (pd.DataFrame({"day": pd.to_datetime(["2020-02-29", None])}), [["2020-02-29T00:00:00"], [None]]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([1.5, None]), [1.5, None]),
        (pd.Series(pd.to_timedelta(["1s", None])), [1.0, None]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Categorical(["a", None]), ["a", None]),
        (pd.Index(["a", "b"]), ["a", "b"]),
        (pd.MultiIndex.from_tuples([(1, "a")]), [[1, "a"]]),
        (pd.Timestamp("2020-02-29", tz="UTC"), "2020-02-29T00:00:00+00:00"),
        (pd.NaT, None),
        (pd.NA, None),
        (pd.Timedelta("1s"), 1.0),
        ([pd.Series([1]), (np.array([2]),)], [[1], [[2]]]),
    ],
    ids=repr,
)
def test_plain(value: object, expected: object) -> None:
    text = json.dumps(expected)
    assert outputs.dumps(value).replace(" ", "") == text.replace(" ", "")
    assert json.loads(outputs.dumps([NAN, value])) == [None, expected]
