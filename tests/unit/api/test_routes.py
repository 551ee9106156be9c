from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from packager.api.application import create_app
from packager.api.metrics import PackagingCounts
from tests.unit.api_builders import (
    DOCKER_REST,
    InProcess,
    connection,
    encoded,
    furnish,
    make_client,
    make_service,
    packaging,
    store_connection,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGING, INTEGRATION, CONNECTION = "/api/v1/model/packaging", "/api/v1/packaging/integration", "/api/v1/connection"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    with make_client(make_service(tmp_path)) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "entity", "deleted"),
    [
        (PACKAGING, packaging("x"), "Model packaging x was deleted"),
        (INTEGRATION, {**DOCKER_REST, "id": "x"}, "Packaging integration x was deleted"),
        (CONNECTION, connection("x"), "Connection x was deleted"),
    ],
    ids=["packaging", "integration", "connection"],
)
def test_entity_is_created_edited_and_deleted(
    client: httpx.Client, path: str, entity: dict[str, Any], deleted: str
) -> None:
    furnish(client)
    missing = {"message": 'entity "x" is not found'}
    for answer in (client.get(f"{path}/x"), client.put(path, json=entity), client.delete(f"{path}/x")):
        assert (answer.status_code, answer.json()) == (404, missing)
    created = client.post(path, json=entity)
    assert created.status_code == 201, created.text
    again = client.post(path, json=entity)
    assert (again.status_code, again.json()) == (409, {"message": 'entity "x" already exists'})
    found = client.get(f"{path}/x")
    assert (found.status_code, found.json()) == (200, created.json())
    assert found.json()["createdAt"].endswith("Z")
    # What a client read is what it may send back.
    edited = client.put(path, json={"kind": "Any", **found.json()})
    assert edited.status_code == 200, edited.text
    assert edited.json()["createdAt"] == found.json()["createdAt"]
    assert edited.json()["updatedAt"] >= found.json()["updatedAt"]
    assert edited.json()["spec"] == found.json()["spec"]
    assert edited.json() in client.get(path).json()
    gone = client.delete(f"{path}/x")
    assert (gone.status_code, gone.json()) == (200, {"message": deleted})
    assert client.get(f"{path}/x").status_code == 404


def test_null_counts_as_absent(client: httpx.Client) -> None:
    furnish(client)
    nothing: dict[str, Any] = {
        "image": None,
        "resources": None,
        "nodeSelector": None,
        "outputConnection": None,
        "arguments": None,
    }
    sent = {**packaging(**nothing), "status": None, "createdAt": None, "kind": "ModelPackaging"}
    answer = client.post(PACKAGING, json=sent)
    assert answer.status_code == 201, answer.text


def test_defaults_are_written_into_the_entity(client: httpx.Client) -> None:
    furnish(client)
    created = client.post(PACKAGING, json=packaging(arguments={"workers": 2}, resources={"limits": {"cpu": 1}})).json()
    spec = created["spec"]
    assert spec["arguments"]["workers"] == 2
    assert spec["arguments"]["port"] == 5000
    assert spec["arguments"]["imageName"] == "{{ Name }}-{{ Version }}:{{ RandomUUID }}"
    assert spec["image"] == "packager:1"
    assert spec["outputConnection"] == "store"
    assert spec["resources"] == {"limits": {"cpu": "1"}, "requests": {}}
    assert created["status"] == {"state": "scheduling", "podName": "", "reason": "", "message": "", "results": []}


