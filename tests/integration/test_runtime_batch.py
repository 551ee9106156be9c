"""`predict` and `self-check` of docker-cli images, as processes on the oldest Python and on this one."""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import find_python
from tests.integration.test_runtime_processes import MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNTIME = Path(__file__).parents[2] / "packager" / "runtime"
PYTHONS = {"oldest": find_python("3.8") or sys.executable, "newest": find_python("3.13") or sys.executable}
_MEMORY = 100 << 20  # of addresses, which the rows of the test have more of than that
HAS_PYARROW = {"ODAHU_PACKAGES": str(Path(pa.__file__).parents[1])}
MODEL = """
import atexit, os, time

if os.environ.get("MOOD") == "polite":
    atexit.register(print, "goodbye")

def init():
    return "matrix"

def predict_on_matrix(matrix, provided_columns_names=None):
    with open("calls", "a") as calls:
        calls.write("%d " % len(matrix))
    if os.environ.get("MOOD") == "slow" and len(open("calls").read().split()) > 1:
        open("waits", "w").close()
        time.sleep(60)
    if os.environ.get("MOOD") == "short":
        matrix = matrix[:-1]
    if os.environ.get("MOOD") == "renames":
        return matrix, matrix[0]
    return [[row[0], row[1], "ü"] for row in matrix], ["first", "second", "third"]

def info():
    return [{"name": "n", "type": "integer", "example": 1}, {"name": "s", "type": "string", "example": "x"}], []
"""


class BatchHarness(NamedTuple):
    python: str
    folder: Path

    def environ(self, more: Mapping[str, str] = {}) -> dict[str, str]:
        return {"MODEL_LOCATION": str(self.folder / "model"), "MODEL_ENTRYPOINT": "batchy", "LANG": "C", **more}

    def command(self, *words: object) -> list[str]:
        return [self.python, "-B", str(RUNTIME), "cli", *map(str, words)]

    def run(self, *words: object, given: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environ(more),
            cwd=self.folder,
            input=given,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=120,
        )

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"model", "calls"}

    @property
    def calls(self) -> list[int]:
        return [int(word) for word in (self.folder / "calls").read_text().split()]


def make_desk(folder: Path, python: str) -> BatchHarness:
    (folder / "model").mkdir()
    (folder / "model" / "batchy.py").write_text(MODEL, encoding="utf-8")
    return BatchHarness(python, folder)


@pytest.fixture(params=PYTHONS)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> BatchHarness:
    return make_desk(tmp_path, PYTHONS[request.param])


@pytest.fixture
def own(tmp_path: Path) -> BatchHarness:
    """With this Python, for which there is a pyarrow."""
    return make_desk(tmp_path, sys.executable)


