from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from packager.errors import RequestError, UsageError
from packager.models.connection import Connection
from packager.models.packaging import PackagingManifest
from packager.sources.stores.location import RemoteModel, held_model, parse_model
from packager.sources.stores.store_secrets import environment_secrets, netrc_secrets

DIGEST = "ab" * 32
SIGNED = "https://bucket.example/wine.zip?X-Amz-Credential=AKIA%2Fscope&X-Amz-Signature=5167a7ure&v=1"


def connection(kind: str, uri: str, **spec: Any) -> Connection:
    return Connection.model_validate({"id": "models", "spec": {"type": kind, "uri": uri, **spec}})


def manifest(holder: Connection | None, name: str) -> PackagingManifest:
    return PackagingManifest.model_validate(
        {"modelPackaging": {"id": "wine"}, "modelHolder": holder, "trainingZipName": name}
    )


@pytest.mark.parametrize("text", ["wine.zip", "./s3://odd", "/models/wine", "C:wine", "s3:/x", ""])
def test_text_that_is_no_url_is_a_path(text: str) -> None:
    assert parse_model(text) == Path(text)


@pytest.mark.parametrize(
    ("text", "scheme", "bucket", "key"),
    [
        ("s3://models/a/wine.zip", "s3", "models", "a/wine.zip"),
        ("S3://models/a b#1%20+.zip", "s3", "models", "a b#1%20+.zip"),
        ("gs://models/wine.zip", "gs", "models", "wine.zip"),
        ("gcs://models/wine.zip", "gs", "models", "wine.zip"),
        ("az://models/wine.zip", "az", "models", "wine.zip"),
        ("abfss://models@wineacc.dfs.core.windows.net/a/wine.zip", "az", "models", "a/wine.zip"),
        ("https://host:8443/a/wine.zip?sig=x", "https", "host:8443", "a/wine.zip"),
        ("http://127.0.0.1:80/wine.zip", "http", "127.0.0.1:80", "wine.zip"),
        ("http://[::1]:80/wine.zip", "http", "[::1]:80", "wine.zip"),
    ],
)
def test_location_is_parsed(text: str, scheme: str, bucket: str, key: str) -> None:
    model = parse_model(text)
    assert isinstance(model, RemoteModel)
    assert (model.scheme, model.bucket, model.key) == (scheme, bucket, key)
    assert str(model) == f"{scheme}://{bucket}/{key}"
    assert model.name == key.rpartition("/")[2].replace("%20", " ")
    assert model.sha256 is None


@pytest.mark.parametrize("place", ["s3://models/wine.zip", "https://host/wine.zip?sig=x", "gs://b/k#1"])
def test_digest_may_follow_every_location(place: str) -> None:
    model = parse_model(f"{place}#sha256={DIGEST.upper()}")
    assert isinstance(model, RemoteModel)
    assert model.sha256 == DIGEST
    assert "sha256" not in model.key + model.query


