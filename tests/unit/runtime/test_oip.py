from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from packager.runtime.odahu_runtime.inputs import Batch, InputError
from packager.runtime.odahu_runtime.oip import chosen, metadata, read, write
from packager.runtime.odahu_runtime.schema import columns
from tests.unit.runtime.test_wsgi import Client, add_up, make_model

INFER = "/v2/models/wine/infer"


def tensor(name: str, shape: list[int], datatype: str, data: Any = None, **parameters: Any) -> dict[str, Any]:
    given = {} if data is None else {"data": data}
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters, **given}


@pytest.mark.parametrize(
    ("tensors", "batch"),
    [
        ([tensor("x", [2, 2], "FP64", [1, 2.5, 3, None])], Batch([[1, 2.5], [3, None]])),
        ([tensor("x", [2, 2], "INT8", [[1, 2], [3, 4]])], Batch([[1, 2], [3, 4]])),
        ([tensor("x", [1, 2, 2], "INT64", [1, 2, 3, 4])], Batch([[[1, 2], [3, 4]]])),
        ([tensor("x", [2], "FP32", [1, 2])], Batch([[1], [2]])),
        ([tensor("a", [2, 1], "FP32", [1, 2])], Batch([[1], [2]], ["a"])),
        (
            [tensor("a", [2, 1], "BOOL", [True, False]), tensor("s", [2], "BYTES", ["x", "y"])],
            Batch([[True, "x"], [False, "y"]], ["a", "s"]),
        ),
    ],
)
def test_tensors_are_rows(tensors: Any, batch: Batch) -> None:
    assert read({"inputs": tensors}, b"", ["a"]) == batch


def test_binary_tensors() -> None:
    numbers, texts = (
        struct.pack("<2d", 1.5, -2),
        b"".join(struct.pack("<I", len(t)) + t for t in (b"x", b"", b"\xc3\xa9")),
    )
    given = [
        tensor("n", [2, 1], "FP64", binary_data_size=len(numbers)),
        tensor("t", [2, 1], "BYTES", ["a", "b"]),
        tensor("b", [2, 1], "BOOL", binary_data_size=2),
    ]
    assert read({"inputs": given}, numbers + b"\1\0", []) == Batch(
        [[1.5, "a", True], [-2, "b", False]], ["n", "t", "b"]
    )
    one = tensor("t", [3], "BYTES", binary_data_size=len(texts))
    assert read({"inputs": [one]}, texts, []).data == [["x"], [""], ["é"]]


class Counted(bytes):
    """Counts the bytes that are copied out of it."""

    copied = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        if isinstance(found, bytes):
            Counted.copied += len(found)
            return Counted(found)
        return found


def test_binary_texts_are_copied_once_and_not_for_each_text() -> None:
    texts = Counted((struct.pack("<I", 2) + b"ab") * 1000)
    one = tensor("t", [1000], "BYTES", binary_data_size=len(texts))
    assert read({"inputs": [one]}, texts, []).data == [["ab"]] * 1000
    assert Counted.copied <= 2 * len(texts)


@pytest.mark.parametrize(
    ("document", "status", "said"),
    [
        ([], 400, "Expected an object"),
        ({"inputs": []}, 400, "at least one"),
        ({"inputs": [{"name": 1}]}, 400, 'has no "name"'),
        ({"inputs": [tensor("x", [1], "FP128", [1])]}, 400, "FP128"),
        ({"inputs": [tensor("x", [-1], "FP64", [1])]}, 400, 'needs a "shape"'),
        ({"inputs": [tensor("x", [0, 2], "FP64", [])]}, 400, "no rows"),
        ({"inputs": [tensor("x", [2, 2], "FP64", [1])]}, 422, "has 1 values, and its shape [2, 2] is for 4"),
        ({"inputs": [tensor("x", [2], "INT32", [1, 2.5])]}, 422, "the value 1 is 2.5, which is not of type INT32"),
        ({"inputs": [tensor("x", [1], "BYTES", [True])]}, 422, "the value 0 is true"),
        ({"inputs": [tensor("x", [1], "FP64")]}, 400, 'has no "data"'),
        (
            {"inputs": [tensor("x", [1], "FP64", [1]), tensor("y", [1, 2], "FP64", [1, 2])]},
            400,
            "each of the shape [1]",
        ),
        (
            {"inputs": [tensor("x", [1], "FP64", binary_data_size=8)]},
            400,
            "8 bytes of binary data are announced, 3 are",
        ),
        ({"inputs": [tensor("x", [1], "FP64", binary_data_size=3)]}, 422, "not of type FP64"),
        ({"inputs": [tensor("x", [1], "BYTES", binary_data_size=3)]}, 422, "not of type BYTES"),
    ],
)
def test_invalid_infer_request_is_an_error(document: Any, status: int, said: str) -> None:
    with pytest.raises(InputError) as error:
        read(document, b"abc", [])
    assert (error.value.status, said in str(error.value)) == (status, True), str(error.value)


@pytest.mark.parametrize(
    ("prediction", "names", "tensors"),
    [
        ([[1, "a"], [2, "b"]], ["n", "s"], [("n", [2, 1], "INT64", [1, 2]), ("s", [2, 1], "BYTES", ["a", "b"])]),
        ([[1.5], [None]], ["p"], [("p", [2, 1], "FP64", [1.5, None])]),
        ([[True], [False]], ["p"], [("p", [2, 1], "BOOL", [True, False])]),
        ([[1, 2], [3, 4.5]], ["p", "p"], [("prediction", [2, 2], "FP64", [1, 2, 3, 4.5])]),
        ([1, 2], [], [("prediction", [2], "INT64", [1, 2])]),
        ([[1], [2, 3]], [], [("prediction", [2], "BYTES", ["[1]", "[2, 3]"])]),
        ([], ["p"], [("p", [0, 1], "BOOL", [])]),
    ],
)
def test_rows_are_tensors(prediction: Any, names: Any, tensors: Any) -> None:
    assert [
        tuple(item[key] for key in ("name", "shape", "datatype", "data")) for item in write(prediction, names)
    ] == tensors


