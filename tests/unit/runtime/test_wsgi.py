from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from packager.runtime.odahu_runtime.model import Model, ModelError
from packager.runtime.odahu_runtime.request_validation import max_body_bytes
from packager.runtime.odahu_runtime.wsgi import CLOSE, Application

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("both_json")

INVOKE, INFO = "/api/model/invoke", "/api/model/info"


def make_model(**functions: object) -> Model:
    module = ModuleType("entrypoint")
    vars(module).update({"init": lambda: "matrix", **functions})
    return Model(module)


def add_up(matrix: Any, provided_columns_names: Any = None) -> Any:
    return [[sum(row)] for row in matrix], provided_columns_names or ("sum",)


class Client:
    def __init__(self, model: Model, **environ: str) -> None:
        self.log: list[str] = []
        self.closed: list[bool] = []
        names = {"ODAHU_MODEL_NAME": "wine", "ODAHU_MODEL_VERSION": "1.0", "ODAHU_MAX_BODY_BYTES": "100"}
        self.app = Application(model, {**names, **environ}, self.log.append)

    def ask(self, method: str, path: str, body: bytes | None = None, **environ: object) -> SimpleNamespace:
        head: dict[str, Any] = {}
        request = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(body or b"")}
        length = {} if body is None else {"CONTENT_LENGTH": str(len(body))}
        close = {CLOSE: lambda: self.closed.append(True)}
        text = b"".join(
            self.app(
                {**request, **length, **close, **environ},
                lambda status, headers: head.update(status=int(status.split()[0]), headers=dict(headers)),
            )
        )
        return SimpleNamespace(**head, json=json.loads(text) if text else None, size=len(text))

    def raw(self, method: str, path: str) -> bytes:
        request = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(b"")}
        return b"".join(self.app(request, lambda _status, _headers: None))

    def exchange(self, body: bytes, **environ: object) -> tuple[int, dict[str, str], bytes]:
        head: dict[str, Any] = {}
        length = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
        request = {"REQUEST_METHOD": "POST", "PATH_INFO": INVOKE, **length, **environ}
        answer = self.app(request, lambda status, headers: head.update(status=int(status[:3]), headers=dict(headers)))
        return head["status"], head["headers"], b"".join(answer)

    def invoke(self, document: object, **environ: object) -> SimpleNamespace:
        return self.ask("POST", INVOKE, json.dumps(document).encode(), **environ)


@pytest.fixture
def client() -> Client:
    return Client(make_model(predict_on_matrix=add_up))


def test_prediction(client: Client) -> None:
    answer = client.invoke({"columns": ["a", "b"], "data": [[1, 2], [3, 4]]})
    assert (answer.status, answer.json) == (200, {"prediction": [[3], [7]], "columns": ["a", "b"]})
    assert answer.headers["Model-Name"] == "wine"
    assert answer.headers["Model-Version"] == "1.0"
    assert "Request-Id" not in answer.headers
    assert client.invoke({"data": [[1, 2]]}).json["columns"] == ["sum"]


def test_columns_that_are_one_name() -> None:
    answer = Client(make_model(predict_on_matrix=lambda *_, **__: ([["\ud800"]], "prediction")))
    assert answer.invoke({"data": [[1]]}).json == {"prediction": [["\ud800"]], "columns": ["prediction"]}
    _, _, body = answer.exchange(b'{"data": [[1]]}', HTTP_ACCEPT="text/csv")
    assert body == b"prediction\r\n\\ud800\r\n"


@pytest.mark.parametrize("header", ["HTTP_REQUEST_ID", "HTTP_X_REQUEST_ID"])
def test_response_carries_the_request_id(client: Client, header: str) -> None:
    assert client.invoke({"data": [[1]]}, **{header: "7"}).headers["Request-Id"] == "7"


