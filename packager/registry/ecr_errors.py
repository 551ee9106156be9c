"""The error that a failed call to AWS means. Pure.

The codes are those of docs.aws.amazon.com/AmazonECR/latest/APIReference/CommonErrors.html, of each action's page there
and in the STS reference; the throttling codes are those that botocore retries (`botocore.retries.standard`).
"""

from __future__ import annotations

from dataclasses import dataclass

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  (botocore's name for its own)
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
)

from packager.errors import PackagerError, RegistryAuthError, RegistryError, RegistryUnreachableError
from packager.logs.sanitize import sanitize

_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"})
_SERVER_FAULT = 500


@dataclass(frozen=True, kw_only=True)
class EcrCall:
    """A call to AWS, for messages.

    Attributes:
        what: The start of the message: `login to 1….amazonaws.com`.
        connection: The connection's id.
        action: The IAM action that allows it: `ecr:CreateRepository`.
        resource: The resource of that permission: an ARN, or `*`.
        has_keys: Whether the connection has keys of its own.
        role: The role that was assumed for it, or empty.
    """

    what: str
    connection: str
    action: str
    resource: str
    has_keys: bool
    role: str = ""

    @property
    def whose(self) -> str:
        """Return the credentials of the call, for messages."""
        if self.role:
            return f"the credentials of the role {self.role} (connection {self.connection!r})"
        own = f"keyID and keySecret of connection {self.connection!r}"
        return own if self.has_keys else f"the AWS credentials of this environment (connection {self.connection!r})"


@dataclass(frozen=True, kw_only=True)
class _Refusal:
    """A kind of refusal: AWS's codes, our class, message and hint."""

    codes: frozenset[str]
    error: type[RegistryError]
    message: str
    hint: str


_REFUSALS = (
    _Refusal(
        codes=_DENIED,
        error=RegistryAuthError,
        message="AWS denied it to {whose}",
        hint="{permission}",
    ),
    _Refusal(
        codes=frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}),
        error=RegistryAuthError,
        message="{whose} have expired",
        hint="get new ones; temporary credentials don't outlive their session",
    ),
    _Refusal(
        codes=frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"}),
        error=RegistryAuthError,
        message="AWS finds the time of the request wrong",
        hint="set this machine's clock",
    ),
    _Refusal(
        codes=frozenset(
            {
                "AuthFailure", "IDPRejectedClaim", "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId",
                "InvalidIdentityToken", "InvalidSignatureException", "MissingAuthenticationToken",
                "MissingAuthenticationTokenException", "SignatureDoesNotMatch", "UnrecognizedClientException",
            }
        ),
        error=RegistryAuthError,
        message="AWS doesn't accept {whose}",
        hint="check the key and its secret, that the key is active, and that it belongs to this AWS partition",
    ),
    _Refusal(
        codes=frozenset(
            {
                "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException", "SlowDown",
                "ThrottledException", "Throttling", "ThrottlingException", "TooManyRequestsException",
            }
        ),
        error=RegistryError,
        message="AWS limits the rate of requests, after every retry",
        hint="wait, then run it again; fewer jobs at a time, or a higher quota in AWS's Service Quotas, help",
    ),
    _Refusal(
        codes=frozenset({"LimitExceededException"}),
        error=RegistryError,
        message="a quota of the account is used up",
        hint="remove repositories, or ask for a higher quota in AWS's Service Quotas",
    ),
    _Refusal(
        codes=frozenset(
            {"InvalidParameterException", "RegistryNotFoundException", "ValidationError", "ValidationException"}
        ),
        error=RegistryError,
        message="AWS refused the request",
        hint="check account, region, path and role in connection {connection!r}",
    ),
)  # fmt: skip
_FAULT = _Refusal(
    codes=frozenset(), error=RegistryError, message="AWS failed, after every retry", hint="wait, then run it again"
)
_OTHER = _Refusal(
    codes=frozenset(), error=RegistryError, message="AWS refused it", hint="look at connection {connection!r}"
)
_SKEW = "Signature expired", "Signature not yet current"  # sent with a code that otherwise means wrong keys


def explain(error: ClientError | BotoCoreError, call: EcrCall) -> PackagerError:
    """Return the error that an error of boto3 means for a call."""
    return _refusal(error, call) if isinstance(error, ClientError) else _unreachable(error, call)


def error_code(error: ClientError) -> str:
    """Return AWS's error code: `AccessDeniedException`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_denied(error: ClientError) -> bool:
    """Tell whether the credentials are valid, but lack the permission."""
    return error_code(error) in _DENIED


def _refusal(error: ClientError, call: EcrCall) -> PackagerError:
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = str(error.response.get("Error", {}).get("Message", ""))
    if any(words in text for words in _SKEW):
        code = "RequestTimeTooSkewed"
    answer = next((each for each in _REFUSALS if code in each.codes), _FAULT if status >= _SERVER_FAULT else _OTHER)
    facts = {"whose": call.whose, "connection": call.connection, "permission": _permission(error, call)}
    cause = sanitize(f"{code}: {text}" if text else code)
    return answer.error(f"{call.what}: {answer.message.format_map(facts)}: {cause}", hint=answer.hint.format_map(facts))


def _permission(error: ClientError, call: EcrCall) -> str:
    """Return the hint about a missing permission; the refused call may be the one that assumes the role."""
    if error.operation_name.startswith("AssumeRole"):
        return f"allow sts:{error.operation_name} to that identity in the role's trust policy and in its own policies"
    creates = call.action == "ecr:CreateRepository"
    otherwise = ", or create the repository before the run" if creates else ""
    return f"allow {call.action} on {call.resource} in a policy of that user or role{otherwise}"


def _unreachable(error: BotoCoreError, call: EcrCall) -> PackagerError:
    cause = sanitize(str(error))
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return RegistryAuthError(
            f"{call.what}: there are no AWS credentials: {cause}",
            hint=f"give connection {call.connection!r} a keyID and keySecret, or let the environment have credentials "
            "(AWS_ACCESS_KEY_ID, a service account's role, an instance's role)",
        )
    if isinstance(error, (CredentialRetrievalError, ProfileNotFound, SSOError, TokenRetrievalError)):
        return RegistryAuthError(
            f"{call.what}: the AWS credentials of this environment can't be had: {cause}",
            hint="check the AWS_ variables and the AWS configuration files",
        )
    if isinstance(error, SSLError):
        return RegistryUnreachableError(
            f"{call.what}: AWS's certificate can't be trusted: {cause}",
            hint="behind a proxy that reads TLS, name its authority's file in AWS_CA_BUNDLE",
        )
    if isinstance(error, (HTTPClientError, ConnectionError)):
        return RegistryUnreachableError(
            f"{call.what}: AWS can't be reached: {cause}",
            hint="check the region, the network, and the proxy variables",
        )
    return RegistryError(
        f"{call.what} failed: {cause}", hint="check the AWS_ variables and the AWS configuration files"
    )
