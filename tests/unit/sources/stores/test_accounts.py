from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packager.errors import RequestError, StorageAuthError, UsageError
from packager.models.connection import Connection
from packager.sources.stores import gcs, s3
from packager.sources.stores.azure import Account, read_account
from packager.sources.stores.location import RemoteModel
from packager.sources.stores.objects import ClientEnvironment, read_failure
from packager.sources.stores.tls import authorities
from packager.system.retries import RetryableError

SAS = "sv=2019-02-02&sp=r&sig=5167%2Fa7ure"


def connection(kind: str, **spec: Any) -> Connection:
    return Connection.model_validate({"id": "st", "spec": {"type": kind, "uri": "models", **spec}})


@pytest.mark.parametrize(
    ("spec", "named", "account"),
    [
        ({"keySecret": f"https://acc.blob.core.windows.net/?{SAS}"}, "", Account(name="acc", sas=SAS)),
        ({"keySecret": f"https://acc.blob.core.windows.net?{SAS}"}, "acc", Account(name="acc", sas=SAS)),
        (
            {"keySecret": f"https://acc.blob.core.chinacloudapi.cn/?{SAS}"},
            "",
            Account(name="acc", sas=SAS, endpoint="https://acc.blob.core.chinacloudapi.cn"),
        ),
        (
            {"keySecret": f"http://127.0.0.1:10000/acc?{SAS}"},
            "",
            Account(name="acc", sas=SAS, endpoint="http://127.0.0.1:10000/acc"),
        ),
        ({"keyID": "acc", "keySecret": "aGVsbG8="}, "", Account(name="acc", key="aGVsbG8=")),
        ({"keySecret": "aGVsbG8="}, "acc", Account(name="acc", key="aGVsbG8=")),
        ({"keyID": "acc"}, "", Account(name="acc")),
        ({}, "", Account()),
    ],
)
def test_azure_connection_names_its_account(spec: dict[str, str], named: str, account: Account) -> None:
    assert read_account(connection("azureblob", **spec), named) == account
    assert "5167" not in repr(account)


@pytest.mark.parametrize(
    ("secret", "named", "said"),
    [
        ("aGVsbG8=", "", "no SAS URL, and no keyID"),
        ("https://acc.blob.core.windows.net/?sv=1", "", "without a signature"),
        (f"http://acc.blob.core.windows.net/?{SAS}", "", "plain HTTP"),
        (f"https://acc.blob.core.windows.net/?{SAS}", "other", "the account 'acc'"),
    ],
)
def test_wrong_azure_secret_is_an_error_without_the_secret(secret: str, named: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_account(connection("azureblob", keySecret=secret), named)
    assert said in caught.value.message
    assert "connection 'st'" in caught.value.message
    assert "5167" not in f"{caught.value.message}{caught.value.hint}"


def around(folder: Path) -> ClientEnvironment:
    return ClientEnvironment(environ={}, authorities=None, workspace=folder)


@pytest.mark.parametrize("secret", ["nonsense", "[]", "{}", json.dumps({"private_key": "5167a7ure"})])
def test_wrong_service_account_is_an_error_without_the_secret(secret: str, tmp_path: Path) -> None:
    model = RemoteModel(scheme="gs", bucket="b", key="k", connection=connection("gcs", keySecret=secret))
    with pytest.raises(RequestError, match="connection 'st': its keySecret is not a service account key") as caught:
        gcs.open_store(model, around(tmp_path))
    assert "5167" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(("spec", "said"), [({"keyID": "AKIA"}, "keyID without"), ({"keySecret": "x"}, "keySecret wi")])
def test_half_an_s3_key_is_an_error(spec: dict[str, str], said: str, tmp_path: Path) -> None:
    model = RemoteModel(scheme="s3", bucket="b", key="k", connection=connection("s3", **spec))
    with pytest.raises(RequestError, match=said):
        s3.open_store(model, around(tmp_path))


def test_failed_token_request_is_an_auth_error() -> None:
    # As obstore 0.12 reports that the metadata server of a machine at Google refused.
    report = (
        "Generic GCS error: Error performing token request: Error performing GET http://169.254.169.254/x?audience=a "
        "in 1ms - Server returned non-2xx status code: {status}: no\n\nDebug source:\nGeneric {{\n    "
        "source: TokenRequest {{\n"
    )
    model = RemoteModel(scheme="gs", bucket="b", key="k")
    access = gcs.open_store(RemoteModel(scheme="gs", bucket="b", key="k", connection=KEYED), around(Path())).access
    assert (access.location, access.credential) == (str(model), "connection 'st'")
    refused = read_failure(Exception(report.format(status="403 Forbidden")), access)
    assert isinstance(refused, StorageAuthError)
    assert "connection 'st' gives no credentials" in refused.message
    assert "169.254" not in refused.message
    assert isinstance(read_failure(Exception(report.format(status="503 Busy")), access), RetryableError)


KEYED = connection(
    "gcs",
    keySecret=json.dumps({"private_key": "", "private_key_id": "x", "client_email": "a@b", "disable_oauth": True}),
)


def test_unreadable_authorities_are_named(tmp_path: Path) -> None:
    assert authorities(None, {}) is None
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(UsageError, match=r"PACKAGER_CA_FILE: .*can't be read as PEM"):
        authorities(tmp_path / "ca.pem", {})
    with pytest.raises(UsageError, match="SSL_CERT_FILE"):
        authorities(None, {"SSL_CERT_FILE": str(tmp_path / "none.pem")})
