"""Connections of type ecr: their addresses, their problems, and the endpoints of AWS; no request is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import boto3
import pytest

from packager.errors import RequestError
from packager.models.connection import Connection
from packager.registry.ecr import Ecr, EcrUri

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest

ACCOUNT = "123456789012"
HOST = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com"


def connection(uri: str = HOST, **spec: str) -> Connection:
    keys = {"keyID": "AKIAIOSFODNN7EXAMPLE", "keySecret": "s3cret"}
    return Connection.model_validate({"id": "my-ecr", "spec": {"type": "ecr", "uri": uri, **keys, **spec}})


def ignore(_secrets: object) -> None:
    """Register no secret."""


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (connection("r.io/team"), r"its uri is wrong: 'r.io' is not an ECR registry; write <account>\.dkr\.ecr"),
        (connection(region="eu-west-2"), "its region eu-west-2 contradicts its uri, which is in eu-west-1"),
        (connection(keySecret=""), "one of keyID and keySecret"),
        (connection(keyID=""), "one of keyID and keySecret"),
        (connection(role="packager"), "its role 'packager' is not the ARN of a role"),
    ],
)
def test_wrong_connection_is_refused_without_a_request(wrong: Connection, expected: str) -> None:
    with pytest.raises(RequestError, match=expected) as caught:
        Ecr(wrong, ignore)
    assert "'my-ecr'" in caught.value.message
    assert "s3cret" not in caught.value.message


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        Ecr(connection("r.io", keyID="", role="x"), ignore)
    assert caught.value.message.count("\n  - ") == 3


class AskedError(Exception):
    """Names the URL of a request that was not sent."""


def stop(request: AWSPreparedRequest, **_others: object) -> NoReturn:
    raise AskedError(request.url)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let boto3 raise the URL of a request instead of sending it."""
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
def test_uri_decides_the_endpoint(host: str, role: str, expected: str) -> None:
    with pytest.raises(AskedError) as caught:
        Ecr(connection(f"123456789012.{host}/team", role=role), ignore).credential()
    assert str(caught.value) == expected


@pytest.mark.usefixtures("asked")
def test_endpoint_of_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", "https://ecr.private.example")
    with pytest.raises(AskedError) as caught:
        Ecr(connection("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com"), ignore).credential()
    assert str(caught.value) == "https://ecr.private.example/"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/team/models/", {"region": "eu-west-1", "prefix": "team/models"}),
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com", {"region": "eu-west-1"}),
        (f"{ACCOUNT}.dkr.ecr-fips.us-east-1.amazonaws.com", {"region": "us-east-1", "fips": True}),
        (f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn", {"region": "cn-north-1", "partition": "aws-cn"}),
        (
            f"{ACCOUNT}.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            {"region": "us-gov-west-1", "partition": "aws-us-gov", "fips": True},
        ),
        (f"{ACCOUNT}.dkr.ecr.eusc-de-east-1.amazonaws.eu", {"region": "eusc-de-east-1", "partition": "aws-eusc"}),
        (f"{ACCOUNT}.dkr-ecr.eu-west-1.on.aws/x", {"region": "eu-west-1", "prefix": "x", "dual_stack": True}),
        (f"{ACCOUNT}.dkr-ecr-fips.us-east-2.on.aws", {"region": "us-east-2", "fips": True, "dual_stack": True}),
        (
            f"{ACCOUNT}.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn",
            {"region": "cn-north-1", "partition": "aws-cn", "dual_stack": True},
        ),
    ],
)
def test_addresses_are_parsed(uri: str, expected: dict[str, Any]) -> None:
    assert EcrUri.parse(uri) == EcrUri(host=uri.partition("/")[0], account=ACCOUNT, **expected)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("", "write <account>.dkr.ecr.<region>.amazonaws.com/<prefix>"),
        ("r.io/team", "'r.io' is not an ECR registry"),
        ("12345.dkr.ecr.eu-west-1.amazonaws.com", "not an ECR registry"),
        (f"{ACCOUNT}.dkr.ecr.amazonaws.com", "not an ECR registry"),
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com:443", "not an ECR registry"),
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com.evil.io", "not an ECR registry"),
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.cn", "not an ECR registry"),
        (f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com", "no region cn-north-1 at amazonaws.com"),
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com.cn", "no region eu-west-1 at amazonaws.com.cn"),
        (f"{ACCOUNT}.dkr.ecr.eusc-de-east-1.amazonaws.com", "no region eusc-de-east-1"),
        ("public.ecr.aws/team", "type docker"),
    ],
)
def test_other_addresses_are_refused(uri: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        EcrUri.parse(uri)


def test_two_hosts_of_one_registry_match() -> None:
    uri = EcrUri.parse(f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/team")
    assert uri.serves(uri.host)
    assert uri.serves(f"{ACCOUNT}.dkr.ecr-fips.us-east-1.amazonaws.com")
    assert uri.serves(f"{ACCOUNT}.dkr-ecr.us-east-1.on.aws")
    assert not uri.serves(f"{ACCOUNT}.dkr.ecr.us-east-2.amazonaws.com")
    assert not uri.serves("210987654321.dkr.ecr.us-east-1.amazonaws.com")
    assert not uri.serves("r.io")
    assert uri.arn("a/b") == f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/a/b"
    china = EcrUri.parse(f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn")
    assert china.arn("a") == f"arn:aws-cn:ecr:cn-north-1:{ACCOUNT}:repository/a"