def test_names_are_percent_encoded_in_headers() -> None:
    client = Client(make_model(predict_on_matrix=add_up), ODAHU_MODEL_NAME="вино\n")
    assert client.invoke({"data": [[1]]}).headers["Model-Name"] == "%D0%B2%D0%B8%D0%BD%D0%BE%0A"


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/", 404, "Unknown path /; known paths: /api/model/invoke, /api/model/info, /healthcheck"),
        ("GET", "/api/model/invoke/", 404, "Unknown path"),
        ("GET", INVOKE, 405, "GET is not allowed for /api/model/invoke, only POST"),
        ("DELETE", INFO, 405, "only GET and HEAD"),
        ("POST", INVOKE, 411, "The request has no body"),
    ],
)
def test_paths_and_methods(client: Client, method: str, path: str, status: int, said: str) -> None:
    answer = client.ask(method, path)
    assert answer.status == status
    assert said in answer.json["message"]
    assert (status == 405) == ("Allow" in answer.headers)


@pytest.mark.parametrize("path", ["/healthcheck", INFO])
def test_head_is_get_without_a_body(client: Client, path: str) -> None:
    head, get = client.ask("HEAD", path), client.ask("GET", path)
    assert (head.status, head.size) == (200, 0)
    assert int(head.headers["Content-Length"]) == get.size > 0


@pytest.mark.parametrize(
    ("body", "environ", "status", "said"),
    [
        (b"", {}, 400, "no body"),
        (b'{"data": [[1,]]}', {}, 400, "line 1 column"),
        (b'{"data": [[NaN]]}', {}, 400, "NaN is not a JSON value: line 1 column 12"),
        (b"\xff", {}, 400, "not UTF-8: invalid start byte at byte 0"),
        (b'{"data": [1]}', {}, 400, '"data"[0] must be a row'),
        (b'{"data": [{"a": 1}]}', {}, 400, "predicts on a matrix"),
        (b" " * 101, {}, 413, "larger than 100 bytes"),
        (b"{}", {"CONTENT_LENGTH": "9"}, 400, "ended after 2 of 9 bytes"),
        (b"{}", {"CONTENT_LENGTH": "nine"}, 400, "can't be read"),
        (b"{}", {"HTTP_CONTENT_ENCODING": "br"}, 415, "compressed (br)"),
    ],
)
def test_invalid_body_is_an_error_with_its_status(
    client: Client, body: bytes, environ: dict[str, str], status: int, said: str
) -> None:
    answer = client.ask("POST", INVOKE, body, **environ)
    assert (answer.status, said in answer.json["message"]) == (status, True), answer.json


def test_chunked_bodies(client: Client) -> None:
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    assert client.ask("POST", INVOKE, b'\xef\xbb\xbf{"data": [[1]]}', **chunked).status == 200
    assert not client.closed
    assert client.ask("POST", INVOKE, b" " * 101, **chunked).status == 413
    assert client.closed


@pytest.mark.parametrize(("error", "status"), [(OSError("gone"), 400), (TimeoutError("slow"), 408)])
def test_interrupted_or_slow_body_is_an_error(client: Client, error: OSError, status: int) -> None:
    def read(_: int) -> bytes:
        raise error

    assert client.ask("POST", INVOKE, b"{}", **{"wsgi.input": SimpleNamespace(read=read)}).status == status
    assert client.closed


@pytest.mark.parametrize("error", [ValueError("bad wine"), SystemExit("bad wine"), KeyboardInterrupt("bad wine")])
def test_error_of_the_model_is_a_500_with_its_type_and_text(error: BaseException) -> None:
    error.__traceback__ = None  # it was raised before

    def predict(_: object, **__: object) -> None:
        raise error

    client = Client(make_model(predict_on_matrix=predict))
    answer = client.invoke({"data": [[1]]})
    assert answer.status == 500
    assert answer.json["message"] == f"Exception during prediction: {type(error).__name__}: bad wine"
    assert "in predict\n    raise error" in client.log[0]
    assert "model.py" not in client.log[0]


def test_long_messages_are_cut() -> None:
    client = Client(make_model(predict_on_matrix=lambda _, **__: 1 / 0 if _ == [[1]] else open("x" * 99_999)))  # noqa: SIM115, PTH123
    assert len(client.invoke({"data": [[2]]}).json["message"]) < 3000


@pytest.mark.parametrize("result", [None, [[1]], ([[1]], ["a"], 3)])
def test_result_that_is_not_a_pair_is_an_error(result: object) -> None:
    client = Client(make_model(predict_on_matrix=lambda _, **__: result))
    assert "not a pair" in client.invoke({"data": [[1]]}).json["message"]


