from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from packager.models.integrations import INTEGRATION_TYPES
from packager.runtime.odahu_runtime import fast_json
from packager.runtime.odahu_runtime.inputs import Batch, InputError
from packager.runtime.odahu_runtime.request_validation import RequestLimits
from packager.runtime.odahu_runtime.schema import columns
from packager.runtime.odahu_runtime.schema_validation import SchemaValidator
from tests.unit.runtime.test_wsgi import INVOKE, Client, add_up, make_model

INFER = "/v2/models/wine/infer"
TENSOR = {"name": "a", "shape": [1], "datatype": "FP64"}
NUMBERS = [{"name": name, "type": "number", "required": True, "example": 0} for name in "abc"]
MIXED = [
    {"name": "n", "type": "number"},
    {"name": "i", "type": "integer"},
    {"name": "b", "type": "boolean"},
    {"name": "s", "type": "string"},
    {"name": "unknown", "type": "date"},
    {"name": "unsaid"},
]
OPTIONAL = [{"name": "a", "type": "number"}, {"name": "b", "type": "number", "required": False}]


def check(described: Any, rows: list[Any], names: list[Any] | None = None, *, objects: bool = False) -> Batch:
    return SchemaValidator(columns(described), objects=objects).apply(Batch(rows, names))


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        check(*arguments, **options)
    assert error.value.status == 422
    return str(error.value)


@pytest.mark.parametrize(
    ("described", "rows", "names"),
    [
        ((), [["x", {}]], ["p", "q"]),
        (NUMBERS, [[1, 2.5, None], [True, 0, 10**400]], None),
        (NUMBERS, [[1.5, 2, 10**400]], ["a", "b", "c"]),
        (NUMBERS, [[1, 2, 3, "more"]], ["a", "b", "c", "id"]),
        (NUMBERS, [[1, {}, 2, 3]], ["a", "id", "b", "c"]),
        ([{"name": 0, "type": "number"}, {"name": 1, "type": "number"}], [[1, 2]], [0, 1]),
        ([NUMBERS[0]] * 3, [[1, 2, 3]], ["a"] * 3),
        ({"a": {"type": "number"}, "b": {"type": "string"}}, [[1, "x"]], ["a", "b"]),
        (MIXED, [[1, 2, True, {"x": [1]}, {}, []], [1, 2, True, [], 1, 1]], None),
        (MIXED, [[1, 2, True, "s", {}, []], [2.5, 3.0, 0, 5, None, "x"], [None] * 6], None),
        (MIXED, [[True, False, 1.0, True, 1, 1]], None),
        (OPTIONAL, [[1]], None),
        (OPTIONAL, [[1]], ["a"]),
    ],
)
def test_valid_rows_are_unchanged(described: Any, rows: list[Any], names: Any) -> None:
    batch = check(described, rows, names)
    assert batch.data is rows
    assert batch.columns == names


@pytest.mark.parametrize(
    ("described", "rows", "names", "batch"),
    [
        (NUMBERS, [[3, 1, 2], [6, 4, 5]], ["c", "a", "b"], Batch([[1, 2, 3], [4, 5, 6]], ["a", "b", "c"])),
        (OPTIONAL, [[2, 1]], ["b", "a"], Batch([[1, 2]], ["a", "b"])),
        (MIXED[3:5] + MIXED[:1], [[1, "s", {}]], ["n", "s", "unknown"], Batch([["s", {}, 1]], ["s", "unknown", "n"])),
    ],
)
def test_columns_are_reordered_to_the_models(described: Any, rows: Any, names: Any, batch: Batch) -> None:
    assert check(described, rows, names) == batch


@pytest.mark.parametrize(
    ("described", "names", "said"),
    [
        (NUMBERS, ["a", "B", "c"], 'missing: "b"; unknown: "B" (column 1); the model has 3 columns: "a", "b", "c"'),
        (NUMBERS, ["a", "c"], 'missing: "b"; the model has'),
        (NUMBERS, ["a", "b", "c", "a"], 'repeated: "a"'),
        (NUMBERS[:1], ["z"], 'missing: "a"; unknown: "z" (column 0); the model has the column "a"'),
        (OPTIONAL, ["a", "B"], 'missing: "b"; unknown: "B" (column 1)'),
        ([NUMBERS[0]] * 3, ["a", "a"], 'missing: "a"'),
        (NUMBERS, [f"x{number}" for number in range(500)], '"x4" (column 4), and more;'),
        (NUMBERS, ["y" * 9999, "b", "c"], "yyy... (column 0)"),
    ],
)
def test_unknown_and_missing_columns_are_named(described: Any, names: list[str], said: str) -> None:
    message = refused(described, [[1] * len(names)], names)
    assert said in message
    assert len(message) < 500


