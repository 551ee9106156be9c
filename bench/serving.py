"""How fast an image serves beside bare servers with the same model: one command, answers checked before and after.

An ElasticNet of 11 columns answers over loopback from: our runtime (all its checks, logs and metrics on; the model
describes its columns, so that every value is checked), the same with micro-batching, a bare WSGI application on granian
with orjson, the same with JSON of the standard library on gunicorn's threads, and, where their packages can be
installed, MLServer and KServe. Rounds are interleaved, so that a machine that is busy with other things is so for all;
on a virtual one, what was measured while the host took over a twentieth of the processors is measured again. The table
has medians of the rounds' ratios to the bare granian application.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".cache" / "bench-serving"
UV = Path(sys.executable).with_name("uv")
PACKAGES = ("granian==2.8.7", "gunicorn==23.0.0", "orjson==3.13.0", "scikit-learn==1.7.2", "numpy==2.2.6")
PEERS = {"mlserver": ("mlserver==1.7.1", "uvloop<0.22"), "kserve": ("kserve==0.21.0",)}
TICKS = os.sysconf("SC_CLK_TCK")
BARE, THREADS, OURS = "bare granian", "bare gunicorn", "ours"
ODAHU_TO_THREADS = 1154 / 1603  # the public handler beside gunicorn's threads, both measured in one run
START_SECONDS = 0.3
STOLEN, TRIES = 0.05, 4  # a measurement of which the host took more is made again, up to so many times
IMPORT = "the model's own import"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
INVOKE, INFER = "/api/model/invoke", "/v2/models/net/infer"
MODEL = """
    import numpy as np
    from sklearn.linear_model import ElasticNet
    _random = np.random.RandomState(0)
    _x = _random.rand(200, 11)
    _net = ElasticNet(alpha=0.01).fit(_x, _x @ _random.rand(11))
    def predict(rows):
        return _net.predict(np.asarray(rows, dtype=float)).reshape(-1, 1)
