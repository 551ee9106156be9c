from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

import pytest

from packager.errors import RequestError
from packager.models.connection import Connection
from packager.models.documents import read_documents, read_packaging_manifest

PACKAGING = """
id: wine
spec:
  integrationName: docker-rest
  artifactName: wine.zip
  arguments: {workers: 4}
  targets: [{name: docker-push, connectionName: hub}]
"""
CONNECTION = """
kind: Connection
id: hub
spec: {type: docker, uri: localhost:5000, username: ann, password: cGFzcw==}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_packaging_is_resolved_with_its_connection_and_the_secret_decoded(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", f"{PACKAGING}---{CONNECTION}")
    manifest = read_documents([path]).pick(None)
    assert manifest.model_packaging.spec.arguments == {"workers": 4}
    assert manifest.targets[0].connection.spec.password.get_secret_value() == "pass"
    assert manifest.secrets() == ["pass"]
    assert "pass'" not in repr(manifest)


def test_a_folder_is_read_whole_and_one_packaging_is_picked(tmp_path: Path) -> None:
    write(tmp_path, "deep/a.yaml", PACKAGING)
    write(tmp_path, "b.yml", PACKAGING.replace("id: wine", "id: beer"))
    write(tmp_path, "c.json", json.dumps({"kind": "Connection", "id": "hub", "spec": {"type": "docker", "uri": "x"}}))
    write(tmp_path, "notes.txt", "not: [read")
    documents = read_documents([tmp_path])
    assert documents.pick("beer").model_packaging.id == "beer"
    with pytest.raises(RequestError, match="the files hold 2 packagings") as caught:
        documents.pick(None)
    assert "beer, wine" in caught.value.hint
    with pytest.raises(RequestError, match="no ModelPackaging 'gin'"):
        documents.pick("gin")


def test_an_integration_brings_its_default_connection(tmp_path: Path) -> None:
    integration = """