@pytest.mark.parametrize(("rows", "count"), [([[1, 2]], 2), ([[1, 2, 3, 4]], 4)])
def test_rows_without_names_are_as_wide_as_the_model(rows: list[Any], count: int) -> None:
    assert refused(NUMBERS, rows) == f'Every row has {count} values, and the model has 3 columns: "a", "b", "c"'
    assert refused(OPTIONAL, [[]]) == 'Every row has 0 values, and the model has 2 columns: "a", "b"'


@pytest.mark.parametrize(
    ("described", "rows", "said"),
    [
        (NUMBERS, [[1, 2, 3], [4, "5", 6]], 'row 1, column 1 ("b"): "5" is a string, not a number'),
        (NUMBERS, [[1, 2, [3]]], 'row 0, column 2 ("c"): [3] is a list, not a number'),
        (MIXED, [[1, 2.5, True, "", 0, 0]], 'row 0, column 1 ("i"): 2.5 is a number, not a whole number'),
        (MIXED, [[1, "2", True, "", 0, 0]], 'row 0, column 1 ("i"): "2" is a string, not a whole number'),
        (MIXED, [[1, 2, 2, "", 0, 0]], 'row 0, column 2 ("b"): 2 is a number, not true or false'),
        (MIXED, [[1, 2, "yes", "", 0, 0]], 'row 0, column 2 ("b"): "yes" is a string, not true or false'),
    ],
)
def test_invalid_values_are_named(described: Any, rows: list[Any], said: str) -> None:
    assert refused(described, rows) == f"{said} (rows count from 0)"


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("integer", [1, 2.0, None, 1e3], [1, 2, None, 1000]),
        ("integer", [2**64 - 1, -(2**63), 1e19], [2**64 - 1, -(2**63), 10**19]),
        ("uint64", [2**64 - 1, None, 0.0], [2**64 - 1, None, 0]),
        ("int64", [2**63 - 1, -(2**63), 5], [2**63 - 1, -(2**63), 5]),
        ("boolean", [1, 0.0, None, True], [True, False, None, True]),
        ("number", [2**64 - 1, 2.0, True], [2**64 - 1, 2.0, True]),
        ("double", [1, 2.5, None], [1, 2.5, None]),
        ("string", [[1, {"a": 2}], {}, "x", 1, None], [[1, {"a": 2}], {}, "x", 1, None]),
        ("object", [[1], "x"], [[1], "x"]),
    ],
)
def test_values_are_handed_on_with_the_types_of_their_columns(kind: str, given: list[Any], wanted: list[Any]) -> None:
    described = [{"name": "a", "type": kind}]
    for batch in (
        check(described, [[value] for value in given], ["a"]),
        Batch([[check(described, [[value]], ["a"]).data[0][0]] for value in given]),
        Batch([[row["a"]] for row in check(described, [{"a": value} for value in given], objects=True).data]),
    ):
        got = [row[0] for row in batch.data]
        assert list(map(type, got)) == list(map(type, wanted))
        assert got == wanted


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("int64", 2**63, f"is a number, not a whole number from {-(2**63)} to {2**63 - 1}"),
        ("uint64", -1, f"-1 is a number, not a whole number from 0 to {2**64 - 1}"),
        ("uint8", 256, "256 is a number, not a whole number from 0 to 255"),
        ("int8", -129.0, "-129.0 is a number, not a whole number from -128 to 127"),
        ("integer", 1e30, "1e+30 is a number, not a whole number"),
        ("long", "1", '"1" is a string, not a whole number'),
        ("float32", "1", '"1" is a string, not a number'),
        ("number", [1], "[1] is a list, not a number"),
        ("bool", 2, "2 is a number, not true or false"),
    ],
)
def test_values_beyond_a_columns_type_are_rejected(kind: str, value: Any, said: str) -> None:
    for rows in ([[value]], [[None]] * 20 + [[value]]):
        assert said in refused([{"name": "a", "type": kind}], rows)


@pytest.mark.parametrize("kind", ["number", "integer", "string", "date"])
@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400])
@pytest.mark.parametrize("orjson_", [None, orjson], ids=["json", "orjson"])
def test_integers_beyond_64_bits_are_rejected_in_every_column(kind: str, number: int, orjson_: Any) -> None:
    asked = client(([{"name": "a", "type": kind}], ()))
    fast_json.use(orjson_)
    try:
        for answer in (
            asked.invoke({"columns": ["a"], "data": [[number]]}),
            asked.invoke({"data": [[-number], [number]]}),
            asked.ask("POST", INFER, json.dumps({"inputs": [TENSOR | {"data": [number]}]}).encode()),
        ):
            assert answer.status == 422, answer.json
            said = answer.json.get("message") or answer.json["error"]
            assert "is beyond 64 bits" in said
            assert "line 1 column" in said
    finally:
        fast_json.use(None)


