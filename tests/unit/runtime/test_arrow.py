"""Reading and writing Arrow, with the pyarrow of the tests' environment instead of the model's."""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import sys
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest

from packager.runtime.odahu_runtime import arrow
from packager.runtime.odahu_runtime.inputs import Batch, InputError
from packager.runtime.odahu_runtime.request_validation import RequestLimits, RequestValidator
from packager.runtime.odahu_runtime.schema_validation import SchemaValidator
from tests.unit.runtime.test_wsgi import INVOKE, Client, add_up, make_model

NUMBERS = [{"name": name, "type": "number"} for name in "abc"]


def written(table: Any, kind: str = arrow.STREAM, *, rows: int | None = None, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    new = pa.ipc.new_file if kind == arrow.FILE else pa.ipc.new_stream
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return bytes(sink.getvalue())


def read(body: bytes, **limits: Any) -> Batch:
    return arrow.read(body, RequestValidator(RequestLimits(**limits), (), SchemaValidator(())))


def refused(body: bytes, **limits: Any) -> tuple[int, str]:
    with pytest.raises(InputError) as error:
        read(body, **limits)
    return error.value.status, str(error.value)


@pytest.mark.parametrize("kind", [arrow.STREAM, arrow.FILE])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_flat_arrow_columns_equal_their_json(kind: str, compression: str | None) -> None:
    table = pa.table(
        {
            "float": [1.5, 2.0, 3.0],
            "half": pa.array([0.5, None, 1.0], pa.float16()),
            "small": pa.array([1, None, -3], pa.int8()),
            "large": pa.array([1, 2, 2**64 - 1], pa.uint64()),
            "text": ["x", "é", None],
            "known": pa.array(["x", "y", "x"]).dictionary_encode(),
            "known numbers": pa.array([7, None, 7]).dictionary_encode(),
            "truth": [True, None, False],
            "date": [dt.date(2020, 2, 29), None, None],
            "time": [dt.datetime(2020, 2, 29, 1, 2, tzinfo=dt.timezone.utc)] * 3,
            "nanoseconds": pa.array([1_000_000_001, None, 0], pa.timestamp("ns", "Mars/Phobos")),
            "short": pa.array([1001, None, 0], pa.duration("ns")),
            "clock": [dt.time(1, 2)] * 3,
            "took": [dt.timedelta(seconds=1.5), None, dt.timedelta()],
            "price": [decimal.Decimal("1.25"), None, decimal.Decimal("-1.00")],
            "none": pa.nulls(3),
        }
    )
    batch = read(written(table, kind, rows=2, compression=compression))
    assert batch.columns == table.column_names
    time = "2020-02-29T01:02:00+00:00"
    assert batch.data == [
        [
            1.5,
            0.5,
            1,
            1,
            "x",
            "x",
            7,
            True,
            "2020-02-29",
            time,
            "1970-01-01T00:00:01+00:00",
            1e-06,
            "01:02:00",
            1.5,
            1.25,
            None,
        ],
        [2.0, None, None, 2, "é", "y", None, None, None, time, None, None, "01:02:00", None, None, None],
        [
            3.0,
            1.0,
            -3,
            2**64 - 1,
            None,
            "x",
            7,
            False,
            None,
            time,
            "1970-01-01T00:00:00+00:00",
            0.0,
            "01:02:00",
            0.0,
            -1.0,
            None,
        ],
    ]


def test_slice_of_an_array_is_read_from_its_offset() -> None:
    table = pa.table({"a": [1, 2, 3, 4], "b": [1.0, 2.0, 3.0, 4.0]}).slice(1, 2)
    assert read(written(table)).data == [[2, 2.0], [3, 3.0]]


def test_lists_and_structs_equal_their_json() -> None:
    table = pa.table(
        {
            "list": [[0], [1, 2], None, [], [3]],
            "large": pa.array([["q"], ["x", None], [], None, ["y"]], pa.large_list(pa.string())),
            "fixed": pa.array([[9, 9], [1, 2], None, [3, 4], [5, 6]], pa.list_(pa.int8(), 2)),
            "struct": [{"a": 0}, {"a": 1, "b": [dt.date(2020, 1, 1)]}, None, {"a": 2, "b": None}, {"a": 3, "b": []}],
            "deep": [[[]], [[1.5], [2.5, None]], [None], [], None],
        }
    ).slice(1)
    for rows in (None, 2):
        assert read(written(table, rows=rows)).data == [
            [[1, 2], ["x", None], [1, 2], {"a": 1, "b": ["2020-01-01"]}, [[1.5], [2.5, None]]],
            [None, [], None, None, [None]],
            [[], None, [3, 4], {"a": 2, "b": None}, []],
            [[3], ["y"], [5, 6], {"a": 3, "b": []}, None],
        ]


def test_values_within_lists_count_too() -> None:
    body = written(pa.table({"a": pa.array([[None] * 50_000, []], pa.list_(pa.null()))}))
    assert refused(body, max_body=50_001)[0] == 413
    assert len(read(body, max_body=50_002).data) == 2
    fixed = written(pa.table({"a": pa.array([[None] * 50_000], pa.list_(pa.null(), 50_000))}))
    assert refused(fixed, max_body=50_000)[0] == 413


def test_decimals_without_a_fraction_are_whole_numbers() -> None:
    column = pa.array([decimal.Decimal(2**64 - 1), None], pa.decimal128(38, 0))
    assert read(written(pa.table({"a": column}))).data == [[2**64 - 1], [None]]
    column = pa.array([decimal.Decimal(2**64)], pa.decimal128(38, 0))
    assert refused(written(pa.table({"a": column})))[0] == 422


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([[b"x"]]), 'column 0 ("a") has the type list<'),
        (pa.array([{"x": [b"1"]}]), "has the type struct<"),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "has the type map<"),
        (pa.array([["x"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))), "has the type list<"),
        (pa.array([[1]], pa.list_view(pa.int8())), "has the type list_view<"),
        (pa.array([b"x"]), "has the type binary"),
        (pa.array(["x"], pa.string_view()), "has the type string_view"),
        (pa.array([b"0123456789abcdef"], pa.uuid()), "has the type extension"),
    ],
)
def test_unknown_and_missing_columns_are_rejected(column: Any, said: str) -> None:
    status, message = refused(written(pa.table({"a": column})))
    assert (status, said in message) == (422, True), message


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"ARROW1\0\0", b"\xff" * 64, written(pa.table({"a": [1, 2]}))[:-200], struct.pack("<ii", -1, 2**30)],
)
def test_invalid_arrow_is_an_error(body: bytes) -> None:
    status, message = refused(body)
    assert status == 400
    assert "Arrow" in message