def test_tables_of_any_kind_become_tables_of_any_kind(harness: BatchHarness) -> None:
    (harness.folder / "in.csv").write_text("n,s\n1,007\n2,b\n3,c\n")
    done = harness.run("predict", "in.csv", ".", "--chunk-rows", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Prediction is successful. Result file: ./result.csv\n"
    assert harness.calls == [2, 1]
    assert (harness.folder / "result.csv").read_text("utf-8") == "first,second,third\n1,007,ü\n2,b,ü\n3,c,ü\n"

    assert harness.run("predict", "in.csv", "out.jsonl").returncode == 0
    rows = [json.loads(line) for line in (harness.folder / "out.jsonl").read_text("utf-8").splitlines()]
    assert rows[0] == {"first": 1, "second": "007", "third": "ü"}

    (harness.folder / "in.jsonl").write_text('{"s": "x", "n": 4}\n{"n": 5, "s": "y"}\n')
    assert harness.run("predict", "in.jsonl", "out.tsv").returncode == 0
    assert (harness.folder / "out.tsv").read_text("utf-8") == "first\tsecond\tthird\n4\tx\tü\n5\ty\tü\n"

    (harness.folder / "rows.txt").write_text('{"columns": ["n", "s"], "data": [[1, "x"], [2, "y"]]}')
    done = harness.run("predict", "rows.txt", "-", "--chunk-rows", 1, "--output-format", "csv")
    assert (done.returncode, done.stdout) == (0, "first,second,third\n1,x,ü\n2,y,ü\n")
    assert harness.names == {"in.csv", "result.csv", "out.jsonl", "in.jsonl", "out.tsv", "rows.txt"}


def test_batch_reads_stdin_and_writes_stdout(harness: BatchHarness) -> None:
    done = harness.run("predict", "-", "-", "--input-format", "csv", "--delimiter", ";", given="n;s\n1;x\n")
    assert (done.returncode, done.stdout) == (0, "first;second;third\n1;x;ü\n")
    with Path("/dev/full").open("w") as full:
        words = harness.command("predict", "-", "-", "--input-format", "csv")
        ended = subprocess.run(
            words,
            env=harness.environ(),
            cwd=harness.folder,
            input=b"n,s\n1,x\n",
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (ended.returncode, b"Error: Standard output can't be written: No space left" in ended.stderr) == (5, True)
    done = harness.run("predict", "-", "-", given='{"data": [[1, "x"]]}')
    assert json.loads(done.stdout)["prediction"] == [[1, "x", "ü"]]
    assert harness.names == set()


@pytest.mark.parametrize(
    ("name", "text", "words", "more", "code", "said"),
    [
        ("in.csv", "n,s\n1,a\nx,b\n", [], {}, 3, "in.csv: row 2 (line 3), column n: 'x' is not a whole number"),
        ("in.csv", "n,s\n", [], {}, 3, "in.csv has no rows"),
        ("in.jsonl", '[1, "a"]\n[2]\n', [], {}, 3, "in.jsonl: row 2 (line 2) has 1 values"),
        ("in.csv", "n,s\n1,a\n2,b\n", [], {"MOOD": "short"}, 4, "in.csv: rows 1-2: the model returned 1 rows for 2"),
        ("in.parquet", "PAR1", [], {}, 3, "add `pyarrow` to the model's conda file"),
        ("in.csv", "n,s\n1,a\n", ["--output-format", "parquet"], {}, 3, "add `pyarrow` to the model's conda file"),
        ("in.csv", "n,s\n1,a\n", ["--delimiter", "ab"], {}, 2, "is not a single character"),
        ("in.csv", "n,s\n1,a\n", ["--chunk-rows", "0"], {}, 2, "not a whole number"),
    ],
)
def test_error_is_reported_and_leaves_no_file(
    harness: BatchHarness, name: str, text: str, words: list[str], more: dict[str, str], code: int, said: str
) -> None:
    (harness.folder / name).write_text(text)
    (harness.folder / "result.csv").write_text("of last week")
    done = harness.run("predict", name, ".", "--chunk-rows", "2", *words, **more)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert said in done.stderr
    assert harness.names == {name, "result.csv"}
    assert (harness.folder / "result.csv").read_text() == "of last week"


def test_rows_on_which_the_model_fails_are_named(harness: BatchHarness) -> None:
    (harness.folder / "in.jsonl").write_text('["fail", "me"]\n')
    more = {"MODEL_LOCATION": str(MODELS / "moody" / "odahuflow_model"), "MODEL_ENTRYPOINT": "entrypoint"}
    done = harness.run("predict", "in.jsonl", ".", **more)
    assert done.returncode == 4
    assert "Error: in.jsonl: rows 1-1: Exception during prediction: ValueError: me" in done.stderr
    assert "Traceback" in done.stderr
    assert harness.names == {"in.jsonl"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_leaves_no_file(harness: BatchHarness, number: signal.Signals) -> None:
    (harness.folder / "in.csv").write_text("n,s\n1,a\n2,b\n")
    words = harness.command("predict", "in.csv", ".", "--chunk-rows", "1")
    with subprocess.Popen(words, env=harness.environ({"MOOD": "slow"}), cwd=harness.folder) as process:
        deadline = time.monotonic() + 60
        while not (harness.folder / "waits").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert any(name.endswith(".part") for name in harness.names)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert harness.names == {"in.csv", "waits"}


def test_parquet(own: BatchHarness) -> None:
    pq.write_table(pa.table({"n": [1, 2, 3], "s": ["a", "b", "c"]}), own.folder / "in.parquet")
    done = own.run("predict", "in.parquet", ".", "--chunk-rows", 2, **HAS_PYARROW)
    assert done.returncode == 0, done.stderr
    assert own.calls == [2, 1]
    table = pq.read_table(own.folder / "result.parquet")
    assert table.to_pydict() == {"first": [1, 2, 3], "second": ["a", "b", "c"], "third": ["ü"] * 3}
    assert own.run("predict", "in.parquet", "out.csv", **HAS_PYARROW).returncode == 0
    with (own.folder / "out.csv").open(encoding="utf-8") as stream:
        assert list(csv.reader(stream))[1:] == [["1", "a", "ü"], ["2", "b", "ü"], ["3", "c", "ü"]]
    done = own.run("predict", "-", ".", "--input-format", "parquet", **HAS_PYARROW)
    assert (done.returncode, "can't be read from standard input" in done.stderr) == (3, True)
    done = own.run("predict", "in.parquet", "-", **HAS_PYARROW)
    assert (done.returncode, "can't be written to standard output" in done.stderr) == (5, True)


def test_pandas_index_in_parquet_is_dropped(own: BatchHarness) -> None:
    frame = pd.DataFrame({"n": [1, 2], "s": ["a", "b"]}, index=[5, 7])
    frame.to_parquet(own.folder / "in.parquet")
    assert "__index_level_0__" in pq.read_schema(own.folder / "in.parquet").names
    done = own.run("predict", "in.parquet", "out.parquet", **HAS_PYARROW)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(own.folder / "out.parquet")["second"].to_pylist() == ["a", "b"]


def test_aborted_parquet_ends_with_one_message(own: BatchHarness) -> None:
    pq.write_table(pa.table({"n": [1, 2], "s": ["a", None]}), own.folder / "in.parquet")
    done = own.run("predict", "in.parquet", ".", "--chunk-rows", 1, **HAS_PYARROW, MOOD="renames")
    assert done.returncode == 4
    assert done.stderr.startswith("Error: in.parquet: rows 2-2: the model returned the columns")
    assert "Traceback" not in done.stderr
    assert own.names == {"in.parquet"}


def test_memory_is_bounded_by_the_chunk(harness: BatchHarness) -> None:
    with (harness.folder / "in.csv").open("w") as stream:
        stream.write("n,s\n")
        stream.writelines(f"{number},{'x' * 6000}\n" for number in range(20_000))
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY}, {_MEMORY}))"
    limited = [
        sys.executable,
        "-c",
        f"import os, sys; {code}; os.execv(sys.argv[1], sys.argv[1:])",
        *harness.command("predict", "in.csv", ".", "--chunk-rows", "1000"),
    ]
    subprocess.run(limited, env=harness.environ(), cwd=harness.folder, check=True, capture_output=True, timeout=200)
    assert harness.calls == [1000] * 20
    with (harness.folder / "result.csv").open(encoding="utf-8") as lines:
        assert sum(1 for _ in lines) == 20_001


