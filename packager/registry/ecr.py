"""Amazon ECR: the addresses of its registries, sessions with AWS, and tokens.

Every call goes to the account and region of the connection's `uri`. The actions are those of
docs.aws.amazon.com/AmazonECR/latest/APIReference; the addresses those of docs.aws.amazon.com/general/latest/gr/ecr.html
(plain, FIPS, dual-stack) in the partitions that botocore's `partitions.json` names (China, the European sovereign
cloud).
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from packager.errors import RegistryError, RegistryUnreachableError, RequestError
from packager.logs.sanitize import sanitize
from packager.registry.credentials import Credential
from packager.registry.ecr_errors import EcrCall, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from botocore.awsrequest import AWSPreparedRequest, AWSResponse
    from botocore.client import BaseClient
    from mypy_boto3_ecr import ECRClient

    from packager.models.connection import Connection

log = logging.getLogger(__name__)

FORM = "<account>.dkr.ecr.<region>.amazonaws.com/<prefix>"
_HOST = re.compile(
    r"(?P<account>\d{12})\."
    r"(?:dkr\.ecr(?P<fips>-fips)?\.(?P<region>[a-z]+(?:-[a-z]+)+-\d+)\.(?P<suffix>amazonaws\.com\.cn|amazonaws\.(?:com|eu))"
    r"|dkr-ecr(?P<dual_fips>-fips)?\.(?P<dual_region>[a-z]+(?:-[a-z]+)+-\d+)"
    r"\.(?P<dual_suffix>on\.aws|on\.amazonwebservices\.(?:com\.cn|eu)))"
)
_PARTITIONS = {".cn": ("aws-cn", "cn-"), ".eu": ("aws-eusc", "eusc-")}
_ATTEMPTS = 5  # of every call, the first included; botocore waits up to 20 seconds between two
_ATTEMPT = re.compile(r"\battempt=(\d+)")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")


@dataclass(frozen=True, kw_only=True)
class EcrUri:
    """The address of an ECR registry.

    Attributes:
        host: The host as it was written.
        account: The twelve digits of the registry's account.
        region: `eu-west-1`.
        partition: `aws`, `aws-cn`, `aws-us-gov` or `aws-eusc`.
        prefix: The beginning of a connection's repository names; may be empty.
        fips, dual_stack: Whether the host belongs to these endpoints of AWS.
    """

    host: str
    account: str
    region: str
    partition: str = "aws"
    prefix: str = ""
    fips: bool = False
    dual_stack: bool = False

    @classmethod
    def parse(cls, uri: str) -> EcrUri:
        """Read a connection's `uri`.

        Raises:
            ValueError: It isn't that of a private ECR registry; the message shows the form.
        """
        host, _, prefix = uri.rstrip("/").partition("/")
        found = _HOST.fullmatch(host)
        if found is None:
            if host in ("public.ecr.aws", "ecr-public.aws.com"):
                raise ValueError(f"{host} is the public ECR; make it a connection of type docker")
            raise ValueError(f"{host!r} is not an ECR registry; write {FORM}")
        region = found["region"] or found["dual_region"]
        suffix = found["suffix"] or found["dual_suffix"]
        partition, mark = _PARTITIONS.get(suffix[-3:], ("aws", ""))
        foreign = next((it for it in ("cn-", "eusc-") if region.startswith(it) and it != mark), "")
        if not region.startswith(mark) or foreign:
            raise ValueError(f"there is no region {region} at {suffix}")
        return cls(
            host=host,
            account=found["account"],
            region=region,
            partition="aws-us-gov" if region.startswith("us-gov-") else partition,
            prefix=prefix,
            fips=bool(found["fips"] or found["dual_fips"]),
            dual_stack=found["dual_suffix"] is not None,
        )

    def arn(self, repository: str) -> str:
        """Return a repository's name in IAM policies."""
        return f"arn:{self.partition}:ecr:{self.region}:{self.account}:repository/{repository}"

    def serves(self, other_host: str) -> bool:
        """Tell whether a host is an address of this registry."""
        try:
            other = EcrUri.parse(other_host)
        except ValueError:
            return False
        return (other.account, other.region) == (self.account, self.region)


