"""The runtime as it runs in the images: real processes, on the oldest Python and the newest that this machine has."""

from __future__ import annotations

import gzip
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pytest

from packager.environment.http_server import fetch_granian
from packager.image.runtime_layer import runtime_contents
from packager.logs.progress import SilentReporter
from packager.settings import Settings
from packager.system.process import run_command
from tests.conftest import find_python
from tests.integration.serving import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODELS = Path(__file__).parents[1] / "data" / "models"
MODEL_FAILED = 4
BAD = 40
DOCUMENT = {"columns": ["features"] * 3, "data": [[1, 2, 3], [4, 5, 6]]}


class Kind(NamedTuple):
    """An interpreter, and what the image has to answer with on it."""

    python: str
    version: str
    server: str


def find_kinds(*wanted: tuple[str, str]) -> list[Kind]:
    found = [(find_python(version), version, server) for version, server in wanted]
    return [Kind(python, version, server) for python, version, server in found if python] or [OWN]


OWN = Kind(sys.executable, f"{sys.version_info.major}.{sys.version_info.minor}", "granian")
KINDS = find_kinds(("3.8", "gunicorn"), ("3.10", "granian"), ("3.13", "granian"))
FASTEST = [kind for kind in KINDS if kind.server == "granian"][-1:]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    return Homes(tmp_path_factory.mktemp("images"), {})


class Homes(NamedTuple):
    """The runtime as it lies in images: the files that the packager plans for it."""

    folder: Path
    made: dict[Kind, Path]

    def of(self, kind: Kind) -> Path:
        if kind not in self.made:
            home = self.made[kind] = self.folder / f"{kind.server}-{kind.version}"
            vendor = None
            if kind.server == "granian":
                work = self.folder / f"{kind.version}-work"
                work.mkdir()
                settings = Settings(cache_dir=Path(os.environ.get("PACKAGER_TEST_CACHE", self.folder / "cache")))
                vendor = fetch_granian(
                    kind.version,
                    workspace=work,
                    settings=settings,
                    run=run_command,
                    reporter=SilentReporter(),
                    environ=os.environ,
                ).vendor
            for content in runtime_contents(PurePosixPath("/"), vendor):
                assert isinstance(content.source, Path)
                target = home / content.destination.relative_to("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(content.source, target)
        return self.made[kind]


class Answer(NamedTuple):
    status: int
    payload: Any
    headers: http.client.HTTPMessage


class Service(NamedTuple):
    process: subprocess.Popen[bytes]
    port: int
    log_file: Path

    def ask(self, method: str, path: str, body: object = None, headers: Mapping[str, str] = {}) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, data, dict(headers))
            response = connection.getresponse()
            text = response.read()
            return Answer(response.status, json.loads(text) if text else None, response.headers)
        finally:
            connection.close()

    def invoke(self, *row: object) -> Answer:
        return self.ask("POST", "/api/model/invoke", {"data": [list(row)]})

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        start = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(40), time.monotonic() - start

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 60
        while text not in self.log:
            assert time.monotonic() < until, self.log
            time.sleep(0.02)


class Runner(NamedTuple):
    python: str
    home: Path
    folder: Path
    server: str

    def environ(self, model: str, **more: str) -> dict[str, str]:
        return {
            "MODEL_LOCATION": str(MODELS / model / "odahuflow_model"),
            "MODEL_ENTRYPOINT": "entrypoint",
            "ODAHU_MODEL_NAME": model,
            "ODAHU_MODEL_VERSION": "1.0",
            "WEB_CONCURRENCY": "gunicorn reads it and wants a number",
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }

    def cli(self, model: str, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, self.home, "cli", *arguments]
        environ = self.environ(model, **more)
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)

    def start(self, model: str, *arguments: str, **more: str) -> Service:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log_file = self.folder / f"{port}.log"
        options = ["--host", "127.0.0.1", "--port", str(port), *arguments]
        with log_file.open("wb") as log:
            command = [self.python, str(self.home), "rest", *options]
            environ = self.environ(model, **more)
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
        return Service(process, port, log_file)

    @contextmanager
    def starting(self, model: str, *arguments: str, **more: str) -> Iterator[Service]:
        service = self.start(model, *arguments, **more)
        try:
            yield service
        finally:
            if service.process.poll() is None:
                os.killpg(service.process.pid, signal.SIGKILL)
            service.process.wait()

    @contextmanager
    def serve(self, model: str, *arguments: str, **more: str) -> Iterator[Service]:
        with self.starting(model, *arguments, **more) as service:
            service.wait_for("serves the model")
            yield service