"""
FILES = {
    "net.py": MODEL,
    "entrypoint.py": """
        import net
        COLUMNS = [{"name": f"c{number}", "type": "number", "required": True, "example": 0.5} for number in range(11)]
        def init():
            return "matrix"
        def info():
            return COLUMNS, [{"name": "p", "type": "number", "required": True, "example": 0.5}]
        def predict_on_matrix(matrix, provided_columns_names=None):
            return net.predict(matrix), ["p"]
    """,
    "bare.py": """
        import json
        import os
        import net
        import orjson
        def answer(environ, start, loads, dumps):
            body = loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            out = dumps({"prediction": net.predict(body["data"]).tolist(), "columns": ["p"]})
            out = out if isinstance(out, bytes) else out.encode()
            start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(out)))])
            return [out]
        def fast(environ, start):
            return answer(environ, start, orjson.loads, orjson.dumps)
        def plain(environ, start):
            return answer(environ, start, json.loads, json.dumps)
    """,
    "peer_kserve.py": """
        import sys
        import net
        from kserve import InferOutput, InferResponse, Model, ModelServer
        from kserve.protocol.rest.multiprocess.server import RESTServerProcess
        # It kills a worker that has not started after 5 seconds; a busy machine needs more.
        RESTServerProcess.is_alive.__defaults__ = (60,)
        class Net(Model):
            def load(self):
                self.ready = True
            def predict(self, request, headers=None, response_headers=None):
                out = net.predict(request.inputs[0].as_numpy())
                made = InferOutput(name="p", shape=list(out.shape), datatype="FP64", data=out.ravel().tolist())
                return InferResponse(request.id or "1", self.name, [made])
        if __name__ == "__main__":  # its workers import this file again
            model = Net("net")
            model.load()
            ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=int(sys.argv[2])).start([model])
    """,
    "peer_mlserver.py": """
        import net
        from mlserver import MLModel
        from mlserver.codecs import NumpyCodec
        from mlserver.types import InferenceResponse
        class Net(MLModel):
            async def load(self):
                return True
            async def predict(self, payload):
                out = net.predict(NumpyCodec.decode_input(payload.inputs[0]))
                return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("p", out)])
    """,
}


class Case(NamedTuple):
    """A server: its name, how it is started, and which of the two forms of request it takes."""

    name: str
    command: list[str]
    path: str
    environ: dict[str, str]


class Measured(NamedTuple):
    """Requests a second, microseconds of processor time a request, and the share of the machine that others took."""

    rate: float
    cpu: float
    stolen: float


Key = tuple[int, int, int]  # workers, rows, connections
Cell = dict[str, list[Measured]]  # of each server, a round each


def main() -> None:
    """Run the rounds and print the table."""
    options = _options()
    if shutil.which("wrk") is None:
        print("left out: wrk is not installed (apt-get install wrk)")
        return
    results: dict[Key, Cell] = {}
    starts: dict[str, list[float]] = {}
    pythons = _prepare(options.peers, options.before)
    for _ in range(options.rounds):
        starts.setdefault(IMPORT, []).append(_import_seconds(pythons["ours"]))
        for workers in options.workers:
            for case in _cases(pythons, workers, options.only):
                with _Server(case) as server:
                    starts.setdefault(case.name, []).append(server.seconds)
                    for rows in options.rows:
                        server.check(rows)
                        for connections in options.connections:
                            cell = results.setdefault((workers, rows, connections), {})
                            cell.setdefault(case.name, []).append(server.load(rows, connections, options.seconds))
                        server.check(rows)
    options.out.mkdir(parents=True, exist_ok=True)
    document = _document_of(results, starts)
    (options.out / "serving.json").write_text(json.dumps(document, indent=1) + "\n")
    table = "\n".join(_table(results, document))
    (options.out / "serving.md").write_text(table + "\n")
    print(table)
    _plot(results, options.out / "serving.png")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 1000])
    parser.add_argument("--peers", nargs="*", default=list(PEERS), help="of mlserver, kserve")
    before = "folder packager/runtime of another checkout, measured as `ours, before` in the same rounds"
    parser.add_argument("--before", type=Path, help=before)
    parser.add_argument("--only", nargs="+", help=f"servers to measure besides {BARE} and {OURS}; default: all")
    quick = "one round, one worker, 16 and 64 connections, one row"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, default=PLACE, help="folder for serving.md, .json and .png (%(default)s)")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.workers, options.connections, options.rows = 1, [1], [16, 64], [1]
    return options


def _prepare(peers: list[str], before: Path | None) -> dict[str, Path]:
    """Environments, the model's files and our runtime as an image has it."""
    from packager.environment.http_server import fetch_granian  # noqa: PLC0415  (the packager itself is measured nowhere)
    from packager.image.runtime_layer import runtime_contents  # noqa: PLC0415
    from packager.logs.progress import SilentReporter  # noqa: PLC0415
    from packager.settings import Settings  # noqa: PLC0415
    from packager.system.process import run_command  # noqa: PLC0415

    PLACE.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (PLACE / name).write_text(textwrap.dedent(text))
    for rows in (1, 1000):
        for path in (INVOKE, INFER):
            (PLACE / f"{rows}-{path.rpartition('/')[2]}.json").write_text(json.dumps(_document(rows, path)))
    for path in (INVOKE, INFER):
        for rows in (1, 1000):
            body = PLACE / f"{rows}-{path.rpartition('/')[2]}.json"
            script = 'wrk.method="POST"\nwrk.headers["Content-Type"]="application/json"\n'
            script += f'wrk.body=io.open("{body}"):read("a")\n'
            body.with_suffix(".lua").write_text(script)
    config = {"name": "net", "implementation": "peer_mlserver.Net"}
    (PLACE / "model-settings.json").write_text(json.dumps(config))
    pythons = {"ours": _environment("ours", PACKAGES)}
    for peer in peers:
        python = _peer(peer)
        if python is not None:
            pythons[peer] = python
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    work = PLACE / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    server = fetch_granian(
        version,
        workspace=work,
        settings=Settings(cache_dir=PLACE / "cache"),
        run=run_command,
        reporter=SilentReporter(),
        environ=os.environ,
    )
    shutil.rmtree(PLACE / "runtime", ignore_errors=True)
    from pathlib import PurePosixPath  # noqa: PLC0415

    for content in runtime_contents(PurePosixPath("/"), server.vendor):
        target = PLACE / "runtime" / content.destination.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(content.source), target)
    shutil.rmtree(PLACE / "runtime-before", ignore_errors=True)
    if before is not None:
        shutil.copytree(PLACE / "runtime", PLACE / "runtime-before")
        installed = next((PLACE / "runtime-before").rglob("odahu_runtime")).parent
        shutil.rmtree(installed / "odahu_runtime")
        shutil.copytree(before, installed, dirs_exist_ok=True)
    return pythons


