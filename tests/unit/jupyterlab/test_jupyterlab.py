from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from packager.errors import RequestError, ServiceError
from packager.jupyterlab.access import Access, find_access
from packager.jupyterlab.service import Service
from packager.jupyterlab.submission import read_entities, submit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOKEN = "the-token-marker"
PACKAGING = "kind: ModelPackaging\nid: wine\nspec: {integrationName: docker-rest}\n"
CONNECTION = "kind: Connection\nid: ci\nspec: {type: docker, password: cGFzcw==}\n"


def service_of(answer: Callable[[httpx.Request], httpx.Response], token: str = TOKEN) -> Service:
    access = Access(url="http://api.test", token=token)
    return Service(lambda: access, httpx.MockTransport(answer))


class TestAccess:
    def test_environment_takes_precedence_and_files_are_read_on_each_call(self, tmp_path: Path) -> None:
        token = tmp_path / "token"
        environ = {
            "PACKAGER_API_URL": "https://api.test/",
            "PACKAGER_API_TOKEN_FILE": str(token),
            "HOME": str(tmp_path),
        }
        for text in ("one", "two"):
            token.write_text(f"{text}\n")
            assert find_access(environ) == Access(url="https://api.test", token=text)

    def test_configuration_of_the_odahu_client_is_read(self, tmp_path: Path) -> None:
        (tmp_path / ".odahuflow").mkdir()
        config = tmp_path / ".odahuflow" / "config"
        config.write_text(f"[general]\napi_url = http://localhost:5000\napi_token = {TOKEN}%x\n")
        expected = Access(url="http://localhost:5000", token=f"{TOKEN}%x")
        assert find_access({"HOME": str(tmp_path)}) == expected
        assert find_access({"ODAHUFLOW_CONFIG": str(config)}) == expected

    def test_token_is_sent_only_to_the_url_of_its_source(self, tmp_path: Path) -> None:
        (tmp_path / "config").write_text(f"[general]\napi_url = http://one.test\napi_token = {TOKEN}\n")
        environ = {"PACKAGER_API_URL": "http://other.test", "ODAHUFLOW_CONFIG": str(tmp_path / "config")}
        assert find_access(environ).token is None

    @pytest.mark.parametrize(
        ("environ", "config", "said"),
        [
            ({}, None, "no API service is configured"),
            ({"PACKAGER_API_URL": "localhost:5000"}, None, "PACKAGER_API_URL is not a service URL"),
            ({"PACKAGER_API_URL": f"https://x:{TOKEN}@api.test"}, None, "PACKAGER_API_URL is not a service URL"),
            ({"PACKAGER_API_URL": "http://x", "PACKAGER_API_TOKEN_FILE": "/no/such"}, None, "No such file"),
            ({}, f"{TOKEN}\n", "is not a configuration file of the ODAHU client"),
            ({}, f"[general]\napi_url = {TOKEN}\n", "is not a service URL"),
            ({}, "[general]\n", "no API service is configured"),
        ],
    )
    def test_invalid_configuration_is_reported_without_the_token(
        self, environ: dict[str, str], config: str | None, said: str, tmp_path: Path
    ) -> None:
        if config is not None:
            (tmp_path / "config").write_text(config)
            environ = {**environ, "ODAHUFLOW_CONFIG": str(tmp_path / "config")}
        with pytest.raises(ServiceError, match=said) as refused:
            find_access(environ)
        assert refused.value.hint
        assert TOKEN not in refused.value.message + refused.value.hint

    def test_repr_contains_no_token(self) -> None:
        assert TOKEN not in repr(Access(url="http://x", token=TOKEN))