def make_runner(request: pytest.FixtureRequest, homes: Homes, tmp_path: Path) -> Runner:
    kind: Kind = request.param
    return Runner(kind.python, homes.of(kind), tmp_path, kind.server)


runner = pytest.fixture(params=KINDS, ids=lambda kind: f"{kind.server}-{kind.version}")(make_runner)
own = pytest.fixture(params=[OWN], ids=["own"])(make_runner)
fast = pytest.fixture(params=FASTEST, ids=lambda kind: f"{kind.server}-{kind.version}")(make_runner)


def test_rest_answers_as_documented(runner: Runner) -> None:
    with runner.serve("wine") as service:
        answer = service.ask("POST", "/api/model/invoke", DOCUMENT)
        assert (answer.status, answer.payload) == (200, {"prediction": [[1.375], [4.0]], "columns": ["predictions"]})
        assert (answer.headers["Model-Name"], answer.headers["Model-Version"]) == ("wine", "1.0")
        post = service.ask("GET", "/api/model/info").payload["paths"]["/api/model/invoke"]["post"]
        assert post["parameters"][0]["schema"]["properties"]["columns"]["example"] == ["features"] * 3
        assert service.ask("GET", "/healthcheck").payload == {"status": True}
        assert service.ask("HEAD", "/healthcheck").payload is None
        assert service.ask("GET", "/nowhere?secret=1").status == 404
        assert service.stop()[0] == 0
        assert "GET /nowhere 404" in service.log
        assert "secret" not in service.log


def test_model_and_runtime_never_import_each_others_packages(runner: Runner) -> None:
    with runner.serve("shadowing") as service:
        rows = service.invoke("x", 7).payload["prediction"]
        assert {name: whose for name, whose in rows if whose != "mine"} == {"gunicorn": "my own, and broken"}
        assert service.ask("PUT", "/healthcheck").status == 405
        assert service.stop()[0] == 0
        assert "PUT /healthcheck 405" in service.log


def test_packages_folder_comes_after_the_model_and_before_the_rest(runner: Runner) -> None:
    packages = runner.folder / "packages"
    (packages / "more").mkdir(parents=True)
    (packages / "more.pth").write_text("more\n")
    for path in ("odahu.py", "more/calendar.py", "only_here.py"):
        (packages / path).write_text(f'WHOSE = "{path}"\n')
    model = runner.folder / "model"
    model.mkdir()
    (model / "entrypoint.py").write_text(
        "import odahu, calendar, only_here\n"
        "init = lambda: 'matrix'\n"
        "predict_on_matrix = lambda m, provided_columns_names: "
        "([[odahu.WHOSE, getattr(calendar, 'WHOSE', 'std'), only_here.WHOSE]], [])\n"
    )
    (model / "odahu.py").write_text('WHOSE = "model"\n')
    (runner.folder / "in.json").write_text('{"data": [[1]]}')
    more = {"MODEL_LOCATION": str(model), "ODAHU_PACKAGES": str(packages)}
    done = runner.cli("wine", "predict", runner.folder / "in.json", runner.folder, **more)
    assert done.returncode == 0, done.stderr
    [row] = json.loads((runner.folder / "result.json").read_text())["prediction"]
    assert row[0::2] == ["model", "only_here.py"]


