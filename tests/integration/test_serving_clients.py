"""Clients that others wrote, unmodified, each in an environment of its own, against the server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.serving import make_venv
from tests.integration.test_runtime_processes import FASTEST, KINDS, Homes, Runner, make_runner

if TYPE_CHECKING:
    from tests.integration.test_runtime_processes import Service

pytestmark = pytest.mark.needs("index")

CLIENTS = Path(__file__).parents[1] / "data" / "clients"
SERVERS = [*[kind for kind in KINDS if kind.server == "gunicorn"][:1], *FASTEST]
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,allow_header_conformance,missing_required_header"
)
LONG = "x" * 300
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    return Homes(tmp_path_factory.mktemp("images"), {})


runner = pytest.fixture(params=SERVERS, ids=lambda kind: f"{kind.server}-{kind.version}")(make_runner)


def run_client(client: str, *arguments: str, requirements: tuple[str, ...]) -> Any:
    python = make_venv(client, sys.executable, *requirements)
    done = subprocess.run(
        [python, CLIENTS / f"{client}.py", *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def address(service: Service) -> str:
    return f"127.0.0.1:{service.port}"


def test_tritonclient(runner: Runner) -> None:
    with runner.serve("unruly") as service:
        seen = run_client("triton", address(service), "unruly", requirements=("tritonclient[http]==2.73.0",))
        assert service.invoke("pid", 0).status == 200
    assert (seen["live"], seen["ready"], seen["model ready"]) == (True, True, True)
    assert seen["server"]["extensions"] == ["binary_tensor_data"]
    assert (seen["model"]["name"], seen["model"]["versions"]) == ("unruly", ["1.0"])
    for binary in ("False", "True"):
        assert seen[f"matrix, binary={binary}"] == ["r1", "prediction", ROWS]
        assert seen[f"text, binary={binary}"] == ["r1", "prediction", [["ab", "ü"], ["", LONG]]]
        assert seen[f"columns, binary={binary}"] == ["r1", "prediction", [["1", "true"], ["2", "false"]]]
    assert seen["gzip"] == seen["wanted"] == ["r1", "prediction", ROWS]
    assert seen["gzip both ways"] == ROWS
    assert seen["wrong model"][0] == "404"
    assert seen["wrong model"][1].startswith("Unknown path /v2/models/nobody/infer")
    assert seen["wrong rows"] == ["400", '"inputs"[0] has no rows']


def test_the_model_client_of_the_odahu_sdk(runner: Runner) -> None:
    """It needs `six`, and doesn't say so."""
    with runner.serve("wine") as service:
        seen = run_client("odahu", f"http://{address(service)}", requirements=("odahu-flow-sdk==1.6.1", "six"))
    assert seen["example"] == {"columns": ["features"] * 3, "data": [[0, 0, 0]]}
    assert seen["answers to it"] == ["prediction", "columns"]
    assert seen["invoke"] == {"prediction": [[1.375], [4.0]], "columns": ["predictions"]}
    assert seen["without names"] == {"prediction": [[1.375]], "columns": ["predictions"]}
    assert seen["the example"] == {"prediction": [[0.0]], "columns": ["predictions"]}
    assert "Wrong status code returned: 400" in seen["no rows"]
    assert '"data" has no rows' in seen["no rows"]


def test_schemathesis_finds_no_server_error_and_no_undocumented_response(runner: Runner) -> None:
    python = make_venv("schemathesis", sys.executable, "schemathesis==4.32.5")
    with runner.serve("steady") as service:
        words = ["run", f"http://{address(service)}/openapi.json", "--checks", CHECKS, "--continue-on-failure"]
        options = ["--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--seed", "7", "--no-color"]
        done = subprocess.run(
            [python.with_name("schemathesis"), *words, *options],
            cwd=runner.folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout
        assert "10 selected / 10 total" in done.stdout
        assert service.log.count("Booting worker") == 1
        assert service.stop()[0] == 0