def test_terminal_shows_progress(harness: BatchHarness) -> None:
    (harness.folder / "in.csv").write_text("n,s\n" + "1,a\n" * 5)
    shown = {}
    for words in ((), ("--no-progress",)):
        ours, theirs = pty.openpty()
        try:
            command = harness.command("predict", "in.csv", ".", "--chunk-rows", "2", *words)
            done = subprocess.run(
                command,
                env=harness.environ({"TERM": "xterm"}),
                cwd=harness.folder,
                stdout=subprocess.PIPE,
                stderr=theirs,
                check=True,
            )
            assert done.stdout.startswith(b"Prediction is successful.")
            os.write(theirs, b"<end>")
            seen = b""
            while not seen.endswith(b"<end>"):
                seen += os.read(ours, 65536)
            shown[words] = seen.decode()
        finally:
            os.close(ours)
            os.close(theirs)
    assert "] 100% 5 rows, " in shown[()]
    assert shown[("--no-progress",)] == "<end>"


def test_self_check_of_a_good_model_succeeds(harness: BatchHarness) -> None:
    done = harness.run("self-check", "--format", "json", ODAHU_MODEL_NAME="wine")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report.pop("seconds")) == {"load", "info", "predict"}
    assert report.pop("python").startswith("3.")
    assert report.pop("uid") == os.getuid()
    assert report == {
        "status": "ok",
        "model": "wine",
        "version": "",
        "mode": "matrix",
        "inputs": 2,
        "outputs": 0,
        "sample": "predicted",
    }
    assert harness.run("self-check").stdout.startswith("the model on Python 3.")
    assert harness.calls == [1, 1]