def test_info() -> None:
    columns = [{"name": "a", "type": "number", "example": float("nan")}]
    answer = Client(make_model(predict_on_matrix=add_up, info=lambda: (columns, columns))).ask("GET", INFO)
    post = answer.json["paths"][INVOKE]["post"]
    assert answer.headers["Model-Name"] == "wine"
    assert post["parameters"][0]["schema"]["properties"]["data"]["example"] == [[None]]
    assert post["responses"]["200"]["schema"]["properties"]["columns"]["example"] == ["a"]


def test_failing_info_does_not_break_predictions() -> None:
    client = Client(make_model(predict_on_matrix=add_up, info=lambda: 1 / 0))
    assert client.ask("GET", INFO).json == {
        "message": "info() of the model failed: ZeroDivisionError: division by zero"
    }
    assert client.invoke({"data": [[1]]}).status == 200


@pytest.mark.parametrize(
    ("document", "prediction"),
    [
        ({"columns": ["a", "b"], "data": [[1, 2]]}, {"prediction": [[1, 2]], "columns": ["a", "b"]}),
        ({"data": [{"a": 1}, {"b": 2}]}, {"prediction": [[1, None], [None, 2]], "columns": ["a", "b"]}),
        ({"data": [{}]}, {"prediction": [[]], "columns": []}),
    ],
)
def test_objects(document: object, prediction: object) -> None:
    client = Client(make_model(init=lambda: "objects", predict_on_objects=lambda objects: objects))
    assert client.invoke(document).json == prediction


@pytest.mark.parametrize("document", [{"data": [[1]]}, {"columns": ["a", "a"], "data": [[1, 2]]}])
def test_objects_need_names(document: object) -> None:
    client = Client(make_model(init=lambda: "objects", predict_on_objects=lambda objects: objects))
    assert client.invoke(document).status == 400


def test_results_that_are_not_dicts_are_returned_unchanged() -> None:
    client = Client(make_model(init=lambda: "objects", predict_on_objects=len))
    assert client.invoke({"data": [{}, {}]}).json == {"prediction": 2, "columns": []}


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        ({"init": None}, "has no function init()"),
        ({"init": lambda: 1 / 0}, "init() of the model failed: ZeroDivisionError"),
        ({"init": lambda: sys.exit(0)}, "SystemExit: 0"),
        ({"init": lambda: ["matrix"]}, "init() of the model returned ['matrix']"),
        ({}, "has no function predict_on_matrix()"),
        ({"init": lambda: "objects"}, "has no function predict_on_objects()"),
        (
            {"init": lambda: "objects", "predict_on_objects": len, "get_object_input_type": lambda: int},
            "objects of type <class 'int'>",
        ),
    ],
)
def test_unsupported_model_is_an_error(functions: dict[str, Callable[[], object]], said: str) -> None:
    with pytest.raises(ModelError) as error:
        make_model(**functions)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "MODEL_LOCATION is not set"),
        ({"MODEL_LOCATION": "/nowhere", "MODEL_ENTRYPOINT": "entrypoint"}, "There is no folder /nowhere"),
        ({"MODEL_LOCATION": str(Path(__file__).parent)}, "MODEL_ENTRYPOINT is not set"),
    ],
)
def test_environment_without_a_valid_model_is_an_error(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Model.from_env(environ)


def test_limits() -> None:
    assert max_body_bytes({}) == 64 * 1024 * 1024
    with pytest.raises(ValueError, match="must be a number of bytes, not '1M'"):
        max_body_bytes({"ODAHU_MAX_BODY_BYTES": "1M"})


@pytest.mark.parametrize("line", [1, object()])
def test_unprintable_exception_of_the_model_is_named(line: object) -> None:
    where: Any = ("f.sql", line, 1, b"select")

    def predict(*_: object, **__: object) -> object:
        raise SyntaxError("q", where)

    answer = Client(make_model(predict_on_matrix=predict)).invoke({"data": [[1]]})
    assert (answer.status, "SyntaxError" in answer.json["message"]) == (500, True)
