from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from packager.runtime.odahu_runtime import batch_input, batch_output, csv_values, parquet
from packager.runtime.odahu_runtime.column_names import ColumnNames
from packager.runtime.odahu_runtime.inputs import InputError
from packager.runtime.odahu_runtime.schema import Column

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WINE = (Column("acid", "number"), Column("kind", "string"), Column("bottles", "integer"), Column("red", "boolean"))


def read_csv(text: str, described: Sequence[Column] = (), rows: int = 2, **more: Any) -> list[tuple[int, list[object]]]:
    source = batch_input.Source("in.csv", "csv", rows)._replace(**more)
    chunks = batch_input.checked(batch_input.read_csv(io.BytesIO(text.encode()), source, described), source)
    return [(chunk.first, chunk.batch.data) for chunk in chunks]


def read_lines(
    text: str, described: Sequence[Column] = (), mode: str = "matrix"
) -> list[tuple[int, object, list[object]]]:
    source = batch_input.Source("in.jsonl", "jsonl", 2)
    chunks = batch_input.read_lines(io.BytesIO(text.encode()), source, described, mode)
    return [(chunk.first, chunk.batch.columns, chunk.batch.data) for chunk in chunks]


@pytest.mark.parametrize(
    ("path", "form"),
    [("a.csv", "csv"), ("A.TSV", "csv"), ("b.ndjson", "jsonl"), ("c.pq", "parquet"), ("d.json", "json"), ("-", "json")],
)
def test_suffix_selects_the_format(path: str, form: str) -> None:
    assert batch_input.format_of(path) == form


def test_cells_get_the_types_of_the_models_columns() -> None:
    text = "acid,kind,bottles,red\n7.5,007,3,true\n,,12.0,0\n1e2,'x',,\n"
    assert read_csv(text, WINE) == [
        (1, [[7.5, "007", 3, True], [None, None, 12, False]]),
        (3, [[100.0, "'x'", None, None]]),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-2.5e3", -2500.0),
        ("1_000", "1_000"),
        ("٣", "٣"),
        ("nan", None),
        ("", None),
        ("1.2.3", "1.2.3"),
        ("0x1", "0x1"),
        ("True", True),
        (str(2**64 - 1), 2**64 - 1),
        (str(2**64), str(2**64)),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_cells_of_unknown_columns_are_guessed(text: str, value: object) -> None:
    assert csv_values.guess(text) == value
    assert type(csv_values.guess(text)) is type(value)


def test_integer_beyond_64_bits_in_a_typed_column_is_rejected_as_such() -> None:
    with pytest.raises(InputError, match="beyond 64 bits"):
        csv_values.mismatch(str(2**64))
    assert csv_values.mismatch("red") == "red"


@pytest.mark.parametrize("kind", ["int64", "long", "uint8", "integer"])
def test_type_names_of_numpy_and_mlflow_are_known(kind: str) -> None:
    assert csv_values.readers(["a"], ColumnNames([Column("a", kind)])) == [csv_values.integer]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acid,kind\n1,a\n2\n", "in.csv: row 2 (line 3) has 1 cells, but there are 2 columns"),
        ("acid,kind\n1,a\nx,b\n", "in.csv: row 2 (line 3), column acid: 'x' is not a number"),
        ('kind,bottles\n"a\nb",1\nc,2.5\n', "in.csv: row 2 (line 4), column bottles: '2.5' is not a whole number"),
        ("red\ntrue\nyes\n", "in.csv: row 2 (line 3), column red: 'yes' is not true or false"),
        (f"bottles\n{2**64}\n", f"column bottles: '{2**64}' is not a whole number of 64 bits"),
        ("bottles\nx\n", "column bottles: 'x' is not a whole number"),
        ("bottles\n1e30\n", "column bottles: '1e30' is not a whole number"),
        ('kind\n"a"b\n', "in.csv: line 2: "),
    ],
)
def test_errors_in_csv_name_the_file_the_row_and_the_column(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_csv(text, WINE)
    assert said in str(error.value)


def test_csv_that_is_not_utf8() -> None:
    source = batch_input.Source("in.csv", "csv", 1)
    data = io.BytesIO(b"a\n1\n" * 20_000 + b"\xff\n")
    with pytest.raises(InputError, match=r"in\.csv is not UTF-8, after row \d+: invalid start byte"):
        list(batch_input.checked(batch_input.read_csv(data, source, ()), source))


def test_csv_without_header_and_with_another_delimiter() -> None:
    assert read_csv("1;2\n\n3;4\n", delimiter=";", header=False) == [(1, [[1, 2], [3, 4]])]
    described = (Column("a", "string"), Column("b", "number"))
    assert read_csv("1;2\n", described, delimiter=";", header=False) == [(1, [["1", 2]])]
    with pytest.raises(InputError, match="has 1 cells, but the first row has 2"):
        read_csv("1,2\n3\n", header=False)


def test_lines_become_rows_in_the_order_of_the_models_columns() -> None:
    text = '{"b": 1, "a": 2}\n\n{"a": 3, "b": 4}\n{"b": 5, "a": 6}\n'
    described = (Column("a", "number"), Column("b", "number"))
    assert read_lines(text, described) == [(1, ["a", "b"], [[2, 1], [3, 4]]), (3, ["a", "b"], [[6, 5]])]
    assert read_lines(text)[0] == (1, ["b", "a"], [[1, 2], [4, 3]])
    assert read_lines("[1, 2]\n[3, 4]\n") == [(1, None, [[1, 2], [3, 4]])]


def test_lines_stay_objects_for_a_model_of_objects() -> None:
    assert read_lines('{"a": 1}\n{"b": 2}\n', mode="objects") == [(1, None, [{"a": 1}, {"b": 2}])]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]\n\n[2\n", "in.jsonl: row 2 (line 3): Invalid JSON: "),
        ('{"a": 1}\n{"b": 1}\n', "in.jsonl: row 2 (line 2) has no 'a', unlike the first row"),
        ('{"a": 1}\n{"a": 1, "b": 1}\n', "row 2 (line 2) has 'b', unlike the first row"),
        ('{"a": 1}\n[1]\n', "row 2 (line 2) is a list, unlike the first row"),
        ('[1]\n{"a": 1}\n', "row 2 (line 2) is an object, unlike the first row"),
        ("[1]\n[1, 2]\n", "row 2 (line 2) has 2 values, but the first row has 1"),
        ("[1]\n7\n", "row 2 (line 2) is neither an object nor a list"),
    ],
)
def test_errors_in_lines_name_the_file_and_the_row(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_lines(text)
    assert said in str(error.value)


def write(writer: batch_output.Writer, *chunks: tuple[list[object], list[object]]) -> None:
    for rows, columns in chunks:
        writer.write(rows, columns)
    writer.finish()


def test_csv_output_is_rfc_4180() -> None:
    out = io.BytesIO()
    names: list[object] = ["a", "b", "c"]
    write(batch_output.CsvWriter(out, ","), ([[1.5, None, True]], names), ([["x,y", [1], 'é"']], names))
    assert out.getvalue().decode() == 'a,b,c\n1.5,,true\n"x,y",[1],"é"""\n'
    out = io.BytesIO()
    write(batch_output.CsvWriter(out, "\t"), ([1, 2], []))
    assert out.getvalue() == b"prediction\n1\n2\n"
    out = io.BytesIO()
    write(batch_output.CsvWriter(out, ","), ([["\ud800"]], ["a"]))
    assert out.getvalue() == b"a\n\\ud800\n"


def test_lines_and_documents_are_json() -> None:
    out = io.BytesIO()
    write(
        batch_output.LinesWriter(out),
        ([[1, "ü"]], ["a", "b"]),
        ([[2, None]], ["a", "b"]),
        ([[3, 4]], ["a", "a"]),
        ([5], []),
    )
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"a": 1, "b": "ü"},
        {"a": 2, "b": None},
        [3, 4],
        5,
    ]
    out = io.BytesIO()
    write(batch_output.JsonWriter(out), ([[1]], ["a"]), ([[2], [3]], ["a"]))
    assert json.loads(out.getvalue()) == {"prediction": [[1], [2], [3]], "columns": ["a"]}


