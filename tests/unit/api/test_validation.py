from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from packager.api.arguments import check_arguments, check_schema, check_value
from packager.models.resources import read_quantity
from tests.unit.api_builders import DOCKER_REST, furnish, make_client, make_service, packaging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

PACKAGING, INTEGRATION = "/api/v1/model/packaging", "/api/v1/packaging/integration"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with make_client(make_service(tmp_path_factory.mktemp("service"))) as client:
        yield furnish(client)


PUSH = {"name": "docker-push", "connectionName": "registry"}


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"artifactName": ""}, ["artifactName is empty or missing"]),
        ({"artifactName": "../x.zip"}, ["artifactName is '../x.zip'"]),
        ({"artifactName": "/x.zip"}, ["must be the path of a zip below"]),
        ({"integrationName": ""}, ["integrationName is empty or missing"]),
        ({"integrationName": "none"}, ['integrationName: entity "none" is not found']),
        ({"arguments": {"ports": 1}}, ["argument 'ports' is unknown"]),
        ({"arguments": {"port": "1"}}, ["argument 'port': '1' is not of type 'integer'"]),
        (
            {"arguments": {"port": 0, "workers": True}},
            ["argument 'port': 0 is less", "argument 'workers': True is not"],
        ),
        ({"arguments": {"imageName": "{{ Nome }}"}}, ["Nome"]),
        ({"arguments": {"imageName": "{{ Nome }}", "port": 0}}, ["Nome", "argument 'port'"]),
        ({"arguments": {"dockerfileBaseImage": "a b"}}, ["dockerfileBaseImage"]),
        ({"arguments": {"check": "sometimes"}}, ["argument 'check': 'sometimes' is not one of ['auto', 'always',"]),
        ({"targets": []}, ["target 'docker-push' is required"]),
        ({"targets": [PUSH, PUSH]}, ["target 'docker-push' is given twice"]),
        ({"targets": [PUSH, {"name": "pypi"}]}, ["target 'pypi' is unknown"]),
        ({"targets": [{"name": "docker-push"}]}, ["target 'docker-push' names no connection"]),
        ({"targets": [{**PUSH, "connectionName": "x"}]}, ["target 'docker-push': entity \"x\" is not found"]),
        ({"targets": [{**PUSH, "connectionName": "store"}]}, ["is of type 's3'; allowed: docker, ecr"]),
        ({"targets": [], "arguments": {"imageName": "{{ Nome }}"}}, ["is required", "Nome"]),
        ({"outputConnection": "x"}, ['outputConnection: entity "x" is not found']),
        ({"outputConnection": "registry"}, ["of type 'docker'; allowed: s3, gcs, azureblob"]),
        ({"resources": {"limits": {"cpu": "x"}}}, ["resources.limits.cpu: 'x' is not a quantity"]),
        ({"resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "1025Mi"}}}, ["memory is above"]),
        ({"resources": {"limits": {"cpu": True}}}, ["cpu"]),
        ({"nodeSelector": {"disk": 1}}, ["nodeSelector.disk"]),
    ],
)
def test_invalid_packaging_is_refused_with_its_problems(
    client: httpx.Client, changes: dict[str, Any], problems: list[str]
) -> None:
    answer = client.post(PACKAGING, json=packaging(**changes))
    assert answer.status_code == 400, answer.text
    for problem in problems:
        assert problem in answer.json()["message"]
    lines = answer.json()["message"].splitlines()
    assert len(lines) == len(set(lines))
    assert client.get(PACKAGING).json() == []


@pytest.mark.parametrize("entity_id", ["", "A", "a_b", "-a", "a-", "a" * 64, "a/b", "ä"])
def test_invalid_id_is_refused(client: httpx.Client, entity_id: str) -> None:
    for path, entity in ((PACKAGING, packaging()), (INTEGRATION, DOCKER_REST)):
        assert client.post(path, json={**entity, "id": entity_id}).status_code == 400


def test_all_problems_of_a_packaging_are_in_one_message(client: httpx.Client) -> None:
    invalid = packaging("A", artifactName="", targets=[], arguments={"port": 0}, resources={"limits": {"gpu": "-1"}})
    message = client.post(PACKAGING, json=invalid).json()["message"]
    assert [line.split()[1] for line in message.splitlines()[1:]] == [
        "id:",
        "artifactName",
        "resources.limits.gpu:",
        "argument",
        "target",
    ]


def test_output_connection_is_required_without_models_dir(tmp_path: Path) -> None:
    with make_client(make_service(tmp_path, output_connection="")) as client:
        furnish(client)
        assert "outputConnection is missing" in client.post(PACKAGING, json=packaging()).json()["message"]
        assert client.post(PACKAGING, json=packaging(outputConnection="store")).status_code == 201
    with make_client(make_service(tmp_path, output_connection="", models_dir=tmp_path)) as client:
        assert client.post(PACKAGING, json=packaging("other")).status_code == 201