@pytest.mark.parametrize("table", [pa.table({"a": pa.array([], pa.int8())}), pa.table({})])
def test_no_rows(table: Any) -> None:
    assert refused(written(table)) == (400, "The Arrow data has no rows")


def test_damaged_arrow_data_is_rejected() -> None:
    body = written(
        pa.table(
            {
                "a": [1, 2],
                "b": ["x", "yy"],
                "c": pa.array(["p", "q"]).dictionary_encode(),
                "d": [[1], [2, 3]],
                "e": [{"x": 1}, None],
            }
        )
    )
    for place in range(len(body)):
        for value in (0, 0xFF):
            damaged = body[:place] + bytes([value]) + body[place + 1 :]
            with suppress(InputError):
                assert len(read(damaged, max_body=10_000).data) <= 10_000


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_data_that_unpacks_beyond_the_limit_is_rejected_unread(compression: str) -> None:
    body = written(pa.table({"a": [0.0] * 100_000}), compression=compression)
    assert len(body) < 10_000
    assert len(read(body, max_body=900_000).data) == 100_000
    assert refused(body, max_body=700_000) == (
        413,
        "The body is larger than 700000 bytes, the limit of this service",
    )


def test_nulls_and_repeated_dictionaries_count_towards_the_limit() -> None:
    nulls = written(pa.table({"a": pa.nulls(100_000), "b": pa.nulls(100_000)}))
    assert refused(nulls, max_body=199_999)[0] == 413
    assert len(read(nulls, max_body=200_000).data) == 100_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 20, pa.int8()), pa.array([f"t{n}" for n in range(100)]))
    again = written(pa.table({"a": column}), rows=1)
    assert refused(again, max_body=1900)[0] == 413
    assert len(read(again, max_body=2100).data) == 20


def test_buffers_that_share_bytes_are_added_up() -> None:
    body = bytearray(written(pa.table({"a": [1, 2], "b": [3, 4]})))
    message = list(pa.ipc.MessageReader.open_stream(bytes(body)))[1]
    start = bytes(body).index(message.metadata.to_pybytes())
    place = bytes(body).index(struct.pack("<qqqq", 16, 0, 16, 16), start) + 16
    body[place : place + 16] = struct.pack("<qq", 0, 32)
    with pytest.raises(InputError):
        arrow.check_sizes(pa.ipc.MessageReader.open_stream(bytes(body)), 47)
    arrow.check_sizes(pa.ipc.MessageReader.open_stream(bytes(body)), 48)
    body[place : place + 16] = struct.pack("<qq", 0, -32)
    assert refused(bytes(body)) == (400, "The body is not an Arrow stream or file: a buffer of negative length")


def test_rows_are_counted_before_they_are_read() -> None:
    body = written(pa.table({"a": [1] * 100}), rows=10)
    assert refused(body, max_rows=99)[0] == 413
    assert len(read(body, max_rows=100).data) == 100


def client(predict: Any = add_up, **environ: str) -> Client:
    model = make_model(predict_on_matrix=predict, info=lambda: (NUMBERS, []))
    return Client(model, ODAHU_MAX_BODY_BYTES="100000", **environ)