kind: PackagingIntegration
id: docker-rest
spec: {schema: {targets: [{name: docker-push, connectionTypes: [docker], required: true, default: hub}]}}
"""
    packaging = PACKAGING.replace("  targets: [{name: docker-push, connectionName: hub}]\n", "")
    path = write(tmp_path, "a.yaml", f"{packaging}---{integration}---{CONNECTION}")
    assert [target.connection.id for target in read_documents([path]).pick("wine").targets] == ["hub"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod\nid: a", "kind 'Pod' is unknown"),
        ("[1, 2]", "is not a mapping"),
        ("a: [1", "line 1, column 6: neither JSON nor YAML"),
        (PACKAGING + "---" + PACKAGING, "a ModelPackaging 'wine' was read before"),
        (PACKAGING.replace("id: wine", "id: Wine_1"), "id: string should match pattern"),
        (PACKAGING.replace("id: wine", "id: " + "a" * 64), "id: string should have at most 63 characters"),
        (CONNECTION.replace("cGFzcw==", "not base64!"), "spec.password is not base64 text"),
        (CONNECTION.replace("cGFzcw==", "pässwörd"), "spec.password is not base64 text"),
        (CONNECTION.replace("cGFzcw==", "/w=="), "spec.password is not base64 text"),
        (CONNECTION.replace("cGFzcw==", "cGEAc3M="), "spec.password: contains a NUL character"),
        (CONNECTION.replace("ann", '"\\0ann"'), "spec.username: contains a NUL character"),
        (CONNECTION.replace("type: docker, ", ""), "spec.type: field required"),
        (PACKAGING, "connection 'hub', which is in none of the files"),
        ("kind: ModelPackaging\nid: a\nspec: {arguments: [1]}", "spec.arguments: input should be a valid dictionary"),
    ],
)
def test_a_wrong_document_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "a.yaml", text)
    with pytest.raises(RequestError) as caught:
        read_documents([path]).pick(None)
    assert message in caught.value.message


def test_a_wrong_secret_is_not_shown(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", CONNECTION.replace("cGFzcw==", "[hunter2]"))
    with pytest.raises(RequestError) as caught:
        read_documents([path])
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"mp\.json: can't be read: No such file"):
        read_packaging_manifest(tmp_path / "mp.json")


def test_the_platforms_manifest_has_secrets_in_clear_nulls_and_unknown_keys(tmp_path: Path) -> None:
    manifest = {
        "modelPackaging": {"id": "wine", "spec": {"integrationName": "docker-cli", "arguments": None, "newField": 1}},
        "packagingIntegration": None,
        "targets": [
            {
                "name": "docker-push",
                "connection": {"id": "c", "spec": {"type": "docker", "uri": "x", "password": "cGFzcw==", "role": None}},
            }
        ],
        "trainingZipName": "wine.zip",
    }
    read = read_packaging_manifest(write(tmp_path, "mp.json", json.dumps(manifest)))
    assert read.targets[0].connection.spec.password.get_secret_value() == "cGFzcw=="
    assert read.model_packaging.spec.arguments == {}
    as_yaml = read_packaging_manifest(write(tmp_path, "mp.yaml", "modelPackaging: {id: wine}"))
    assert as_yaml.model_packaging.id == "wine"


def test_what_no_parser_can_hold_is_refused_like_any_other_wrong_file(tmp_path: Path) -> None:
    for text in ("[" * 100_000, '{"modelPackaging": ' + "1" * 5000 + "}"):
        with pytest.raises(RequestError):
            read_packaging_manifest(write(tmp_path, "mp.json", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds no packaging manifest"),
        ("{}", "modelPackaging: field required"),
        ("a: b: c", "neither JSON nor YAML"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_packaging_manifest(write(tmp_path, "mp.json", text))
    assert message in caught.value.message


def test_a_secret_that_base64_has_wrapped_is_read(tmp_path: Path) -> None:
    secret = "a key that is longer than one line of base64 " * 4
    document = {
        "kind": "Connection",
        "id": "hub",
        "spec": {"type": "s3", "keySecret": base64.encodebytes(secret.encode()).decode()},
    }
    assert "\n" in document["spec"]["keySecret"].strip()  # type: ignore[index]
    path = write(tmp_path, "a.json", json.dumps(document))
    assert read_documents([path]).connections["hub"].spec.key_secret.get_secret_value() == secret


def test_a_password_that_ends_in_a_line_break_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_documents([write(tmp_path, "a.yaml", CONNECTION)])
    assert not caplog.records
    connections = read_documents([write(tmp_path, "b.yaml", CONNECTION.replace("cGFzcw==", "cGFzcwo="))]).connections
    assert connections["hub"].spec.password.get_secret_value() == "pass\n"
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "connection 'hub'" in record.getMessage()
    assert 'printf %s "$SECRET"' in record.getMessage()
    assert "pass\n" not in record.getMessage()


@pytest.mark.parametrize("text", ["\ud800x", "a\0b"])
@pytest.mark.parametrize("field", ["id", "uri", "username", "password", "keyID", "role"])
def test_what_is_no_text_is_refused_with_its_field(tmp_path: Path, field: str, text: str) -> None:
    connection = {"id": "hub", "spec": {"type": "docker"}}
    (connection if field == "id" else connection["spec"])[field] = text  # type: ignore[index]
    target = {"name": "docker-push", "connection": connection}
    path = write(tmp_path, "mp.json", json.dumps({"modelPackaging": {"id": "wine"}, "targets": [target]}))
    with pytest.raises(RequestError) as caught:
        read_packaging_manifest(path)
    assert f".connection.{'id' if field == 'id' else f'spec.{field}'}: contains a NUL character" in caught.value.message


def test_secrets_of_many_lines_are_text() -> None:
    key = "-----BEGIN-----\nä\U0001f511\n"
    spec = {"type": "git", "keySecret": key}
    assert Connection.model_validate({"id": "a", "spec": spec}).spec.secrets() == [key]