def test_remembered_columns_are_correct_for_the_next_request() -> None:
    checks = SchemaValidator(columns(MIXED))
    for value, fits in ((1, True), (2, True), ("x", False), (1.0, True), (1.5, False), (None, True)):
        batch = Batch([[0, value, True, "s", 0, 0]], None)
        if fits:
            assert checks.apply(batch) is batch
        else:
            with pytest.raises(InputError, match="not a whole number"):
                checks.apply(batch)
    checks = SchemaValidator(columns(NUMBERS))
    for number in range(200):
        names = ["c", "b", "a"] if number % 2 else ["a", "b", "c", f"more{number}"]
        row = [3, 2, 1] if number % 2 else [1, 2, 3, 4]
        assert checks.apply(Batch([row], names)).data[0][:3] == [1, 2, 3]
        with pytest.raises(InputError, match=r'row 0, column 1 \("b"\)'):
            checks.apply(Batch([[row[0], "x", *row[2:]]], names))


def test_first_few_problems_are_named_in_row_order() -> None:
    rows: list[Any] = [[1, 2, 3] for _ in range(5000)]
    rows[2500] = ["x", 2, "y" * 1000]
    assert refused(NUMBERS, rows, ["a", "b", "c"]).startswith('row 2500, column 0 ("a"): "x" is a string, not a number')
    rows[4000:] = [["z", "z", "z"]] * 1000
    message = refused(NUMBERS, rows)
    assert message.count("row ") == 5
    assert message.endswith("; and more (rows count from 0)")
    assert len(message) < 600


@pytest.mark.parametrize(
    ("described", "rows", "said"),
    [
        (NUMBERS, [{"a": 1, "b": 2, "c": 3, "d": "more"}], None),
        (OPTIONAL, [{"a": 1, "b": 2}, {"a": None}], None),
        (NUMBERS, [{"a": 1, "b": 2, "c": 3}, {"a": 1, "B": 2}], 'row 1: missing: "b", "c", and unknown: "B" (rows'),
        (NUMBERS, [{"a": 1, "b": 2, "c": 3}, {"a": "x", "b": 2, "c": 3}], 'row 1, column 0 ("a"): "x" is a string'),
        (OPTIONAL, [{"a": 1}, {"a": 1, "b": "x"}], 'row 1, column 1 ("b"): "x" is a string'),
    ],
)
def test_objects(described: Any, rows: list[Any], said: str | None) -> None:
    if said is None:
        assert check(described, rows, objects=True).data is rows
    else:
        assert said in refused(described, rows, objects=True)


def client(info: Any = (NUMBERS, ()), **environ: str) -> Client:
    return Client(make_model(predict_on_matrix=add_up, info=lambda: info), ODAHU_MAX_BODY_BYTES="1000", **environ)


@pytest.mark.parametrize(
    ("document", "status", "said"),
    [
        ({"columns": ["c", "a", "b"], "data": [[3, 1, 2]]}, 200, None),
        ({"data": [[1, 2, 3]]}, 200, None),
        ({"data": [[1, 2, "x"]]}, 422, 'row 0, column 2 ("c")'),
        ({"columns": ["a", "b"], "data": [[1, 2]]}, 422, 'missing: "c"'),
        ({"data": [[1, 2, 3], [1]]}, 422, '"data"[1] has 1 values'),
        ({"data": [[1, 2, 3]] * 4}, 413, "more than 3 rows"),
        ({"data": [{"a": 1}]}, 400, "predicts on a matrix"),
    ],
)
def test_invoke(document: Any, status: int, said: str | None) -> None:
    answer = client(ODAHU_MAX_ROWS="3").invoke(document)
    assert answer.status == status
    assert (answer.json["prediction"] == [[6]]) if said is None else (said in answer.json["message"]), answer.json


