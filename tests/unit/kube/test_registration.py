from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from packager.cli import app
from packager.errors import ClusterAccessError, ClusterError, ClusterUnreachableError
from packager.kube.registration import register_integrations
from packager.models.integrations import APPLICATIONS
from packager.models.integrations.schema import integration
from packager.system.retries import RetryPolicy

RETRIES = RetryPolicy(attempts=5, sleep=lambda _seconds: None)
DOCUMENTS = [integration(application, "packager:1") for application in APPLICATIONS.values()]


class Api(httpx.BaseTransport):
    """An ODAHU API that knows docker-rest already, unless it has something else to answer."""

    def __init__(self, answer: httpx.Response | None = None, *, failures: int = 0) -> None:
        self.asked: list[httpx.Request] = []
        self.answer, self.failures = answer, failures

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.failures:
            self.failures -= 1
            raise httpx.ConnectError("refused")
        if self.answer:
            return self.answer
        known = json.loads(request.content)["id"] == "docker-rest"
        if request.method == "POST" and known:
            return httpx.Response(409, json={"message": 'entity "docker-rest" already exists'})
        return httpx.Response(201 if request.method == "POST" else 200, json={})


def test_new_integration_is_created_and_existing_one_is_replaced() -> None:
    api = Api()
    register_integrations(DOCUMENTS, "https://odahu.example/", "the-token", transport=api)
    assert [(request.method, json.loads(request.content)["id"]) for request in api.asked] == [
        ("POST", "docker-rest"),
        ("PUT", "docker-rest"),
        ("POST", "docker-cli"),
    ]
    assert {str(request.url) for request in api.asked} == {"https://odahu.example/api/v1/packaging/integration"}
    assert {request.headers["authorization"] for request in api.asked} == {"Bearer the-token"}
    assert json.loads(api.asked[2].content)["spec"]["entrypoint"] == "odahu-flow-pack-to-cli"


def test_api_that_starts_late_is_retried() -> None:
    api = Api(failures=3)
    register_integrations(DOCUMENTS, "https://odahu.example", transport=api, retries=RETRIES)
    assert len(api.asked) == 6
    assert "authorization" not in api.asked[0].headers


@pytest.mark.parametrize(
    ("api", "error", "detail"),
    [
        (Api(httpx.Response(401, json={"message": "log in"})), ClusterAccessError, "log in"),
        (Api(httpx.Response(302, headers={"location": "/login"})), ClusterAccessError, "HTTP status 302"),
        (Api(httpx.Response(400, json={"message": "entrypoint is empty"})), ClusterError, "entrypoint is empty"),
        (Api(httpx.Response(500, text="<html>")), ClusterError, "HTTP status 500"),
        (Api(failures=9), ClusterUnreachableError, "refused"),
    ],
)
def test_rejection_is_reported(api: Api, error: type[ClusterError], detail: str) -> None:
    with pytest.raises(error, match=detail):
        register_integrations(DOCUMENTS, "https://odahu.example", transport=api, retries=RETRIES)


def test_command_reads_a_folder_and_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda _self, request: api.handle_request(request))
    (tmp_path / "all.yaml").write_text(CliRunner().invoke(app, ["integrations"]).stdout)
    (tmp_path / "token").write_text("the-token\n")
    words = ["integration", "register", "-f", str(tmp_path), "--api-url", "https://odahu.example"]
    done = CliRunner().invoke(app, [*words, "--token-file", str(tmp_path / "token")])
    assert done.exit_code == 0, done.stderr
    assert "the-token" not in done.output
    assert [request.method for request in api.asked] == ["POST", "PUT", "POST"]
    assert {request.headers["authorization"] for request in api.asked} == {"Bearer the-token"}
    assert CliRunner().invoke(app, [*words, "--token-file", str(tmp_path / "nowhere")]).exit_code == 2