def _peer(name: str) -> Path | None:
    try:
        return _environment(name, (*PEERS[name], "scikit-learn"))
    except subprocess.CalledProcessError as error:
        print(f"left out: {name} can't be installed: {error.stderr[-300:].decode()}")
        return None


def _environment(name: str, packages: tuple[str, ...]) -> Path:
    python = PLACE / name / "bin" / "python"
    if not (PLACE / name / ".done").exists():
        print(f"installing {', '.join(packages)}", file=sys.stderr)
        subprocess.run([UV, "venv", "-q", "--clear", "--python", sys.executable, PLACE / name], check=True)
        command: list[str | Path] = [UV, "pip", "install", "-q", "--python", python, *packages]
        subprocess.run(command, check=True, stderr=subprocess.PIPE)
        (PLACE / name / ".done").touch()
    return python


def _cases(pythons: dict[str, Path], workers: int, only: list[str] | None) -> list[Case]:
    own, port = pythons["ours"], str(_free_port())
    where = ["--host", "127.0.0.1", "--port", port, "--workers", str(workers)]
    model = {"MODEL_LOCATION": str(PLACE), "MODEL_ENTRYPOINT": "entrypoint", "ODAHU_MODEL_NAME": "net"}
    ours = [str(own), str(PLACE / "runtime"), "rest", *where]
    granian = [str(own.with_name("granian")), "--interface", "wsgi", "--blocking-threads", "1", "--http", "1"]
    gunicorn = [str(own.with_name("gunicorn")), "-k", "gthread", "--threads", "4", "-b", f"127.0.0.1:{port}"]
    cases = [
        Case(BARE, [*granian, *where, "bare:fast"], INVOKE, {}),
        Case(OURS, ours, INVOKE, model),
        Case("ours, before", [str(own), str(PLACE / "runtime-before"), "rest", *where], INVOKE, model),
        Case("ours, v2", ours, INFER, model),
        Case("ours, batches", [*ours, "--batch-max-size", "64"], INVOKE, model),
        Case(THREADS, [*gunicorn, "-w", str(workers), "bare:plain"], INVOKE, {}),
    ]
    if "kserve" in pythons:
        cases.append(Case("KServe", [str(pythons["kserve"]), "peer_kserve.py", port, str(workers)], INFER, {}))
    if "mlserver" in pythons:
        environ = {"MLSERVER_HTTP_PORT": port, "MLSERVER_HOST": "127.0.0.1", "MLSERVER_METRICS_PORT": str(_free_port())}
        environ |= {
            "MLSERVER_GRPC_PORT": str(_free_port()),
            "MLSERVER_PARALLEL_WORKERS": str(workers if workers > 1 else 0),
        }
        cases.append(Case("MLServer", [str(pythons["mlserver"].with_name("mlserver")), "start", "."], INFER, environ))
    if not (PLACE / "runtime-before").exists():
        cases = [case for case in cases if case.name != "ours, before"]
    return [
        case._replace(environ={**case.environ, "BENCH_PORT": port})
        for case in cases
        if only is None or case.name in (BARE, OURS, *only)
    ]