def test_metadata_has_the_columns_of_info() -> None:
    given = columns([{"name": "a", "type": "integer"}, {"name": "b", "type": "string"}, {"name": "c"}])
    document = metadata("wine", "1.0", given, columns({"p": {"type": "number"}}))
    assert [item["datatype"] for item in document["inputs"]] == ["INT64", "BYTES", "FP64"]
    assert document["outputs"] == [{"name": "p", "datatype": "FP64", "shape": [-1, 1]}]
    assert document["versions"] == ["1.0"]


@pytest.fixture
def client() -> Client:
    return Client(make_model(predict_on_matrix=add_up), ODAHU_MAX_BODY_BYTES="1000")


def test_infer(client: Client) -> None:
    request = {"id": "7", "inputs": [tensor("x", [2, 2], "FP64", [1, 2, 3, 4])]}
    for path in (INFER, "/v2/models/wine/versions/1.0/infer"):
        answer = client.ask("POST", path, json.dumps(request).encode())
        assert answer.status == 200
        assert answer.json == {
            "model_name": "wine",
            "model_version": "1.0",
            "id": "7",
            "outputs": [{"name": "sum", "shape": [2, 1], "datatype": "FP64", "data": [3.0, 7.0]}],
        }


def test_infer_returns_the_requested_outputs(client: Client) -> None:
    request = {"inputs": [tensor("x", [1, 2], "FP64", [1, 2])]}

    def ask(outputs: Any) -> Any:
        answer = client.ask("POST", INFER, json.dumps({**request, "outputs": outputs}).encode())
        return (answer.status, answer.json.get("error") or [each["name"] for each in answer.json["outputs"]])

    assert ask([]) == ask(None) == ask([{"name": "sum", "parameters": {"binary_data": False}}]) == (200, ["sum"])
    assert ask([{"name": "other"}]) == (400, "\"outputs\" asks for 'other'; available: sum")
    several: tuple[Any, ...] = ({}, "sum", ["sum"], [{"name": 1}], 0)
    for wrong in several:
        assert ask(wrong) == (400, '"outputs" must be a list of objects, each with a "name"')


def test_outputs_come_in_the_order_of_the_request() -> None:
    tensors = write([[1, 2, 3]], ["a", "b", "c"])
    assert [each["data"] for each in chosen(tensors, ["c", "a"])] == [[3], [1]]


def test_infer_with_binary_data(client: Client) -> None:
    data = struct.pack("<2d", 1, 2)
    head = json.dumps({"inputs": [tensor("x", [1, 2], "FP64", binary_data_size=16)]}).encode()
    length = {"HTTP_INFERENCE_HEADER_CONTENT_LENGTH": str(len(head))}
    assert client.ask("POST", INFER, head + data, **length).json["outputs"][0]["data"] == [3]
    assert client.ask("POST", INFER, head + data, HTTP_INFERENCE_HEADER_CONTENT_LENGTH="9999").status == 400


def test_errors_have_the_protocols_form(client: Client) -> None:
    answer = client.ask("POST", INFER, b"{")
    assert (answer.status, list(answer.json)) == (400, ["error"])
    assert "line 1 column 2" in answer.json["error"]
    assert client.ask("POST", "/v2/models/other/infer", b"{}").status == 404


def test_readiness_ends_before_liveness(client: Client) -> None:
    paths = ("/v2/health/live", "/v2/health/ready", "/v2/models/wine/ready")
    assert [client.ask("GET", path).status for path in paths] == [200, 200, 200]
    client.app.closing = True
    assert [client.ask("GET", path).status for path in paths] == [200, 503, 503]
    assert client.ask("GET", "/v2/models/wine").json["name"] == "wine"
    assert client.ask("GET", "/v2").json["name"] == "odahu-runtime"


@pytest.mark.parametrize(
    ("data", "datatype", "said"),
    [
        ([1, [2, [True]], 3], "FP64", "the value 2 is true, which is not of type FP64"),
        ([[1, None]], "INT64", "the value 1 is null, which is not of type INT64"),
        ([[True], [0]], "BOOL", "the value 1 is 0, which is not of type BOOL"),
        ([{"a": 1}], "BYTES", 'the value 0 is {"a": 1}, which is not of type BYTES'),
        ([[255], [256]], "UINT8", "the value 1 is 256, which is beyond UINT8: 0 to 255"),
        ([0, -129], "INT8", "the value 1 is -129, which is beyond INT8: -128 to 127"),
        ([1 << 63], "INT64", f"the value 0 is {1 << 63}, which is beyond INT64: {-(1 << 63)} to {(1 << 63) - 1}"),
    ],
)
def test_the_first_value_of_another_type_is_named(data: Any, datatype: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read({"inputs": [tensor("x", [len(data)], datatype, data)]}, b"", [])
    assert (error.value.status, str(error.value)) == (422, f'"inputs"[0]: {said}')


def test_lists_within_lists_are_read_in_order() -> None:
    given = tensor("x", [2, 3], "FP64", [1, [2, [3.5]], [[None], 5, 6]])
    assert read({"inputs": [given]}, b"", []).data == [[1, 2, 3.5], [None, 5, 6]]


def test_tensor_without_values_is_rejected() -> None:
    with pytest.raises(InputError, match="has no rows"):
        read({"inputs": [tensor("x", [5, 0], "FP64", [])]}, b"", [])