NUMBERED = """
def init():
    return "matrix"

def info():
    types = {0: "number", 1: "integer", "text": "string"}
    return [{"name": name, "type": type_, "required": True} for name, type_ in types.items()], []

def predict_on_matrix(matrix, provided_columns_names=None):
    return [[repr(provided_columns_names), repr(row)] for row in matrix], ["names", "row"]
"""


def test_model_gets_its_own_names_and_types_from_every_format(runner: Runner) -> None:
    (runner.folder / "numbered.py").write_text(NUMBERED)
    more = {"MODEL_LOCATION": str(runner.folder), "MODEL_ENTRYPOINT": "numbered"}
    wanted = ["[0, 1, 'text']", "[1.5, 2, '03']"]
    table = b"1,0,text\n2.0,1.5,03\n"
    named = {"columns": ["0", "text", "1"], "data": [[1.5, "03", 2.0]]}
    tensors = [
        {"name": name, "shape": [1], "datatype": kind, "data": [value]}
        for name, kind, value in (("0", "FP64", 1.5), ("1", "INT64", 2), ("text", "BYTES", "03"))
    ]
    with runner.serve("numbered", **more) as service:
        csv = {"Content-Type": "text/csv"}
        for body, headers in ((named, {}), (table, csv)):
            answer = service.ask("POST", "/api/model/invoke", body, headers)
            assert (answer.status, answer.payload["prediction"]) == (200, [wanted])
        answer = service.ask("POST", "/v2/models/numbered/infer", {"inputs": tensors})
        assert [each["data"][0] for each in answer.payload["outputs"]] == wanted
        answer = service.invoke(1.5, 2, [1, {"a": 2}])
        assert answer.payload["prediction"] == [["None", "[1.5, 2, [1, {'a': 2}]]"]]
        answer = service.ask("POST", "/api/model/invoke", b",0,1,text\n0,1.5,2,03\n", csv)
        assert (answer.status, "to_csv(index=False)" in answer.payload["message"]) == (422, True)
        answer = service.invoke(2**64, 2, "03")
        assert (answer.status, "is beyond 64 bits" in answer.payload["message"]) == (422, True)
    rows = {
        "rows.csv": table,
        "rows.json": json.dumps(named).encode(),
        "rows.jsonl": b'{"text": "03", "1": 2.0, "0": 1.5}',
    }
    for name, text in rows.items():
        (runner.folder / name).write_bytes(text)
        done = runner.cli("numbered", "predict", runner.folder / name, "-", "--output-format", "jsonl", **more)
        assert done.returncode == 0, done.stderr
        assert list(json.loads(done.stdout).values()) == wanted
    (runner.folder / "rows.csv").write_bytes(b",0,1,text\n0,1.5,2,03\n")
    done = runner.cli("numbered", "predict", runner.folder / "rows.csv", "-", **more)
    assert (done.returncode, "to_csv(index=False)" in done.stderr) == (3, True)


@pytest.mark.parametrize(
    ("mood", "argument", "message"),
    [
        ("fail", "no such wine", "Exception during prediction: ValueError: no such wine"),
        ("leave", 0, "Exception during prediction: SystemExit: 0"),
        ("interrupt", "x", "Exception during prediction: KeyboardInterrupt: x"),
        ("misbehave", 5, "predict_on_matrix() returned int, not a pair (matrix, column names)"),
        ("unknown", 0, "a value of type builtins.object can't be represented in JSON"),
    ],
)
def test_error_of_the_model_is_a_500_and_the_worker_goes_on(
    runner: Runner, mood: str, argument: object, message: str
) -> None:
    with runner.serve("moody") as service:
        before = service.invoke("pid", 0).payload
        answer = service.invoke(mood, argument)
        assert answer.status == 500
        assert message in answer.payload["message"]
        assert service.invoke("pid", 0).payload == before
        assert "Traceback" in service.log
        assert "the model starts" in service.log


