"""Names of columns of every type that pandas has, in every form that a request may have."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import struct
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from packager.runtime.odahu_runtime import arrow, batch_input
from packager.runtime.odahu_runtime.column_names import ColumnNames
from packager.runtime.odahu_runtime.inputs import Batch, InputError
from packager.runtime.odahu_runtime.schema import columns
from packager.runtime.odahu_runtime.schema_validation import SchemaValidator
from tests.unit.runtime.test_wsgi import INVOKE, Client, make_model

if TYPE_CHECKING:
    from collections.abc import Callable

INFER = "/v2/models/wine/infer"
NOON = pd.Timestamp("2020-01-01 12:00")
NAMES: dict[str, list[Any]] = {
    "text": ["a", "b"],
    "whole numbers": [0, 1],
    "numpy's whole numbers": [np.int64(0), np.int64(1)],
    "floats": [0.5, 1.0],
    "truth values": [False, True],
    "none": [None, "b"],
    "nan": [math.nan, "b"],
    "tuples": [("a", 1), ("a", 2)],
    "times": [NOON, NOON + pd.Timedelta(days=1)],
    "days": [pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-02")],
    "dates": [dt.date(2020, 1, 1), dt.date(2020, 1, 2)],
    "text and number": ["x", 1],
}


class Seen(NamedTuple):
    names: list[Any]
    rows: list[list[Any]]


def serving(names: list[Any], seen: list[Seen], *, kind: str = "number", **environ: str) -> Client:
    def predict(matrix: Any, provided_columns_names: Any = None) -> Any:
        seen.append(Seen(provided_columns_names, matrix))
        return [[0]] * len(matrix), ["p"]

    info = [{"name": name, "type": kind, "required": True} for name in names]
    model = make_model(predict_on_matrix=predict, info=lambda: (info, []))
    return Client(model, ODAHU_MAX_BODY_BYTES="10000", **environ)


def frame(names: list[Any]) -> Any:
    return pd.DataFrame([[1.5, 2.5]], columns=pd.Index(names, tupleize_cols=False, dtype=object))


def as_shown(client: Client, names: list[Any]) -> Any:
    """The names as the service's own document shows them, in JSON."""
    document = client.ask("GET", "/api/model/info").json["paths"][INVOKE]["post"]["parameters"][0]["schema"]
    shown = document["properties"]["columns"]["example"]
    assert len(shown) == len(names)
    return client.invoke({"columns": shown, "data": [[1.5, 2.5]]})


def as_text(client: Client, names: list[Any]) -> Any:
    return client.invoke({"columns": list(map(str, names)), "data": [[1.5, 2.5]]})


def as_csv(client: Client, names: list[Any]) -> Any:
    text = frame(names).to_csv(index=False).encode()
    return client.ask("POST", INVOKE, text, CONTENT_TYPE="text/csv")


def as_arrow(client: Client, names: list[Any]) -> Any:
    sink = pa.BufferOutputStream()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The DataFrame has column names of mixed type")
        table = pa.Table.from_pandas(frame(names))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return client.ask("POST", INVOKE, bytes(sink.getvalue()), CONTENT_TYPE=arrow.STREAM)


def as_tensors(client: Client, names: list[Any]) -> Any:
    inputs = client.ask("GET", "/v2/models/wine").json["inputs"]
    assert len(inputs) == len(names)
    tensors = [dict(each, shape=[1], data=[value]) for each, value in zip(inputs, (1.5, 2.5), strict=True)]
    return client.ask("POST", INFER, json.dumps({"inputs": tensors}).encode())


FORMS: list[Callable[[Client, list[Any]], Any]] = [as_shown, as_text, as_csv, as_arrow, as_tensors]