def test_list_supports_pages_and_filters(client: httpx.Client) -> None:
    furnish(client)
    cli = {**json.loads(json.dumps(DOCKER_REST)), "id": "mine"}
    client.post(INTEGRATION, json=cli)
    for number in range(5):
        name = "mine" if number % 2 else "docker-rest"
        assert client.post(PACKAGING, json=packaging(f"p{number}", integrationName=name)).status_code == 201

    def ids(path: str) -> list[str]:
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()]

    assert sorted(ids(PACKAGING)) == ["p0", "p1", "p2", "p3", "p4"]
    pages = [ids(f"{PACKAGING}?size=2&page={page}") for page in range(4)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert sorted(each for page in pages for each in page) == ["p0", "p1", "p2", "p3", "p4"]
    assert sorted(ids(f"{PACKAGING}?integrationName=mine")) == ["p1", "p3"]
    assert ids(f"{PACKAGING}?integrationName=none%00") == []
    assert ids(f"{CONNECTION}?type=s3") == ["store"]
    assert sorted(ids(f"{CONNECTION}?type=s3&type=docker")) == ["registry", "store"]


@pytest.mark.parametrize("query", ["colour=red", "size=0", "size=10001", "size=x", "page=-1", "page=1&follow=1"])
@pytest.mark.parametrize("path", [PACKAGING, INTEGRATION, CONNECTION])
def test_invalid_query_is_refused(client: httpx.Client, path: str, query: str) -> None:
    answer = client.get(f"{path}?{query}")
    assert answer.status_code == 400
    assert list(answer.json()) == ["message"]


def test_unknown_query_parameter_is_named(client: httpx.Client) -> None:
    assert "colour: unknown parameter" in client.get(f"{PACKAGING}?colour=red&size=x").json()["message"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "field required"),
        (b"{", "not valid JSON"),
        (b"[]", "dictionary"),
        (b'{"id": 1, "spec": {}}', "id: input should be a valid string"),
        (b'{"id": "x"}', "spec: field required"),
        (b'{"id": "x", "spec": {"arguments": {"port": NaN}}}', "NaN is not a JSON number"),
        (b'{"id": "x", "spec": {"arguments": {"port": 1e999}}}', "too large"),
        (b'{"id": "x", "spec": {"arguments": {"host": "\\ud800"}}}', "surrogate"),
        (b'{"id": "x", "spec": {"arguments": {"host\\u0000": ""}}}', "NUL"),
        (b'{"id": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"id": ' + b"1" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_invalid_body_is_refused(client: httpx.Client, body: bytes, why: str) -> None:
    answer = client.post(PACKAGING, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert why.lower() in answer.json()["message"].lower()


def test_body_without_the_json_content_type_is_refused(client: httpx.Client) -> None:
    answer = client.post(CONNECTION, content=json.dumps(connection()), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400
    assert answer.json() == {
        "message": "the body has the type text/plain: send JSON with the header Content-Type: application/json"
    }
    assert client.get(CONNECTION).json() == []


def test_large_body_is_refused(tmp_path: Path) -> None:
    with make_client(make_service(tmp_path, max_body_bytes=2000)) as client:
        body = json.dumps(connection(description="x" * 3000))
        for content in (body, iter([body.encode()])):
            answer = client.post(CONNECTION, content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == 413
            assert list(answer.json()) == ["message"]
        assert client.get(CONNECTION).json() == []


def test_foreign_host_header_is_refused_without_authentication(client: httpx.Client) -> None:
    answer = client.get(CONNECTION, headers={"Host": "evil.example"})
    assert answer.status_code == 400
    for host in ("127.0.0.1:8080", "localhost", "[::1]:80"):
        assert client.get(CONNECTION, headers={"Host": host}).status_code == 200


def test_only_the_decrypted_route_answers_secrets(client: httpx.Client, tmp_path: Path) -> None:
    sent = connection(username="ann", password=encoded("s3cret-marker"))
    assert client.post(CONNECTION, json=sent).json()["spec"]["password"] == "*****"
    for answer in (client.get(f"{CONNECTION}/registry"), client.get(CONNECTION), client.put(CONNECTION, json=sent)):
        assert "s3cret-marker" not in answer.text
        assert encoded("s3cret-marker") not in answer.text
        assert "*****" in answer.text
    assert client.get(f"{CONNECTION}/registry/decrypted").json()["spec"]["password"] == encoded("s3cret-marker")
    for file in tmp_path.iterdir():
        assert b"s3cret-marker" not in file.read_bytes()
        assert encoded("s3cret-marker").encode() not in file.read_bytes()


def test_masked_secret_in_an_edit_keeps_the_old_one(client: httpx.Client) -> None:
    client.post(CONNECTION, json=store_connection())
    seen = client.get(f"{CONNECTION}/store").json()
    seen["spec"]["keyID"] = encoded("another")
    seen["spec"]["region"] = "eu-west-1"
    assert client.put(CONNECTION, json=seen).json()["spec"]["keySecret"] == "*****"
    found = client.get(f"{CONNECTION}/store/decrypted").json()["spec"]
    assert (found["keySecret"], found["keyID"], found["region"]) == (encoded("hush"), encoded("another"), "eu-west-1")


def test_vital_connection_cannot_be_deleted(client: httpx.Client) -> None:
    client.post(CONNECTION, json=connection(vital=True))
    answer = client.delete(f"{CONNECTION}/registry")
    assert answer.status_code == 400
    assert "vital" in answer.json()["message"]
    client.put(CONNECTION, json=connection(vital=False))
    assert client.delete(f"{CONNECTION}/registry").status_code == 200


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"type": "ftp"}, ["type 'ftp' is unknown"]),
        ({"uri": ""}, ["uri is empty"]),
        ({"uri": "https://host/x"}, ["has the scheme 'https'"]),
        ({"username": "", "password": encoded("x")}, ["it has a password but no user name"]),
        ({"uri": "ann:secret@host/x"}, ["its uri holds a user or a password"]),
        ({"type": "s3", "uri": ""}, ["uri is empty or missing"]),
        ({"type": "git", "uri": "https://ann:secret@host/x.git"}, ["uri contains a password"]),
        ({"password": "no base64!"}, ["spec.password is not base64"]),
        ({"password": "*****", "uri": ""}, ["password is *****", "uri is empty"]),
        ({"password": encoded("a\0b")}, ["NUL"]),
    ],
)
def test_invalid_connection_is_refused(client: httpx.Client, changes: dict[str, Any], problems: list[str]) -> None:
    answer = client.post(CONNECTION, json=connection(**changes))
    assert answer.status_code == 400
    for problem in problems:
        assert problem in answer.json()["message"]
    assert client.get(CONNECTION).json() == []


def test_results_are_removed_by_an_edit(client: httpx.Client) -> None:
    furnish(client)
    client.post(PACKAGING, json=packaging())
    results = [{"name": "image", "value": "localhost:5000/models/wine:1"}]
    answer = client.put(f"{PACKAGING}/wine/result", json=results)
    assert (answer.status_code, answer.json()) == (200, results)
    assert client.get(f"{PACKAGING}/wine").json()["status"]["results"] == results
    client.put(PACKAGING, json=client.get(f"{PACKAGING}/wine").json())
    assert client.get(f"{PACKAGING}/wine").json()["status"]["results"] == []
    assert client.put(f"{PACKAGING}/none/result", json=results).status_code == 404


def test_each_change_is_in_the_audit_log(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "packager.audit"):
        furnish(client)
        client.get(CONNECTION)
        client.get(f"{CONNECTION}/store/decrypted")
        client.delete(f"{CONNECTION}/store")
        client.delete(f"{CONNECTION}/store")
    lines = [record.getMessage() for record in caplog.records if record.name == "packager.audit"]
    assert lines == [
        "audit: anonymous created integration docker-rest from 192.0.2.7",
        "audit: anonymous created connection registry from 192.0.2.7",
        "audit: anonymous created connection store from 192.0.2.7",
        "audit: anonymous read the secrets of connection store from 192.0.2.7",
        "audit: anonymous deleted connection store from 192.0.2.7",
    ]


def test_hanging_database_blocks_one_readiness_check_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thaw, asked = threading.Event(), []

    def check() -> None:
        asked.append(1)
        thaw.wait(60)

    service = make_service(tmp_path)
    monkeypatch.setattr(service.store, "check", check)
    monkeypatch.setattr("packager.api.routes.about._READY_TIMEOUT", 0.01)
    with make_client(service) as client:
        assert [client.get("/ready").status_code for _ in range(3)] == [503] * 3
        assert (asked, client.get("/health").status_code) == ([1], 200)
        thaw.set()
        deadline = time.monotonic() + 60
        while client.get("/ready").status_code != 200:
            assert time.monotonic() < deadline


def test_about_and_health_routes_describe_the_service(client: httpx.Client) -> None:
    assert client.get("/api/v1/user/info").json() == {"username": "anonymous", "email": ""}
    assert client.get("/api/v1/configuration").json()["packaging"]["outputConnectionID"] == "store"
    assert client.get("/health").json() == {"message": "ok"}
    assert client.get("/ready").status_code == 200
    furnish(client)
    client.post(PACKAGING, json=packaging())
    metrics = client.get("/metrics").text
    assert 'packager_api_packagings{state="scheduling"} 1.0' in metrics
    assert 'packager_api_requests_total{method="POST",route="/api/v1/connection",status="201"} 2.0' in metrics


def test_metrics_keep_the_last_counts_while_the_database_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, now = make_service(tmp_path).store, [100.0]
    monkeypatch.setattr("packager.api.metrics.time.monotonic", lambda: now[0])
    collector = PackagingCounts(store)

    def samples() -> list[dict[str, float]]:
        return [{each.labels["state"]: each.value for each in gauge.samples} for gauge in collector.collect()]

    def away() -> dict[str, int]:
        raise OperationalError("SELECT", {}, OSError("the database is away"))

    with monkeypatch.context() as patch:
        patch.setattr(store.packagings, "counts", away)
        assert samples() == []
    now[0] += 10
    monkeypatch.setattr(store.packagings, "counts", lambda: {"running": 3})
    assert samples()[0]["running"] == 3
    now[0] += 10
    monkeypatch.setattr(store.packagings, "counts", away)
    assert samples()[0]["running"] == 3
    store.close()


class _Runner:
    """Counts how often it is woken."""

    def __init__(self) -> None:
        self.supervisor = self
        self.woken = 0

    def start(self) -> None:
        """Begin nothing."""

    def close(self) -> None:
        """End nothing."""

    def wake(self) -> None:
        self.woken += 1


def test_each_packaging_change_wakes_the_runner(tmp_path: Path) -> None:
    runner = _Runner()
    app = create_app(make_service(tmp_path), runner)  # type: ignore[arg-type]
    with httpx.Client(transport=InProcess(app), base_url="http://localhost") as client:
        furnish(client)
        assert runner.woken == 0
        client.post(PACKAGING, json=packaging())
        assert client.post(PACKAGING, json=packaging()).status_code == 409
        client.put(PACKAGING, json=packaging())
        client.get(f"{PACKAGING}/wine")
        client.delete(f"{PACKAGING}/wine")
    assert runner.woken == 3


def test_unknown_paths_and_methods_are_answered_with_a_message(client: httpx.Client) -> None:
    assert (client.get("/api/v1/none").status_code, list(client.get("/api/v1/none").json())) == (404, ["message"])
    answer = client.patch(PACKAGING, json={})
    assert (answer.status_code, list(answer.json())) == (405, ["message"])
    assert answer.headers["Allow"] == "GET, POST, PUT"
    assert client.patch(f"{PACKAGING}/x").headers["Allow"] == "DELETE, GET"
    assert client.post("/metrics").headers["Allow"] == "GET"


@pytest.mark.parametrize("entity_id", ["%00", "A", "a%0ab", "..%2f..", "%ed%a0%80", "x" * 5000])
def test_unusual_id_is_not_found(client: httpx.Client, entity_id: str) -> None:
    for path in (PACKAGING, INTEGRATION, CONNECTION):
        assert client.get(f"{path}/{entity_id}").status_code == 404
        assert client.delete(f"{path}/{entity_id}").status_code == 404


def test_unexpected_error_reveals_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = make_service(tmp_path)
    with make_client(service) as client:
        service.store.packagings.get_json = None  # type: ignore[method-assign,assignment]
        answer = client.get(f"{PACKAGING}/x")
    assert answer.status_code == 500
    assert answer.json() == {"message": "unexpected error; see the log of the service"}
    assert "unexpected TypeError at GET /api/v1/model/packaging/x" in caplog.text