def test_result_file_is_complete_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "result.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), batch_output.written(str(path)) as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("result.csv", "old")]
    with batch_output.written(str(path)) as stream:
        stream.write(b"new")
        assert path.read_text() == "old"
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("result.csv", "new")]
    with (
        pytest.raises(batch_output.OutputError, match="can't be written: Not a directory"),
        batch_output.written(str(path / "x")),
    ):
        pass


def test_parquet_keeps_values_through_chunks() -> None:
    out = io.BytesIO()
    names: list[object] = ["n", "x", "s", "none"]
    writer = parquet.ParquetWriter(out)
    write(writer, ([[1, 1, "a", None], [None, 2.5, "b", None]], names), ([[3, 4, None, 1.5]], names))
    chunks, position = parquet.read(io.BytesIO(out.getvalue()), batch_input.Source("in.parquet", "parquet", 2))
    found = [(chunk.first, chunk.batch.columns, chunk.batch.data) for chunk in chunks]
    assert found == [
        (1, names, [[1, 1.0, "a", None], [None, 2.5, "b", None]]),
        (3, names, [[3, 4.0, None, 1.5]]),
    ]
    assert position() == (3, 3)


def test_parquet_rejects_values_of_other_types_than_the_first_chunks() -> None:
    writer = parquet.ParquetWriter(io.BytesIO())
    writer.write([[1]], ["n"])
    with pytest.raises(batch_output.OutputError, match=r"rows 2-2 of the prediction .* a larger --chunk-rows"):
        writer.write([["x"]], ["n"])
    with pytest.raises(batch_output.OutputError, match="row 3 has 1 values, not 2"):
        writer.write([[1, 2], [3]], ["n"])


def test_invalid_parquet_is_an_error() -> None:
    with pytest.raises(InputError, match=r"in\.parquet can't be read as Parquet: "):
        parquet.read(io.BytesIO(b"PAR1 no"), batch_input.Source("in.parquet", "parquet", 2))