class TestService:
    def test_request_has_the_token_and_returns_json(self) -> None:
        asked = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append((request.method, str(request.url), request.headers.get("authorization"), request.content))
            return httpx.Response(200, json=[{"id": "wine"}])

        service = service_of(answer)
        assert asyncio.run(service.ask("GET", "/model/packaging", params={"page": "1"})) == [{"id": "wine"}]
        assert asked == [("GET", "http://api.test/api/v1/model/packaging?page=1", f"Bearer {TOKEN}", b"")]

    @pytest.mark.parametrize(
        ("status", "body", "expected", "said"),
        [
            (400, '{"message": "two problems"}', 400, "two problems"),
            (404, '{"message": "entity \\"x\\" is not found"}', 404, 'entity "x" is not found'),
            (409, '{"message": "exists"}', 409, "exists"),
            (401, '{"message": "unknown token"}', 502, "refuses the token: unknown token"),
            (403, '{"message": "read-only"}', 502, "does not allow this: read-only"),
            (500, "<h1>no</h1>", 502, "answered 500: <h1>no</h1>"),
            (503, "", 502, "answered 503: Service Unavailable"),
        ],
    )
    def test_refusal_has_the_message_of_the_service(self, status: int, body: str, expected: int, said: str) -> None:
        service = service_of(lambda _request: httpx.Response(status, text=body))
        with pytest.raises(ServiceError) as refused:
            asyncio.run(service.ask("GET", "/connection"))
        assert refused.value.status == expected
        assert said in refused.value.message

    def test_response_that_is_not_json_is_an_error(self) -> None:
        service = service_of(lambda _request: httpx.Response(200, text="<html>"))
        with pytest.raises(ServiceError, match="is not JSON"):
            asyncio.run(service.ask("GET", "/connection"))

    def test_unreachable_service_is_an_error(self) -> None:
        def refuse(_request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("connection refused")

        with pytest.raises(ServiceError, match=r"at http://api.test is unreachable: connection refused"):
            asyncio.run(service_of(refuse).ask("GET", "/connection"))

    def test_invalid_header_is_not_quoted(self) -> None:
        def refuse(request: httpx.Request) -> httpx.Response:
            raise httpx.LocalProtocolError(f"Illegal header value {request.headers['authorization']}")

        for token in (TOKEN, f"{TOKEN}\N{SNOWMAN}"):
            with pytest.raises(ServiceError) as refused:
                asyncio.run(service_of(refuse, token).ask("GET", "/connection"))
            assert TOKEN not in str(refused.value) + refused.value.hint
            assert refused.value.__cause__ is None

    def test_log_is_streamed_and_a_broken_stream_is_an_error(self) -> None:
        class Broken(httpx.AsyncByteStream):
            async def __aiter__(self) -> Any:
                yield b"one\n"
                yield b"two\n"
                raise httpx.ReadError("reset")

        service = service_of(lambda _request: httpx.Response(200, stream=Broken()))
        parts = []

        async def read() -> None:
            async for part in service.log("/model/packaging/wine/log", follow=True):
                parts.append(part)  # noqa: PERF401  (what came before the error counts)

        with pytest.raises(ServiceError, match="the log stream broke: reset"):
            asyncio.run(read())
        assert parts == [b"one\n", b"two\n"]


class TestSubmission:
    def test_entities_are_created_or_edited_in_order(self) -> None:
        asked = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append((request.method, request.url.path, json.loads(request.content)))
            if request.method == "PUT" and request.url.path.endswith("/packaging"):
                return httpx.Response(404, json={"message": 'entity "wine" is not found'})
            return httpx.Response(200, json={})

        outcomes = asyncio.run(submit(service_of(answer), f"{CONNECTION}---\n{PACKAGING}"))
        assert [(outcome.number, outcome.id, outcome.done) for outcome in outcomes] == [
            (1, "ci", "edited"),
            (2, "wine", "created"),
        ]
        connection = {"id": "ci", "spec": {"type": "docker", "password": "cGFzcw=="}}
        packaging = {"id": "wine", "spec": {"integrationName": "docker-rest"}}
        assert asked == [
            ("PUT", "/api/v1/connection", connection),
            ("PUT", "/api/v1/model/packaging", packaging),
            ("POST", "/api/v1/model/packaging", packaging),
        ]

    def test_first_refusal_stops_the_submission(self) -> None:
        service = service_of(lambda _request: httpx.Response(400, json={"message": "no such type"}))
        outcomes = asyncio.run(submit(service, f"{CONNECTION}---\n{PACKAGING}"))
        assert [(outcome.done, outcome.message) for outcome in outcomes] == [
            ("refused", "no such type"),
            ("not sent", ""),
        ]
        assert outcomes[0].as_json()["kind"] == "Connection"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a: [", "line 1, column 5: "),
            ("", "the file contains no document"),
            ("- 1", "document 1: kind must be one of"),
            ("kind: Pod", "document 1: kind must be one of"),
            (f"{PACKAGING}---\nkind: Connection\n", "document 2: the Connection has no id"),
            ("kind: Connection\nid: 5\n", "the Connection has no id"),
            ("x" * (5 << 20), "larger than 4 MB"),
            ("a: &a [1]\nkind: Connection\nid: x\nb: *a\n", "line 1, column 4: anchors and aliases are not allowed"),
        ],
    )
    def test_invalid_file_is_refused(self, text: str, said: str) -> None:
        with pytest.raises(RequestError) as refused:
            read_entities(text)
        assert said in refused.value.message