@pytest.mark.parametrize(
    ("inputs", "status", "said"),
    [
        ([{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}], 200, None),
        ([{"name": n, "shape": [1], "datatype": "INT64", "data": [2]} for n in "bca"], 200, None),
        ([{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}], 422, "Every row has 2 values"),
        ([{"name": n, "shape": [1], "datatype": "BYTES", "data": ["x"]} for n in "abc"], 422, 'row 0, column 0 ("a")'),
        ([{"name": n, "shape": [1], "datatype": "FP32", "data": [1]} for n in "ab"], 422, 'missing: "c"'),
        ([{"name": "x", "shape": [4, 3], "datatype": "FP64", "data": [1] * 12}], 413, "more than 3 rows"),
    ],
)
def test_infer(inputs: Any, status: int, said: str | None) -> None:
    answer = client(ODAHU_MAX_ROWS="3").ask("POST", INFER, json.dumps({"inputs": inputs}).encode())
    assert answer.status == status
    assert (answer.json["outputs"][0]["data"] == [6]) if said is None else (said in answer.json["error"]), answer.json


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (b"c,b,a\n1,2,3\n", 200, None),
        (b"a,b,c\n1,2,x\n", 422, '"x" is a string'),
        (b"a,b,c\n1,2,3\n1,2\n", 422, "CSV line 3 has 2 cells"),
        (b"a,b,c\n" + b"1,2,3\n" * 4, 413, "more than 3 rows"),
    ],
)
def test_csv(text: bytes, status: int, said: str | None) -> None:
    answer = client(ODAHU_MAX_ROWS="3").ask("POST", INVOKE, text, CONTENT_TYPE="text/csv")
    assert answer.status == status
    assert (answer.json["prediction"] == [[6]]) if said is None else (said in answer.json["message"]), answer.json


def test_csv_text_columns_stay_text() -> None:
    seen: list[Any] = []

    def predict(matrix: Any, provided_columns_names: Any) -> Any:
        seen.extend(matrix)
        return [[1]], provided_columns_names[:1]

    info: Any = ([{"name": "zip", "type": "string"}, {"name": "n", "type": "number"}], [])
    model = make_model(predict_on_matrix=predict, info=lambda: info)
    text = b"zip,n\n00501,00501\ntrue,\n,1\n"
    assert Client(model).ask("POST", INVOKE, text, CONTENT_TYPE="text/csv").status == 200
    assert seen == [["00501", 501], ["true", None], [None, 1]]


@pytest.mark.parametrize("info", [((), ()), None])
def test_model_without_columns_accepts_everything(info: Any) -> None:
    assert client(info).invoke({"columns": ["x"], "data": [[1], [2]]}).status == 200


def test_failing_info_is_logged_and_everything_is_accepted() -> None:
    asked = Client(make_model(predict_on_matrix=add_up, info=lambda: 1 / 0))
    assert asked.invoke({"data": [[1]]}).status == 200
    assert asked.log[0].startswith("The input is not checked: Traceback")


def test_the_checks_can_be_turned_off() -> None:
    assert client(ODAHU_CHECK_INPUT="false").invoke({"columns": ["x"], "data": [[1]]}).status == 200


@pytest.mark.parametrize(
    ("environ", "limits"),
    [
        ({}, RequestLimits(64 * 1024 * 1024, 1_000_000, check_input=True)),
        ({"ODAHU_MAX_ROWS": "", "ODAHU_CHECK_INPUT": "", "ODAHU_MAX_BODY_BYTES": ""}, RequestLimits()),
        (
            {"ODAHU_MAX_ROWS": "5", "ODAHU_CHECK_INPUT": "False", "ODAHU_MAX_BODY_BYTES": "7"},
            RequestLimits(7, 5, check_input=False),
        ),
    ],
)
def test_limits_come_from_the_environment(environ: dict[str, str], limits: RequestLimits) -> None:
    assert RequestLimits.from_env(environ) == limits


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ODAHU_MAX_ROWS", "9" * 5000, "ODAHU_MAX_ROWS must be a number of rows, not '999"),
        ("ODAHU_MAX_ROWS", "0", "ODAHU_MAX_ROWS must be a number of rows, not '0'"),
        ("ODAHU_MAX_ROWS", "1e3", "a number of rows, not '1e3'"),
        ("ODAHU_MAX_BODY_BYTES", "٣", "a number of bytes"),
        ("ODAHU_CHECK_INPUT", "no", "ODAHU_CHECK_INPUT must be true or false, not 'no'"),
    ],
)
def test_invalid_limits_are_an_error(name: str, value: str, said: str) -> None:
    with pytest.raises(ValueError, match="must be") as error:
        RequestLimits.from_env({name: value})
    assert said in str(error.value)


def test_the_arguments_are_the_limits_and_reach_the_image() -> None:
    rest = INTEGRATION_TYPES["docker-rest"]

    def variables(**given: object) -> dict[str, str]:
        return dict(rest.command(rest.arguments.model_validate(given)).variables)

    assert variables() == {}
    changed = {"maxBodyBytes": 10_000, "maxRows": 50, "checkInput": False}
    assert RequestLimits.from_env(variables(**changed)) == RequestLimits(10_000, 50, check_input=False)
    defaults = rest.arguments.model_validate({}).model_dump()
    assert RequestLimits(defaults["max_body_bytes"], defaults["max_rows"], defaults["check_input"]) == RequestLimits()
