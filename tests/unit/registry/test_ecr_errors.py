"""What AWS says -> our errors."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    InvalidConfigError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)

from packager.errors import PackagerError, RegistryAuthError, RegistryError, RegistryUnreachableError
from packager.registry.ecr_errors import EcrCall, explain

CALL = EcrCall(
    what="creation of the ECR repository h/a",
    connection="my-ecr",
    action="ecr:CreateRepository",
    resource="arn:aws:ecr:r:1:repository/a",
    has_keys=True,
)


def refused(code: str, message: str = "", *, status: int = 400, operation: str = "CreateRepository") -> ClientError:
    error = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(error, operation)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind", "expected", "hint"),
    [
        (refused("AccessDeniedException", "because"), RegistryAuthError,
         "denied it to keyID and keySecret of connection 'my-ecr': AccessDeniedException: because",
         "allow ecr:CreateRepository on arn:aws:ecr:r:1:repository/a"),
        (refused("AccessDenied", operation="AssumeRoleWithWebIdentity"), RegistryAuthError, "denied",
         "allow sts:AssumeRoleWithWebIdentity to that identity in the role's trust policy"),
        (refused("ExpiredTokenException"), RegistryAuthError, "have expired", "get new ones"),
        (refused("ExpiredToken"), RegistryAuthError, "have expired", "get new ones"),
        (refused("UnrecognizedClientException"), RegistryAuthError, "doesn't accept keyID", "partition"),
        (refused("InvalidSignatureException", "The request signature we calculated does not match"), RegistryAuthError,
         "doesn't accept keyID", "its secret"),
        (refused("InvalidSignatureException", "Signature expired: 20200101T000000Z is now earlier"), RegistryAuthError,
         "finds the time", "clock"),
        (refused("RequestTimeTooSkewed"), RegistryAuthError, "finds the time", "clock"),
        (refused("ThrottlingException", "Rate exceeded"), RegistryError, "limits the rate", "wait"),
        (refused("LimitExceededException"), RegistryError, "quota", "Service Quotas"),
        (refused("InvalidParameterException", "Invalid parameter at 'registryIds'"), RegistryError, "registryIds",
         "connection 'my-ecr'"),
        (refused("ServerException", status=500), RegistryError, "AWS failed, after every retry", "wait"),
        (refused("SomethingNew", "{braces}"), RegistryError, "SomethingNew: {braces}", "'my-ecr'"),
        (refused("X", "long " * 1000), RegistryError, "…", ""),
        (NoCredentialsError(), RegistryAuthError, "there are no AWS credentials", "keyID and keySecret"),
        (PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), RegistryAuthError,
         "AWS_SECRET_ACCESS_KEY", "keyID"),
        (ProfileNotFound(profile="nope"), RegistryAuthError, "nope", "AWS_ variables"),
        (CredentialRetrievalError(provider="web", error_msg="no file"), RegistryAuthError, "no file", "AWS_ variables"),
        (EndpointConnectionError(endpoint_url="https://e"), RegistryUnreachableError, "can't be reached", "proxy"),
        (ConnectTimeoutError(endpoint_url="https://e"), RegistryUnreachableError, "can't be reached", "proxy"),
        (ReadTimeoutError(endpoint_url="https://e"), RegistryUnreachableError, "can't be reached", "proxy"),
        (ProxyConnectionError(proxy_url="http://p"), RegistryUnreachableError, "can't be reached", "proxy"),
        (SSLError(endpoint_url="https://e", error=OSError("self-signed")), RegistryUnreachableError, "certificate",
         "AWS_CA_BUNDLE"),
        (InvalidConfigError(error_msg="FIPS and custom endpoint"), RegistryError, "FIPS and custom", "AWS_"),
    ],
)  # fmt: skip
def test_errors_of_aws(error: ClientError | BotoCoreError, kind: type[PackagerError], expected: str, hint: str) -> None:
    made = explain(error, CALL)
    assert type(made) is kind
    assert made.message.startswith("creation of the ECR repository h/a")
    assert expected in made.message
    assert hint in made.hint
    assert len(made.message) < 600


def test_message_names_the_credentials() -> None:
    call = EcrCall(what="w", connection="my-ecr", action="a", resource="*", has_keys=False)
    made = explain(refused("ExpiredToken"), call)
    assert made.message.startswith("w: the AWS credentials of this environment (connection 'my-ecr') have expired")
    call = EcrCall(what="w", connection="my-ecr", action="a", resource="*", has_keys=True, role="arn:r")
    made = explain(refused("AccessDenied"), call)
    assert made.message.startswith("w: AWS denied it to the credentials of the role arn:r (connection 'my-ecr')")