SLOW, SLOWLY = "^(a|aa)+$", "a" * 60 + "b"  # takes years without a time limit


def integration(argument: dict[str, Any] | None = None, **schema: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(DOCKER_REST))
    made["id"] = "mine"
    made["spec"]["entrypoint"] = "/opt/my-packager"
    properties = [
        {"name": "level", "parameters": [{"name": name, "value": value} for name, value in (argument or {}).items()]}
    ]
    made["spec"]["schema"] = {"targets": [], "arguments": {"properties": properties, "required": []}, **schema}
    return made


def test_packaging_is_validated_against_a_custom_integration(client: httpx.Client) -> None:
    mine = integration({"type": "integer", "enum": [1, 2], "default": 2})
    mine["spec"]["schema"]["targets"] = [{"name": "source", "connectionTypes": ["git"], "default": "registry"}]
    assert client.post(INTEGRATION, json=mine).status_code == 201
    answer = client.post(PACKAGING, json=packaging("own", integrationName="mine", targets=[]))
    assert "connection 'registry' is of type 'docker'; allowed: git" in answer.json()["message"]
    mine["spec"]["schema"]["targets"][0]["connectionTypes"] = []
    assert client.put(INTEGRATION, json=mine).status_code == 200
    answer = client.post(PACKAGING, json=packaging("own", integrationName="mine", targets=[]))
    assert answer.status_code == 201, answer.text
    assert answer.json()["spec"]["arguments"] == {"level": 2}
    assert answer.json()["spec"]["targets"] == [{"name": "source", "connectionName": "registry"}]
    wrong = packaging("other", integrationName="mine", targets=[], arguments={"level": 3})
    assert "argument 'level': 3 is not one of [1, 2]" in client.post(PACKAGING, json=wrong).json()["message"]
    for path in (f"{PACKAGING}/own", f"{INTEGRATION}/mine"):
        assert client.delete(path).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (integration({"type": "whole"}), "not a valid JSON Schema"),
        (integration({"type": "integer", "default": "x"}), "the default of argument 'level'"),
        (integration({"pattern": "("}), "not a valid JSON Schema"),
        (integration({"pattern": SLOW, "default": SLOWLY}), "takes too long to match"),
        (integration({"properties": {"a": {"patternProperties": {"b": {}}}}}), "patternProperties is not supported"),
        (integration({"$ref": "http://127.0.0.1:9/x", "default": 1}), "has a reference that is unresolvable"),
        (integration(arguments={"properties": [{"name": "a"}, {"name": "a"}]}), "argument 'a' is given twice"),
        (integration(arguments={"properties": [], "required": ["b"]}), "required argument 'b' is unknown"),
        (integration(targets=[{"name": "t", "connectionTypes": ["ftp"]}]), "connection type 'ftp' is unknown"),
        (integration(targets=[{"name": "t"}, {"name": "t"}]), "target 't' is given twice"),
    ],
)
def test_invalid_integration_is_refused(client: httpx.Client, wrong: dict[str, Any], problem: str) -> None:
    answer = client.post(INTEGRATION, json=wrong)
    assert answer.status_code == 400, answer.text
    assert problem in answer.json()["message"]


def test_slow_pattern_is_reported_once() -> None:
    schema = {"properties": {f"a{number}": {"pattern": SLOW} for number in range(100)}, "required": []}
    problems = check_arguments(schema, {f"a{number}": SLOWLY for number in range(100)})
    assert list(problems) == ["a0"]
    assert check_value({"pattern": "^[a-z]+$"}, "abc") == []
    assert check_value({"pattern": "^[a-z]+$"}, 1) == []
    assert check_value({"items": {"pattern": "^a"}}, ["a", "b"]) == [("[1]", "'b' does not match '^a'")]


def test_schema_references_are_never_fetched() -> None:
    assert check_value({"$ref": "http://127.0.0.1:9/x"}, 1)
    assert check_value({"$ref": "#"}, 1)
    assert check_schema({"type": "integer"}) == ""


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1", 1), ("500m", 0.5), ("1.5", 1.5), ("2k", 2000), ("1Gi", 1 << 30), ("1e3", 1000), ("1E", 10**18), ("0", 0)],
)
def test_quantity_is_read_as_its_amount(text: str, amount: float) -> None:
    assert float(read_quantity(text)) == amount


@pytest.mark.parametrize("text", ["", "-1", "1 Gi", "1g", "Gi", "nan", "inf", "1e", "0x1", "1ki", "1mi"])
def test_invalid_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        read_quantity(text)