def same(got: list[Any], wanted: list[Any]) -> bool:
    return list(map(type, got)) == list(map(type, wanted)) and all(
        one is other or one == other for one, other in zip(got, wanted, strict=True)
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", NAMES)
def test_model_gets_its_own_names_of_any_type_from_any_format(
    kind: str, form: Callable[[Client, list[Any]], Any]
) -> None:
    seen: list[Seen] = []
    names = NAMES[kind]
    answer = form(serving(names, seen), names)
    assert answer.status == 200, answer.json
    [(got, rows)] = seen
    assert same(got, names)
    assert rows == [[1.5, 2.5]]


@pytest.mark.parametrize("form", [as_text, as_csv, as_arrow, as_tensors])
def test_names_are_replaced_without_checks_too(form: Callable[[Client, list[Any]], Any]) -> None:
    seen: list[Seen] = []
    assert form(serving([0, 1], seen, ODAHU_CHECK_INPUT="false"), [0, 1]).status == 200
    assert same(seen[0].names, [0, 1])


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_any_type_are_reordered_to_the_models(kind: str) -> None:
    names = NAMES[kind]
    described = columns([{"name": name, "type": "number"} for name in names])
    checks = SchemaValidator(described)
    for _ in range(2):  # the second time from memory
        batch = checks.apply(Batch([[2, 1]], [str(name) for name in reversed(names)]))
        assert batch.data == [[1, 2]]
        assert batch.columns is not None
        assert same(batch.columns, names)


@pytest.mark.parametrize(
    ("own", "given", "wanted"),
    [
        ([1.0, 2.0], [1, 2], [1.0, 2.0]),
        (["1", "2"], [1, 2], ["1", "2"]),
        (["1", 1], ["1", 1], ["1", 1]),
        (["1", 1], [1, "1"], ["1", 1]),
        ([1, 1.0, True], [True, 1, 1.0], [1, 1.0, True]),
        ([True, "a"], ["true", "a"], [True, "a"]),
        ([("a", 1), ("a", "1")], [("a", "1"), ("a", 1)], [("a", 1), ("a", "1")]),
        ([["a", 1], "b"], [("a", 1), "b"], [("a", 1), "b"]),
        ([0, 0], ["0", "0"], [0, 0]),
        ([0, 1], ["0", "1", "more"], [0, 1, "more"]),
    ],
)
def test_type_of_a_name_takes_precedence_over_its_text(own: list[Any], given: list[Any], wanted: list[Any]) -> None:
    checks = SchemaValidator(columns([{"name": name} for name in own]))
    batch = checks.apply(Batch([list(range(len(given)))], given))
    assert batch.columns is not None
    assert same(batch.columns, wanted)
    names = ColumnNames(columns([{"name": name} for name in own]))
    for name, value in zip(batch.columns, batch.data[0], strict=True):
        place = names.find(given[value])
        assert place is None or same([names.own[place]], [name])


@pytest.mark.parametrize(
    ("own", "given"),
    [(["1", 1], ["1", "1"]), ([NOON, str(NOON)], [str(NOON)] * 2)],
)
def test_text_of_several_columns_is_ambiguous(own: list[Any], given: list[str]) -> None:
    with pytest.raises(InputError, match="ambiguous") as error:
        SchemaValidator(columns([{"name": name} for name in own])).apply(Batch([[0] * len(own)], given))
    assert error.value.status == 422
    assert repr(own[0]) in str(error.value)
    assert repr(own[1]) in str(error.value)
    assert "send JSON" in str(error.value)


def test_single_tensor_named_like_the_only_column_is_that_column() -> None:
    seen: list[Seen] = []
    inputs = [{"name": "0", "shape": [2], "datatype": "FP64", "data": [1, 2]}]
    assert serving([0], seen).ask("POST", INFER, json.dumps({"inputs": inputs}).encode()).status == 200
    assert same(seen[0].names, [0])
    assert list(map(type, seen[0].rows[0])) == [float]


def test_keys_of_objects_become_the_models_names() -> None:
    checks = SchemaValidator(columns([{"name": 0, "type": "number"}, {"name": "b", "type": "integer"}]), objects=True)
    assert checks.apply(Batch([{"0": 1, "b": 2.0, "more": 3}])).data == [{0: 1, "b": 2, "more": 3}]
    with pytest.raises(InputError, match="row 0: missing: 0"):
        checks.apply(Batch([{"1": 1, "b": 2}]))
    floats = SchemaValidator(columns([{"name": 1.0}]), objects=True)
    with pytest.raises(InputError, match="two names refer to the same column"):
        floats.apply(Batch([{"1": 1, "1.0": 2}]))


@pytest.mark.parametrize("first", ["", "Unnamed: 0"])
@pytest.mark.parametrize("form", ["csv", "json", "batch"])
def test_pandas_index_in_csv_is_rejected(form: str, first: str) -> None:
    seen: list[Seen] = []
    client = serving(["a", "b"], seen)
    text = f"{first},a,b\n0,1,2\n".encode()
    if form == "batch":
        source = batch_input.Source("in.csv", "csv", 10)
        described = columns([{"name": name, "type": "number"} for name in "ab"])
        [chunk] = batch_input.read_csv(io.BytesIO(text), source, described)
        with pytest.raises(InputError, match=r"index of a pandas frame; leave it out, .* to_csv\(index=False\)"):
            SchemaValidator(described).apply(chunk.batch)
        return
    if form == "csv":
        answer = client.ask("POST", INVOKE, text, CONTENT_TYPE="text/csv")
    else:
        answer = client.invoke({"columns": [first, "a", "b"], "data": [[0, 1, 2]]})
    assert (answer.status, seen) == (422, [])
    assert f'The first column has no name ("{first}")' in answer.json["message"]
    assert "index=False" in answer.json["message"]


def test_pandas_index_beside_an_unnamed_column_of_the_model_is_rejected() -> None:
    seen: list[Seen] = []
    client = serving(["Unnamed: 0", "x"], seen)
    answer = client.ask("POST", INVOKE, b",Unnamed: 0,x\n0,1,2\n", CONTENT_TYPE="text/csv")
    assert (answer.status, seen) == (422, [])
    assert "index=False" in answer.json["message"]


def test_unnamed_first_column_of_the_model_is_accepted() -> None:
    seen: list[Seen] = []
    for names in (["Unnamed: 0", "b"], ["", "b"]):
        answer = as_csv(serving(names, seen), names)
        assert (answer.status, seen.pop().names) == (200, names)


def test_pandas_index_in_arrow_is_dropped() -> None:
    seen: list[Seen] = []
    table = pa.Table.from_pandas(pd.DataFrame([[1.5, 2.5]], columns=[0, 1], index=["row"]))
    assert "__index_level_0__" in table.column_names
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    answer = serving([0, 1], seen).ask("POST", INVOKE, bytes(sink.getvalue()), CONTENT_TYPE=arrow.STREAM)
    assert answer.status == 200
    assert same(seen[0].names, [0, 1])
    assert seen[0].rows == [[1.5, 2.5]]


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        ("integer", "3", 3),
        ("int64", "3.0", 3),
        ("number", "2.5", 2.5),
        ("float64", "1e3", 1000.0),
        ("number", "true", 1),
        ("boolean", "1", True),
        ("bool", "False", False),
        ("string", "007", "007"),
        ("object", "3", "3"),
        ("date", "2020", "2020"),
        ("", "2020-01-01", "2020-01-01"),
        ("", "3", 3),
        *[(kind, "", None) for kind in ("integer", "number", "boolean", "string", "")],
    ],
)
@pytest.mark.parametrize("check", ["true", "false"])
def test_csv_cells_get_the_columns_types_in_requests_and_batches(
    kind: str, cell: str, value: object, check: str
) -> None:
    seen: list[Seen] = []
    client = serving([0, 1], seen, kind=kind, ODAHU_CHECK_INPUT=check)
    text = f"0,1\n{cell},{cell}\n".encode()
    answer = client.ask("POST", INVOKE, text, CONTENT_TYPE="text/csv")
    assert answer.status == 200, answer.json
    described = columns([{"name": name, "type": kind} for name in (0, 1)])
    [chunk] = batch_input.read_csv(io.BytesIO(text), batch_input.Source("in.csv", "csv", 10), described)
    for rows in (seen[0].rows, chunk.batch.data):
        assert same(rows[0], [value, value])


def test_values_of_binary_tensors_are_of_the_columns_types() -> None:
    seen: list[Seen] = []
    data = struct.pack("<2d", 1, 2)
    tensor = {"name": "0", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    client = serving([0], seen, kind="integer")
    answer = client.ask("POST", INFER, head + data, HTTP_INFERENCE_HEADER_CONTENT_LENGTH=str(len(head)))
    assert answer.status == 200, answer.json
    assert same(seen[0].rows[0], [1])