def _document(rows: int, path: str) -> dict[str, Any]:
    cells = [[(row * 11 + column) % 97 / 97 for column in range(11)] for row in range(rows)]
    if path == INVOKE:
        return {"columns": [f"c{number}" for number in range(11)], "data": cells}
    flat = [cell for row in cells for cell in row]
    return {"id": "1", "inputs": [{"name": "x", "shape": [rows, 11], "datatype": "FP64", "data": flat}]}


class _Server:
    """A server that runs for the time of the block."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.port = int(case.environ["BENCH_PORT"])
        self.seconds = 0.0

    def __enter__(self) -> Self:
        environ = {**os.environ, **self.case.environ, **ONE_THREAD}
        self.log = (PLACE / "server.log").open("wb")
        began = time.monotonic()
        command = self.case.command
        self.process = subprocess.Popen(
            command, cwd=PLACE, env=environ, stdout=self.log, stderr=self.log, start_new_session=True
        )
        while True:
            try:
                self.check(1)
                break
            except (OSError, http.client.HTTPException, AssertionError) as error:
                if time.monotonic() - began > 120 or self.process.poll() is not None:  # noqa: PLR2004
                    self.__exit__()
                    sys.exit(f"{self.case.name} does not start: {error}; see {PLACE / 'server.log'}")
                time.sleep(0.02)
        self.seconds = time.monotonic() - began
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()

    def check(self, rows: int) -> None:
        """See that it answers, with as many numbers as rows, the first of them that of the model."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            body = (PLACE / f"{rows}-{self.case.path.rpartition('/')[2]}.json").read_bytes()
            connection.request("POST", self.case.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            document = json.loads(answer.read())
        finally:
            connection.close()
        assert answer.status == 200, document  # noqa: PLR2004, S101
        got = document["outputs"][0]["data"] if self.case.path == INFER else [row[0] for row in document["prediction"]]
        assert len(got) == rows, document  # noqa: S101
        expected = _FIRST.setdefault(rows, got[0])
        assert abs(got[0] - expected) < 1e-9, (got[0], expected)  # noqa: PLR2004, S101

    def load(self, rows: int, connections: int, seconds: int) -> Measured:
        """Ask as fast as it answers, over so many connections; again where the host gave its processors to others."""
        tries: list[Measured] = []
        while len(tries) < TRIES and (not tries or tries[-1].stolen > STOLEN):
            tries.append(self._load(rows, connections, seconds))
        return min(tries, key=lambda measured: measured.stolen)

    def _load(self, rows: int, connections: int, seconds: int) -> Measured:
        script = PLACE / f"{rows}-{self.case.path.rpartition('/')[2]}.lua"
        before, stolen, every = self._ticks(), *_machine_ticks()
        url = f"http://127.0.0.1:{self.port}{self.case.path}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        if "Non-2xx" in printed:
            sys.exit(f"{self.case.name} answered with errors:\n{printed}")
        count = max(1, int(re.findall(r"(\d+) requests in", printed)[0]))
        rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", printed)[0])
        after, stolen_after, every_after = self._ticks(), *_machine_ticks()
        share = (stolen_after - stolen) / max(every_after - every, 1)
        return Measured(rate, (after - before) / TICKS * 1e6 / count, share)

    def _ticks(self) -> int:
        """Processor time of the server's processes: /proc/PID/stat, fields 14 and 15, by its session."""
        total = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid:
                total += int(fields[11]) + int(fields[12])
        return total


def _machine_ticks() -> tuple[int, int]:
    """The time that the host took from this machine, and all of it: proc_stat(5), the line `cpu`."""
    fields = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


_FIRST: dict[int, float] = {}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _ratio(cell: Cell, name: str, other: str = BARE) -> float:
    pairs = zip(cell[name], cell[other], strict=True)
    return statistics.median(mine.rate / theirs.rate for mine, theirs in pairs)


def _import_seconds(python: Path) -> float:
    """What the model's own import takes, the whole process: the least that any server needs to start."""
    environ = {**os.environ, **ONE_THREAD}
    began = time.monotonic()
    subprocess.run([python, "-c", "import entrypoint"], cwd=PLACE, env=environ, check=True, start_new_session=True)
    return time.monotonic() - began


def _document_of(results: dict[Key, Cell], starts: dict[str, list[float]]) -> dict[str, Any]:
    """All that was measured, and whether the aims were met."""
    cells = [
        {
            "workers": key[0],
            "rows": key[1],
            "connections": key[2],
            "server": name,
            "ratio": round(_ratio(cell, name), 3),
            "rates": [measured.rate for measured in cell[name]],
            "stolen": [round(measured.stolen, 3) for measured in cell[name]],
            "cpu_microseconds": round(statistics.median(measured.cpu for measured in cell[name]), 1),
        }
        for key, cell in sorted(results.items())
        for name in cell
    ]
    seconds = {name: round(statistics.median(values), 2) for name, values in starts.items()}
    return {
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "model_import_seconds": seconds.pop(IMPORT),
        "start_seconds": seconds,
        "aims": list(_aims(results, seconds["ours"] - statistics.median(starts[IMPORT]))),
        "cells": cells,
    }


def _aims(results: dict[Key, Cell], late: float) -> Iterator[str]:
    """Each aim, what it needs and what was measured, with one worker and one row."""
    for connections in (16, 64):
        cell = results.get((1, 1, connections), {})
        wanted = [("ours", BARE, 0.85), ("ours, v2", "KServe", 2.0), ("ours", THREADS, 4 * ODAHU_TO_THREADS)]
        wanted += [("ours, batches", BARE, 1.0)] if connections == 64 else []  # noqa: PLR2004  (as the aim is worded)
        for name, other, least in wanted:
            if name in cell and other in cell:
                got = _ratio(cell, name, other)
                met = "met" if got >= least else "not met"
                yield f"{name} to {other}, {connections} connections: {got:.2f} of {least:.2f}, {met}"
    met = "met" if late <= START_SECONDS else "not met"
    yield f"start of ours over the model's own import: {late:.2f} s of {START_SECONDS:.2f} s, {met}"


def _table(results: dict[Key, Cell], document: dict[str, Any]) -> Iterator[str]:
    names = list(document["start_seconds"])
    load, processors = document["load"], document["processors"]
    yield f"Load {load} on {processors} processors. Requests a second, relative to {BARE}; processor time."
    yield ""
    yield f"| workers | rows | connections | {' | '.join(names)} |"
    yield "|---" * (3 + len(names)) + "|"
    for key, cell in sorted(results.items()):
        cells = [f"{_ratio(cell, name):.2f}, {statistics.median(m.cpu for m in cell[name]):.0f} µs" for name in names]
        yield f"| {' | '.join(map(str, key))} | {' | '.join(cells)} |"
    started = " | ".join(f"{document['start_seconds'][name]:.2f}" for name in names)
    yield f"| seconds to the first answer | | | {started} |"
    yield ""
    yield f"The model's own import: {document['model_import_seconds']:.2f} s."
    yield from (f"- {aim}" for aim in document["aims"])


def _plot(results: dict[Key, Cell], path: Path) -> None:
    try:
        import matplotlib.pyplot as plt  # noqa: PLC0415  (the picture is an extra)
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    figure, axes = plt.subplots(len(results), 1, figsize=(8, 2.4 * len(results)), squeeze=False)
    for (setting, cell), (axis,) in zip(sorted(results.items()), axes, strict=True):
        ratios = [_ratio(cell, name) for name in cell]
        colours = ["tab:blue" if name.startswith("ours") else "tab:grey" for name in cell]
        axis.bar_label(axis.barh(list(cell), ratios, color=colours), fmt="%.2f", padding=2, fontsize=8)
        axis.axvline(1, color="black", linewidth=0.5)
        axis.margins(x=0.12)
        axis.set_title("workers: {}, rows: {}, connections: {}".format(*setting), fontsize=9)
        axis.invert_yaxis()
    figure.supxlabel(f"requests a second, relative to {BARE}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