@pytest.mark.parametrize(
    ("table", "status", "said"),
    [
        (pa.table({"c": [3], "a": [1], "b": [2.5]}), 200, None),
        (pa.table({"a": [1], "b": [2]}), 422, 'missing: "c"'),
        (pa.table({"a": [1], "b": [2], "c": ["x"]}), 422, 'row 0, column 2 ("c"): "x" is a string, not a number'),
        (pa.table({"a": [1] * 4, "b": [1] * 4, "c": [1] * 4}), 413, "more than 3 rows"),
    ],
)
@pytest.mark.parametrize("kind", [arrow.STREAM, arrow.FILE])
def test_arrow_rows_are_validated_like_json(kind: str, table: Any, status: int, said: str | None) -> None:
    answer = client(ODAHU_MAX_ROWS="3").ask("POST", INVOKE, written(table, kind), CONTENT_TYPE=kind)
    assert answer.status == status
    assert answer.json["prediction"] == [[6.5]] if said is None else said in answer.json["message"]


@pytest.mark.parametrize(
    ("prediction", "names", "expected"),
    [
        ([[1, 2.5, "x", True], [None, float("nan"), "y", False]], ["i", "f", "s", "b"], None),
        ([[1], ["x"], [None], [[2]]], ["mixed"], {"mixed": ["1", "x", None, "[2]"]}),
        ([[{"a": 1}]], ["object"], {"object": ['{"a": 1}']}),
        ([[2**70]], ["huge"], {"huge": [str(2**70)]}),
        ([1, 2], ["p", "q"], {"prediction": [1, 2]}),
        (3, [], {"prediction": [3]}),
        ([[1], [2, 3]], [], {"prediction": ["[1]", "[2, 3]"]}),
        ([[1, 2]], [], {"0": [1], "1": [2]}),
        ([[5]], [], {"prediction": [5]}),
        ([], ["p"], {"p": []}),
    ],
)
@pytest.mark.parametrize("kind", [arrow.STREAM, arrow.FILE])
def test_predictions_are_tables(kind: str, prediction: Any, names: list[str], expected: Any) -> None:
    asked = client(lambda _, **__: (prediction, names))
    status, headers, body = asked.exchange(b'{"data": [[1, 2, 3]]}', HTTP_ACCEPT=kind)
    assert (status, headers["Content-Type"], headers["Model-Name"]) == (200, kind, "wine")
    table = (pa.ipc.open_file if kind == arrow.FILE else pa.ipc.open_stream)(body).read_all()
    if expected is None:
        expected = {"i": [1, None], "f": [2.5, None], "s": ["x", "y"], "b": [True, False]}
        assert list(map(str, table.schema.types)) == ["int64", "double", "string", "bool"]
    assert table.to_pydict() == expected


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("Text/CSV", "text/csv; charset=utf-8"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("text/csv; q=0, */*;q=0.1", "application/json"),
        (f"{arrow.STREAM}, application/json;q=0.9", arrow.STREAM),
        (f"{arrow.STREAM};q=x, {arrow.FILE};q=0.1", arrow.FILE),
    ],
)
def test_preferred_supported_format_is_chosen(accept: str | None, kind: str) -> None:
    given: dict[str, Any] = {} if accept is None else {"HTTP_ACCEPT": accept}
    assert client().exchange(b'{"data": [[1, 2, 3]]}', **given)[1]["Content-Type"] == kind


def test_csv_out() -> None:
    rows = [[1, "a,b", True], [2.5, None, ["x"]], [float("inf"), 'q"', {"k": 1}]]
    asked = client(lambda _, **__: (rows, ["n", "é", "more"]))
    _, _, body = asked.exchange(b'{"data": [[1, 2, 3]]}', HTTP_ACCEPT="text/csv")
    assert body.decode() == 'n,é,more\r\n1,"a,b",true\r\n2.5,,"[""x""]"\r\n,"q""","{""k"": 1}"\r\n'


@pytest.mark.parametrize("version", [None, "14.0.0", "nonsense"])
def test_without_a_safe_pyarrow_there_is_a_hint(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    if version is None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    else:
        monkeypatch.setattr(pa, "__version__", version)
    asked = client()
    answer = asked.ask("POST", INVOKE, b"x", CONTENT_TYPE=arrow.STREAM)
    assert answer.status == 415
    assert "pyarrow 14.0.1 or later in the model's environment" in answer.json["message"]
    assert "conda file" in answer.json["message"]
    assert asked.ask("POST", INVOKE, b'{"data": [[1, 2, 3]]}', HTTP_ACCEPT=arrow.FILE).status == 406
    either = asked.ask("POST", INVOKE, b'{"data": [[1, 2, 3]]}', HTTP_ACCEPT=f"{arrow.FILE}, application/json;q=0.1")
    assert (either.status, either.json["prediction"]) == (200, [[6]])