class Ecr:
    """The registry of one connection, with that connection's credentials only."""

    def __init__(self, connection: Connection, register_secrets: Callable[[Iterable[str]], None]) -> None:
        """Read the connection; `register_secrets` takes every secret that AWS gives, before it is used.

        Raises:
            RequestError: The connection is wrong; AWS isn't asked for that.
        """
        self._connection, self._register = connection, register_secrets
        self.uri = _checked_uri(connection)

    def credential(self) -> Credential:
        """Get a token for the registry, mostly valid for twelve hours.

        Raises:
            RegistryAuthError: AWS refuses the credentials, or there are none.
            RegistryUnreachableError: AWS can't be reached.
            RegistryError: AWS failed, or limits the rate of requests after every retry.
        """
        uri = self.uri
        client = self.client()
        with self.explained(f"login to {uri.host}", "ecr:GetAuthorizationToken", "*"):
            answer = client.get_authorization_token(registryIds=[uri.account])
        try:
            data = answer["authorizationData"][0]
            token, expires = data["authorizationToken"], data["expiresAt"]
            self._register([token])
            username, colon, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (KeyError, IndexError, binascii.Error, UnicodeDecodeError) as error:
            raise RegistryError(f"login to {uri.host}: AWS's answer holds no token") from error
        if not colon:
            raise RegistryError(f"login to {uri.host}: AWS's token is no user and password")
        login = Credential(host=uri.host, path=uri.prefix, username=username, password=password, expires=expires)
        self._register(login.secrets())
        return login

    def client(self) -> ECRClient:
        """Make a client with the connection's keys or the default chain, and its role on top of that.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: As for `credential`.
        """
        spec = self._connection.spec
        what = f"login to {self.uri.host}"
        with self.explained(what, "ecr:GetAuthorizationToken", "*"):
            session = Session(
                aws_access_key_id=spec.key_id.get_secret_value() or None,
                aws_secret_access_key=spec.key_secret.get_secret_value() or None,
                region_name=self.uri.region,
            )
            self._register_session(session)
        if spec.role:
            with self.explained(f"{what}: the role {spec.role}", "sts:AssumeRole", spec.role):
                sts = session.client("sts", config=self._config())
                _log_retries(sts)
                given = sts.assume_role(RoleArn=spec.role, RoleSessionName="packager")["Credentials"]
            secrets = given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
            self._register(secrets)
            session = Session(*secrets, region_name=self.uri.region)
        with self.explained(what, "ecr:GetAuthorizationToken", "*"):
            client = session.client("ecr", config=self._config())
        _log_retries(client)
        return client

    def _register_session(self, session: Session) -> None:
        found = session.get_credentials()
        if found is not None:
            frozen = found.get_frozen_credentials()
            self._register([text for text in (frozen.access_key, frozen.secret_key, frozen.token) if text])

    def _config(self) -> Config:
        return Config(
            connect_timeout=10,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            # None: the user's own AWS configuration decides, as for an endpoint in a private network
            use_fips_endpoint=self.uri.fips or None,
            use_dualstack_endpoint=self.uri.dual_stack or None,
        )

    @contextmanager
    def explained(self, what: str, action: str, resource: str) -> Iterator[EcrCall]:
        """Turn boto3's errors in the block into ours; gives the call that they are explained with."""
        call = EcrCall(
            what=what,
            connection=self._connection.id,
            action=action,
            resource=resource,
            has_keys=bool(self._connection.spec.key_id.get_secret_value()),
            role="" if action == "sts:AssumeRole" else self._connection.spec.role,
        )
        try:
            yield call
        except (ClientError, BotoCoreError) as error:
            raise explain(error, call) from error
        except ResponseParserError as error:
            raise RegistryUnreachableError(
                f"{what}: the response doesn't come from AWS",
                hint="check the proxy variables and AWS_ENDPOINT_URL",
            ) from error


def _checked_uri(connection: Connection) -> EcrUri:
    spec, problems = connection.spec, []
    uri = None
    try:
        uri = EcrUri.parse(spec.uri)
    except ValueError as error:
        problems.append(f"its uri is wrong: {error}")
    if uri is not None and spec.region and spec.region != uri.region:
        problems.append(f"its region {spec.region} contradicts its uri, which is in {uri.region}")
    if bool(spec.key_id.get_secret_value()) != bool(spec.key_secret.get_secret_value()):
        problems.append(
            "it has one of keyID and keySecret; give both, or neither for the environment's AWS credentials"
        )
    if spec.role and not _ROLE.fullmatch(spec.role):
        problems.append(f"its role {spec.role!r} is not the ARN of a role; write arn:aws:iam::<account>:role/<name>")
    if problems or uri is None:
        raise RequestError.from_problems(
            f"connection {connection.id!r} can't be used", problems, hint=f"an ecr connection's uri is {FORM}"
        )
    return uri


def _log_retries(client: BaseClient) -> None:
    """Log each retry of a client's calls with its reason; botocore retries by itself, and silently.

    The events and the header that counts the attempts are those of botocore's `standard` retry mode.
    """
    causes: list[str] = []

    def keep_cause(
        response: tuple[AWSResponse, dict[str, Any]] | None, caught_exception: Exception | None, **_others: object
    ) -> None:
        if response is not None:
            http, parsed = response
            error = parsed.get("Error", {})
            causes[:] = [sanitize(f"{error.get('Code', http.status_code)}: {error.get('Message', '')}")]
        else:
            causes[:] = [sanitize(str(caught_exception))]

    def log_retry(request: AWSPreparedRequest, **_others: object) -> None:
        header = request.headers.get("amz-sdk-request", b"")
        found = _ATTEMPT.search(header.decode() if isinstance(header, bytes) else header)
        if found and int(found[1]) > 1 and causes:
            log.warning("retrying AWS (attempt %s of %d): %s", found[1], _ATTEMPTS, causes[0])

    client.meta.events.register("needs-retry", keep_cause)
    client.meta.events.register("before-send", log_retry)