def test_requests_run_at_once_in_threads_and_workers(runner: Runner) -> None:
    with runner.serve("moody", "--workers", "2", "--threads", "4") as service, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: service.invoke("wait", 1), range(8)))
        assert [answer.status for answer in answers] == [200] * 8
        rows = sorted(answer.payload["prediction"][0] for answer in answers)  # by process, then by begin
        assert any(
            pid == next_pid and next_begin < end
            for (pid, _, end), (next_pid, next_begin, _) in itertools.pairwise(rows)
        ), rows
        assert service.stop()[0] == 0


def test_workers_report_the_same_counts_and_a_new_one_continues(runner: Runner) -> None:
    with runner.serve("moody", "--workers", "2", ODAHU_LOG_FORMAT="json") as service:

        def read() -> set[str]:
            with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics", timeout=30) as answer:
                text = answer.read().decode()
            return {line for line in text.splitlines() if line.startswith('odahu_requests_total{route="inv')}

        def count() -> set[str]:
            return set().union(*(read() for _ in range(20)))

        pids = {service.invoke("pid", 0).payload["prediction"][0][0] for _ in range(30)}
        all_of_them = {'odahu_requests_total{route="invoke",status="200"} 30'}
        wait_until(lambda: read() == all_of_them, "not all are counted")  # each is answered first, and then counted
        assert count() == all_of_them
        os.kill(pids.pop(), signal.SIGKILL)
        wait_until(lambda: service.log.count("serves the model") >= 3, service.log)
        assert count() == all_of_them
        headers = {"Request-Id": "r7", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        service.ask("GET", "/healthcheck", headers=headers)
        assert service.stop()[0] == 0
        entries = [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]
        [entry] = [entry for entry in entries if entry.get("request_id") == "r7"]
        assert (entry["path"], entry["status"], entry["trace_id"]) == ("/healthcheck", 200, "a" * 32)


def test_sigterm_lets_requests_finish(runner: Runner) -> None:
    with runner.serve("moody") as service, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.invoke, "wait", 1.5)
        service.wait_for("the model waits")
        assert service.stop()[0] == 0
        assert answer.result().status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_an_idle_service(runner: Runner, number: signal.Signals) -> None:
    with runner.serve("moody") as service:
        code, seconds = service.stop(number)
        assert code == 0
        assert seconds < 15  # and not the 23 that requests get to finish


def test_signal_stops_a_service_that_loads_its_model(runner: Runner) -> None:
    with runner.starting("moody", INIT_SECONDS="60") as service:
        service.wait_for("the model starts")
        code, seconds = service.stop()
        assert code == 0
        assert seconds < 15


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("broken-init", "FileNotFoundError: the weights are not in weights.bin"),
        ("crashing-init", "a worker died while it loaded the model"),
    ],
)
def test_model_that_can_not_be_loaded_stops_the_service(runner: Runner, model: str, said: str) -> None:
    with runner.starting(model, "--workers", "2") as service:
        assert service.process.wait(60) == MODEL_FAILED
        assert said in service.log
        assert service.log.count("Booting worker") <= 2


def test_simultaneous_requests_share_calls_and_get_their_own_rows(runner: Runner) -> None:
    options = ("--batch-max-size", "8", "--batch-max-latency-ms", "200", "--threads", "1")
    with runner.serve("wine", *options, ODAHU_CHECK_INPUT="false") as service, ThreadPoolExecutor(16) as pool:

        def ask(number: int) -> list[list[float]] | int:
            answer = service.invoke(number, 0, "bad" if number == BAD else 0)
            return answer.status if number == BAD else answer.payload["prediction"]

        answers = list(pool.map(ask, range(48)))
        assert answers == [500 if number == BAD else [[number / 2]] for number in range(48)]
        with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        calls = next(line for line in text.splitlines() if line.startswith("odahu_batch_rows_count"))
        assert float(calls.split()[-1]) < 48