def test_process_forked_by_the_model_has_pythons_own_signal_handlers(harness: BatchHarness, tmp_path: Path) -> None:
    (tmp_path / "forking.py").write_text(
        "import os, signal\n"
        "def init():\n    return 'matrix'\n"
        "def info():\n    return [{'name': 'a', 'type': 'number', 'example': 1}], []\n"
        "def predict_on_matrix(matrix, provided_columns_names=None):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        own = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)\n"
        "        os._exit(own != (signal.SIG_DFL, signal.default_int_handler))\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    return matrix, ['a']\n"
    )
    done = harness.run("self-check", MODEL_LOCATION=str(tmp_path), MODEL_ENTRYPOINT="forking")
    assert done.returncode == 0, done.stderr


def test_self_check_for_rest_predicts_in_two_threads(harness: BatchHarness, tmp_path: Path) -> None:
    (tmp_path / "lazy.py").write_text(
        "import threading\n"
        "own = None\n"
        "def init():\n    return 'matrix'\n"
        "def info():\n    return [{'name': 'a', 'type': 'number', 'example': 1}], []\n"
        "def predict_on_matrix(matrix, provided_columns_names=None):\n"
        "    global own\n"
        "    if own is None:\n"
        "        own = threading.local()\n"
        "        own.value = 1\n"
        "    return [[own.value]], ['one']\n"
    )
    own = {"MODEL_LOCATION": str(tmp_path), "MODEL_ENTRYPOINT": "lazy"}
    assert harness.run("self-check", **own).returncode == 0
    done = harness.run("self-check", "--for", "rest", **own)
    assert done.returncode == 4
    assert "has no attribute 'value'" in done.stderr


def test_output_of_the_model_at_exit_is_not_in_the_result(harness: BatchHarness) -> None:
    done = harness.run("self-check", "--format", "json", MOOD="polite")  # exits without the model's exit hooks
    assert (json.loads(done.stdout)["status"], done.stderr) == ("ok", "")
    done = harness.run("predict", "--input-format", "csv", "-", "-", given="n,s\n1,a\n", MOOD="polite")
    assert (done.stdout, done.stderr) == ("first,second,third\n1,a,ü\n", "goodbye\n")


def test_standard_input_that_is_closed(harness: BatchHarness) -> None:
    words = harness.command("predict", "--input-format", "csv", "-", "-")
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *words]
    done = subprocess.run(shell, env=harness.environ(), capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (3, b"Error: Standard input is closed: there is nothing to read\n")


@pytest.mark.parametrize("closing", [">&-", "", ">&- 2>&-"])  # without: a pipe whose reader is gone
@pytest.mark.parametrize("words", [("info",), ("self-check",), ("predict", "--input-format", "csv", "-", "-")])
def test_closed_reader_of_standard_output_is_an_error(
    harness: BatchHarness, words: tuple[str, ...], closing: str
) -> None:
    program = f'{{ "$@"; echo $? >code; }} {closing}'
    shell = ["sh", "-c", program, "sh", *harness.command(*words)]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            shell,
            env=harness.environ(),
            cwd=harness.folder,
            input="n,s\n1,a\n",
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
            timeout=120,
        )
    finally:
        os.close(writer)
    assert (harness.folder / "code").read_text() == "5\n", done.stderr
    if "2>" not in closing:
        assert done.stderr.splitlines()[-1].startswith("Error: Standard output can't be written: "), done.stderr
        assert "Traceback" not in done.stderr


def test_self_check_reports_why_the_model_fails(harness: BatchHarness) -> None:
    more = {"MODEL_LOCATION": str(MODELS / "broken-init" / "odahuflow_model"), "MODEL_ENTRYPOINT": "entrypoint"}
    done = harness.run("self-check", "--format", "json", **more)
    assert done.returncode == 4
    assert "in read_weights" in done.stderr
    report = json.loads(done.stdout)
    assert (report["status"], report["step"]) == ("failed", "load")
    assert report["error"] == "init() of the model failed: FileNotFoundError: the weights are not in weights.bin"


@pytest.mark.parametrize(("model", "why"), [("no-info", "no info()"), ("objects", "no info()")])
def test_self_check_without_an_example(harness: BatchHarness, model: str, why: str) -> None:
    more = {"MODEL_LOCATION": str(MODELS / model / "odahuflow_model"), "MODEL_ENTRYPOINT": "entrypoint"}
    done = harness.run("self-check", **more)
    assert done.returncode == 0, done.stderr
    assert "not predicted: " in done.stdout
    assert why in done.stdout
