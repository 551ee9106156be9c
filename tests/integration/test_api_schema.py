"""Schemathesis on the running service: whatever its OpenAPI document allows is asked, and answered as it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document
from tests.integration.api_service import KEY, serve_api
from tests.integration.postgres import serve_postgres
from tests.integration.test_api_client import PACKAGING, REGISTRY, STORE

if TYPE_CHECKING:
    from tests.integration.api_service import ApiService

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(1800)]

# What a document can't say, the service checks all the same: that a URI is one of a registry, that a name is known.
_LEFT_OUT = "positive_data_acceptance"
_CONFIG = """
[parameters]
"path.connection_id" = "test-docker-registry"
"path.packaging_id" = "docker-rest-packager-example"
"path.integration_id" = "docker-rest"
"""


def furnish(service: ApiService) -> None:
    with service.client() as client:
        for path, document in (
            ("packaging/integration", integration_document(INTEGRATION_TYPES["docker-rest"], "packager:1")),
            ("connection", REGISTRY),
            ("connection", STORE),
            ("model/packaging", PACKAGING),
        ):
            answer = client.post(f"/api/v1/{path}", json=document)
            assert answer.status_code == 201, answer.text


def examine(service: ApiService, *words: str) -> str:
    """Run Schemathesis, which fails at any answer that is not as described, and return what it wrote."""
    config = service.folder / "schemathesis.toml"
    config.write_text(_CONFIG)
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--config-file", str(config), "run", f"{service.url}/openapi.json"]
    command += ["--no-color", "--seed", "7"]
    header = ["--header", f"Authorization: Bearer {service.token}"]
    checks = ["--checks", "all", "--exclude-checks", _LEFT_OUT, "--continue-on-failure", "--request-timeout", "60"]
    ended = subprocess.run(
        [*command, *header, *checks, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=service.folder,
        env={"PATH": os.environ["PATH"], "HOME": str(service.folder), "NO_PROXY": "127.0.0.1"},
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{service.log.read_text()[-4000:]}"
    return ended.stdout


def test_responses_conform_to_the_openapi_document(tmp_path: Path) -> None:
    with serve_api(tmp_path / "data", OUTPUT_CONNECTION="models-output") as service:
        check(service, "--phases", "coverage,fuzzing", "--max-examples", "15")


def test_responses_conform_to_the_openapi_document_on_postgresql(tmp_path: Path) -> None:
    """PostgreSQL is stricter than SQLite about texts and numbers; checks that know no database aren't made again."""
    with serve_postgres() as server:
        settings = {"OUTPUT_CONNECTION": "models-output", "DATABASE_URL": server.new_database(), "KEY": KEY}
        with serve_api(tmp_path / "data", **settings) as service:
            check(service, "--phases", "fuzzing", "--max-examples", "15")


def check(service: ApiService, *words: str) -> None:
    furnish(service)
    output = examine(service, *words)
    with service.client() as client:
        methods = [method for each in client.get("/openapi.json").json()["paths"].values() for method in each]
    assert f"Tested: {len(methods)}" in output
    log = service.log.read_text()
    assert "unexpected" not in log
    assert "Traceback" not in log