def test_slow_bodies_block_no_other_request(fast: Runner) -> None:
    with fast.serve("wine", "--threads", "1", "--timeout", "2") as service, ExitStack() as clients:
        lines = b"POST /api/model/invoke HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
        address = ("127.0.0.1", service.port)
        slow = [clients.enter_context(socket.create_connection(address, timeout=30)) for _ in range(400)]
        for client in slow:
            client.sendall(lines)
        assert service.invoke(1, 2, 3).status == 200
        assert {client.recv(12) for client in slow} == {b"HTTP/1.1 408"}
        assert service.invoke(1, 2, 3).status == 200


def test_chunked_too_large_and_invalid_requests(runner: Runner) -> None:
    with runner.serve("wine", ODAHU_MAX_BODY_BYTES="200") as service:
        path = "/api/model/invoke"
        chunks = iter([b'{"data": ', b"[[8, 0, 0]]}"])
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        connection.request("POST", path, chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        assert json.loads(connection.getresponse().read())["prediction"] == [[4.0]]
        connection.close()
        assert service.ask("POST", path, b" " * 500).status == 413
        assert service.ask("POST", path).status in (400, 411)
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as raw:
            raw.sendall(b"NONSENSE\r\n\r\n")
            head, body = raw.recv(4096).split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        if runner.server == "gunicorn":
            assert "message" in json.loads(body)


@pytest.mark.parametrize(
    ("after", "status"),
    [(b"0\r\n\r\n", 200), (b"0\r\nX-Sum: 1\r\n\r\n", 200), (b"ZZ\r\n", 400), (b"", 400), (b"1\r\n \r\n" * 60_000, 200)],
    ids=["whole", "trailers", "nonsense", "half-closed", "tiny-chunks"],
)
def test_incomplete_chunked_body_is_not_predicted(runner: Runner, after: bytes, status: int) -> None:
    head = b"POST /api/model/invoke HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    body = b'{"data": [[8, 0, 0]]}'
    if status == 400:
        head = head.replace(b"Trailer", b"Other")
    if len(after) > 100:
        after += b"0\r\n\r\n"
    with runner.serve("wine") as service, socket.create_connection(("127.0.0.1", service.port), timeout=60) as raw:
        raw.sendall(head + b"%x\r\n%s\r\n" % (len(body), body) + after)
        if not after:
            raw.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(raw)
        response.begin()
        assert response.status == status
        assert json.loads(response.read()).keys() == ({"prediction", "columns"} if status == 200 else {"message"})


def test_invalid_rows_are_rejected_with_their_position(runner: Runner) -> None:
    with runner.serve("wine", ODAHU_MAX_ROWS="3") as service:

        def refused(document: object, headers: Mapping[str, str] = {}) -> tuple[int, str]:
            answer = service.ask("POST", "/api/model/invoke", document, headers)
            return answer.status, answer.payload["message"]

        assert refused({"data": [[1, 2, 3], [1, "2", 3]]}) == (
            422,
            'row 1, column 1 ("features"): "2" is a string, not a number (rows count from 0)',
        )
        assert refused({"data": [[1, 2, 3], [1, 2]]}) == (422, '"data"[1] has 2 values, but the first row has 3')
        status, message = refused({"columns": ["features", "other", "features"], "data": [[1, 2, 3]]})
        assert (status, 'unknown: "other" (column 1)' in message) == (422, True), message
        assert refused({"data": [[1, 2, 3]] * 4})[0] == 413
        packed = gzip.compress(b" " * 100_000_000)
        assert refused(packed, {"Content-Encoding": "gzip"})[0] == 413
        status, message = refused(b"x", {"Content-Type": "application/vnd.apache.arrow.stream"})
        assert (status, "add it to the model's conda file" in message) == (415, True), message
        assert refused(DOCUMENT, {"Accept": "application/vnd.apache.arrow.file"})[0] == 406
        table = urllib.request.Request(
            f"http://127.0.0.1:{service.port}/api/model/invoke", b"features,features,features\n1,2,3\n"
        )
        table.add_header("Content-Type", "text/csv")
        table.add_header("Accept", "text/csv")
        with urllib.request.urlopen(table, timeout=30) as answer:
            assert answer.read() == b"predictions\r\n1.375\r\n"


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow_is_read_and_written_with_the_models_pyarrow(own: Runner, kind: str) -> None:
    rows = 100_000
    given = pa.table([pa.array(range(rows), pa.int32()), pa.array([0.5] * rows), pa.nulls(rows)], ["features"] * 3)
    given = given.set_column(2, "features", pa.array([8] * rows).dictionary_encode())
    new, opened = (pa.ipc.new_stream, pa.ipc.open_stream) if kind == "stream" else (pa.ipc.new_file, pa.ipc.open_file)
    sink = pa.BufferOutputStream()
    with new(sink, given.schema) as writer:
        writer.write_table(given)
    media = f"application/vnd.apache.arrow.{kind}"
    with own.serve("wine") as service:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        connection.request(
            "POST", "/api/model/invoke", sink.getvalue().to_pybytes(), {"Content-Type": media, "Accept": media}
        )
        response = connection.getresponse()
        body = response.read()
        connection.close()
        assert (response.status, response.headers["Content-Type"]) == (200, media), body[:500]
        predicted = opened(body).read_all()
        assert predicted.column_names == ["predictions"]
        assert predicted.column(0).to_pylist() == [number / 2 + 1.125 for number in range(rows)]
        assert service.ask("POST", "/api/model/invoke", body, {"Content-Type": media}).status == 422


def test_predict_writes_the_result(runner: Runner) -> None:
    (runner.folder / "in.json").write_text('{"columns": ["features", "features", "features",],\n "data": [[1, 2, 3]]}')
    done = runner.cli("wine", "predict", runner.folder / "in.json", runner.folder)
    result = runner.folder / "result.json"
    assert done.returncode == 0, done.stderr
    assert "line 1" in done.stderr
    assert done.stdout == f"Prediction is successful. Result file: {result}\n"
    expected = '{\n  "prediction": [\n    [\n      1.375\n    ]\n  ],\n  "columns": [\n    "predictions"\n  ]\n}\n'
    assert result.read_text() == expected
    assert sorted(path.name for path in runner.folder.iterdir()) == ["in.json", "result.json"]


def test_info_prints_only_the_schemas(runner: Runner) -> None:
    done = runner.cli("wine", "info")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('Input schema:\n{\n    "columns": {\n        "example": [\n            "features",')
    assert "a word on stdout" in done.stderr


@pytest.mark.parametrize(
    ("model", "text", "output", "code", "said"),
    [
        ("wine", "{", ".", 3, "line 1 column 2"),
        ("wine", None, ".", 3, "can't be read"),
        ("wine", '{"data": [[1, 2, 3]]}', "nowhere", 5, "There is no folder"),
        ("wine", '{"data": [[1, 2, "3"]]}', ".", 3, 'in.json: row 0, column 2 ("features"): "3" is a string'),
        (
            "moody",
            '{"data": [["fail", "me"]]}',
            ".",
            MODEL_FAILED,
            "Error: Exception during prediction: ValueError: me",
        ),
        ("broken-init", '{"data": [["fail", "me"]]}', ".", MODEL_FAILED, "in read_weights"),
    ],
)
def test_predict_reports_an_error_with_its_exit_code(
    runner: Runner, model: str, text: str | None, output: str, code: int, said: str
) -> None:
    if text is not None:
        (runner.folder / "in.json").write_text(text)
    done = runner.cli(model, "predict", runner.folder / "in.json", runner.folder / output)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert not (runner.folder / "result.json").exists()


def test_help_and_usage_do_not_load_the_model(runner: Runner) -> None:
    done = runner.cli("broken-init", "--help")
    assert done.returncode == 0
    assert "predict" in done.stdout
    assert "info" in done.stdout
    assert runner.cli("broken-init").returncode == 2
    assert runner.cli("broken-init", "predict", "one").returncode == 2