def test_account_is_read_from_an_azure_uri() -> None:
    model = parse_model("abfss://models@wineacc.dfs.core.windows.net/wine.zip")
    assert isinstance(model, RemoteModel)
    assert model.account == "wineacc"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://host/wine.zip", "scheme 'ftp'"),
        ("file:///wine.zip", "scheme 'file'"),
        ("s3://models", "names no object"),
        ("s3://models/", "names no object"),
        ("s3://models/a/", "names no object"),
        ("s3:///wine.zip", "names no bucket"),
        ("s3://mo dels/wine.zip", "names no bucket"),
        ("s3://models/a//b", "empty part"),
        ("gs://models/../wine.zip", "empty part"),
        ("gs://models/a\nb", "control character"),
        ("abfss://models@evil.example/wine.zip", "names no bucket"),
        ("https:///wine.zip", "not a valid URL"),
        ("https://host:port/wine.zip", "not a valid URL"),
        ("https://host/wine zip", "not a valid URL"),
        ("https://host/wine.zip#part", "fragment"),
        ("http://host/wine.zip", "plain HTTP"),
        ("s3://models/wine.zip#sha256=abc", "64 hexadecimal"),
    ],
)
def test_wrong_location_is_an_error(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_model(text)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_plain_http_needs_a_setting() -> None:
    model = parse_model("http://host:81/wine.zip", insecure_hosts=("host:81",))
    assert isinstance(model, RemoteModel)
    with pytest.raises(UsageError):
        parse_model("http://host:82/wine.zip", insecure_hosts=("host:81",))


@pytest.mark.parametrize("text", ["https://ann:pa55w0rd@host/wine.zip", "https://pa55w0rd@host/wine.zip"])
def test_password_in_the_url_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(UsageError, match="holds a user or a password for host") as caught:
        parse_model(text)
    assert "pa55w0rd" not in f"{caught.value.message}{caught.value.hint}"


def test_signature_is_sent_and_not_shown() -> None:
    model = parse_model(SIGNED)
    assert isinstance(model, RemoteModel)
    assert "5167a7ure" not in f"{model} {model!r} {model.name}"
    assert model.url == SIGNED
    assert {"5167a7ure", "AKIA/scope", "AKIA%2Fscope", SIGNED.partition("?")[2]} <= set(model.secrets())
    assert "1" not in model.secrets()


def test_secrets_of_a_connection_include_their_parts() -> None:
    model = parse_model("az://models/wine.zip")
    assert isinstance(model, RemoteModel)
    sas = connection("azureblob", "models", keySecret="https://acc.blob.core.windows.net/?sv=1&sig=abc%2Fdef")
    assert {"sv=1&sig=abc%2Fdef", "abc/def", "abc%2Fdef"} <= set(model.opened_by([sas]).secrets())
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQ\nIBADAN\n-----END PRIVATE KEY-----\n"
    account = connection("gcs", "gs://models", keySecret=json.dumps({"private_key": key}))
    found = parse_model("gs://models/wine.zip")
    assert isinstance(found, RemoteModel)
    assert {key, "MIIEvQ", "IBADAN"} <= set(found.opened_by([account]).secrets())
    assert environment_secrets({"AWS_SECRET_ACCESS_KEY": "aws", "AZURE_STORAGE_KEY": "", "HOME": "/"}) == ["aws"]


def test_connection_with_the_longest_prefix_is_used() -> None:
    whole, part = connection("s3", "s3://models"), connection("s3", "s3://models/a/")
    others = [connection("s3", "s3://other"), connection("gcs", "gs://models/a"), connection("docker", "models/a")]
    found = parse_model("s3://models/a/wine.zip")
    assert isinstance(found, RemoteModel)
    assert found.opened_by([whole, part, *others]).connection is part
    assert found.opened_by([whole, *others]).connection is whole
    assert found.opened_by(others).connection is None
    near = parse_model("s3://models/ab/wine.zip")
    assert isinstance(near, RemoteModel)
    assert near.opened_by([part]).connection is None


@pytest.mark.parametrize(
    ("kind", "uri", "name", "shown"),
    [
        ("s3", "s3://models/out", "wine.zip", "s3://models/out/wine.zip"),
        ("s3", "s3://models/out/", "a/wine.zip", "s3://models/out/a/wine.zip"),
        ("s3", "s3://models", "wine.zip", "s3://models/wine.zip"),
        ("s3", "models/out", "wine.zip", "s3://models/out/wine.zip"),
        ("gcs", "gs://models/out", "wine.zip", "gs://models/out/wine.zip"),
        ("gcs", "gsc://models/out", "wine.zip", "gs://models/out/wine.zip"),
        ("azureblob", "models/out", "wine.zip", "az://models/out/wine.zip"),
        ("azureblob", "az://models/out", "wine.zip", "az://models/out/wine.zip"),
    ],
)
def test_manifest_names_the_model(kind: str, uri: str, name: str, shown: str) -> None:
    holder = connection(kind, uri)
    model = held_model(manifest(holder, name))
    assert str(model) == shown
    assert model.connection == holder


@pytest.mark.parametrize(
    ("holder", "name", "said"),
    [
        (None, "wine.zip", "no modelHolder"),
        (connection("s3", "s3://models"), "", "trainingZipName is empty"),
        (connection("s3", "s3://models"), "../wine.zip", "trainingZipName is '../wine.zip'"),
        (connection("s3", "s3://models"), "/wine.zip", "trainingZipName is '/wine.zip'"),
        (connection("s3", "s3://models"), "a\\wine.zip", "trainingZipName is"),
        (connection("s3", "s3://models"), "a/", "trainingZipName is"),
        (connection("docker", "models"), "wine.zip", "type 'docker' holds no models"),
        (connection("s3", "gs://models"), "wine.zip", "has the scheme 'gs'"),
        (connection("s3", ""), "wine.zip", "names no bucket"),
        (connection("s3", "s3://models/a/../b"), "wine.zip", "`..`"),
    ],
)
def test_manifest_without_a_model_is_an_error(holder: Connection | None, name: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        held_model(manifest(holder, name))
    assert said in caught.value.message
    assert "wine" in caught.value.message


def test_netrc_logins_are_secrets_plain_and_encoded(tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine a.example login ann password p4ss\ndefault login bob password t0k3n\n")
    sent = {base64.b64encode(pair).decode() for pair in (b"ann:p4ss", b"bob:t0k3n")}
    assert set(netrc_secrets({"NETRC": str(file)})) == {"p4ss", "t0k3n", *sent}


@pytest.mark.parametrize("data", [None, b"machine", b"machine a login b password \xff\n"])
def test_unreadable_netrc_has_no_secrets(tmp_path: Path, data: bytes | None) -> None:
    file = tmp_path / "netrc"
    if data is not None:
        file.write_bytes(data)
    assert netrc_secrets({"NETRC": str(file)}) == []


@pytest.mark.parametrize("host", ["a..b", "xn--", f"{'a' * 64}.example", "é..x", ".example", "xn--a.b\u2025"])
def test_invalid_host_name_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="MODEL is not a valid URL") as caught:
        parse_model(f"https://{host}/wine.zip?sig=5167a7ure")
    assert "5167a7ure" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    "host", ["xn--bcher-kva.example", "bücher.example", "host.", "a_b.example", f"{'a' * 63}.example"]
)
def test_valid_host_names_are_accepted(host: str) -> None:
    model = parse_model(f"https://{host}/wine.zip")
    assert isinstance(model, RemoteModel)
    assert model.bucket == host
