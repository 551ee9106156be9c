"""The forms of ECR's addresses."""

from __future__ import annotations

from typing import Any

import pytest

from packager.registry.ecr_uri import EcrUri

ACCOUNT = "123456789012"


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
def test_forms(uri: str, expected: dict[str, Any]) -> None:
    assert EcrUri.parse(uri) == EcrUri(host=uri.partition("/")[0], account=ACCOUNT, **expected)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("", "write <account>.dkr.ecr.<region>.amazonaws.com/<prefix>"),
        ("r.io/team", "'r.io' is no ECR registry"),
        ("12345.dkr.ecr.eu-west-1.amazonaws.com", "no ECR registry"),
        (f"{ACCOUNT}.dkr.ecr.amazonaws.com", "no ECR registry"),
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com:443", "no ECR registry"),
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com.evil.io", "no ECR registry"),
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.cn", "no ECR registry"),
        (f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com", "no region cn-north-1 at amazonaws.com"),
        (f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com.cn", "no region eu-west-1 at amazonaws.com.cn"),
        (f"{ACCOUNT}.dkr.ecr.eusc-de-east-1.amazonaws.com", "no region eusc-de-east-1"),
        ("public.ecr.aws/team", "type docker"),
    ],
)
def test_what_is_none(uri: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        EcrUri.parse(uri)


def test_names_of_one_registry() -> None:
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
