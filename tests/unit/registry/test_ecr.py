"""What a connection of type ecr may say, and which of AWS's addresses it asks; nothing leaves this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import boto3
import pytest

from packager.errors import RequestError
from packager.models.connection import Connection
from packager.registry.ecr import Ecr

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


def connection(uri: str = HOST, **spec: str) -> Connection:
    keys = {"keyID": "AKIAIOSFODNN7EXAMPLE", "keySecret": "s3cret"}
    return Connection.model_validate({"id": "my-ecr", "spec": {"type": "ecr", "uri": uri, **keys, **spec}})


def ignore(_secrets: object) -> None:
    """Learn nothing."""


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (connection("r.io/team"), r"its uri is wrong: 'r.io' is no ECR registry; write <account>\.dkr\.ecr"),
        (connection(region="eu-west-2"), "its region eu-west-2 contradicts its uri, which is in eu-west-1"),
        (connection(keySecret=""), "one of keyID and keySecret"),
        (connection(keyID=""), "one of keyID and keySecret"),
        (connection(role="packager"), "its role 'packager' is no ARN"),
    ],
)
def test_wrong_connections(wrong: Connection, expected: str) -> None:
    with pytest.raises(RequestError, match=expected) as caught:
        Ecr(wrong, ignore)
    assert "'my-ecr'" in caught.value.message
    assert "s3cret" not in caught.value.message


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        Ecr(connection("r.io", keyID="", role="x"), ignore)
    assert caught.value.message.count("\n  - ") == 3


class AskedError(Exception):
    """Where a request would have gone."""


def stop(request: AWSPreparedRequest, **_others: object) -> NoReturn:
    raise AskedError(request.url)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 raises the address of a request in its place."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_ECR", "AWS_USE_FIPS_ENDPOINT", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    real = boto3.session.Session.client

    def client(self: boto3.session.Session, name: str, **words: object) -> object:
        made = real(self, name, **words)  # type: ignore[call-overload]
        made.meta.events.register_first("before-send", stop)
        return made

    monkeypatch.setattr(boto3.session.Session, "client", client)


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("host", "role", "expected"),
    [
        ("dkr.ecr.eu-west-1.amazonaws.com", "", "https://api.ecr.eu-west-1.amazonaws.com/"),
        ("dkr.ecr-fips.us-east-1.amazonaws.com", "", "https://api.ecr-fips.us-east-1.amazonaws.com/"),
        ("dkr.ecr.cn-north-1.amazonaws.com.cn", "", "https://api.ecr.cn-north-1.amazonaws.com.cn/"),
        ("dkr-ecr.eu-west-1.on.aws", "", "https://ecr.eu-west-1.api.aws/"),
        ("dkr.ecr.eusc-de-east-1.amazonaws.eu", "", "https://api.ecr.eusc-de-east-1.amazonaws.eu/"),
        ("dkr.ecr.eu-west-1.amazonaws.com", "arn:aws:iam::123456789012:role/r", "https://sts.eu-west-1.amazonaws.com/"),
        (
            "dkr.ecr.cn-north-1.amazonaws.com.cn",
            "arn:aws-cn:iam::123456789012:role/r",
            "https://sts.cn-north-1.amazonaws.com.cn/",
        ),
    ],
)
def test_the_uri_decides_which_address_is_asked(host: str, role: str, expected: str) -> None:
    with pytest.raises(AskedError) as caught:
        Ecr(connection(f"123456789012.{host}/team", role=role), ignore).credential()
    assert str(caught.value) == expected


@pytest.mark.usefixtures("asked")
def test_an_address_of_ones_own_stands_as_for_a_private_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", "https://ecr.private.example")
    with pytest.raises(AskedError) as caught:
        Ecr(connection("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com"), ignore).credential()
    assert str(caught.value) == "https://ecr.private.example/"
