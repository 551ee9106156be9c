"""Amazon ECR: tokens for its registries, and repositories that have to exist before a push.

Every call goes to the account and region of the connection's `uri`. The actions are those of
docs.aws.amazon.com/AmazonECR/latest/APIReference.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from packager.errors import PackagerError, RegistryError, RegistryUnreachableError, RequestError
from packager.registry.credentials import Credential
from packager.registry.ecr_failures import EcrCall, error_code, explain, is_denied
from packager.registry.ecr_retries import ATTEMPTS, tell_retries
from packager.registry.ecr_uri import FORM, EcrUri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_ecr.literals import ImageTagMutabilityType

    from packager.models.connection import Connection
    from packager.models.reference import Reference
    from packager.settings import Settings

log = logging.getLogger(__name__)

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")


@dataclass(frozen=True, kw_only=True)
class NewRepository:
    """What a repository is like when it has to be created."""

    name: str
    tag_mutability: ImageTagMutabilityType = "MUTABLE"
    scan_on_push: bool = False


class Ecr:
    """The registry of one connection, with that connection's credentials and nobody else's."""

    def __init__(self, connection: Connection, learn: Callable[[Iterable[str]], None]) -> None:
        """Read the connection; `learn` is told every secret that AWS gives, as soon as it is there.

        Raises:
            RequestError: The connection is wrong; AWS isn't asked for that.
        """
        self._connection, self._learn = connection, learn
        self.uri = _checked_uri(connection)

    def credential(self) -> Credential:
        """Get a token for the registry; it is good for what these credentials may do there, mostly for twelve hours.

        Raises:
            RegistryAuthError: AWS refuses the credentials, or there are none.
            RegistryUnreachableError: AWS can't be reached.
            RegistryError: AWS failed, or limits the rate of requests after every retry.
        """
        uri = self.uri
        client = self._client()
        with self._explained(f"login to {uri.host}", "ecr:GetAuthorizationToken", "*"):
            answer = client.get_authorization_token(registryIds=[uri.account])
        try:
            data = answer["authorizationData"][0]
            token, expires = data["authorizationToken"], data["expiresAt"]
            self._learn([token])
            username, colon, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (KeyError, IndexError, binascii.Error, UnicodeDecodeError) as error:
            raise RegistryError(f"login to {uri.host}: AWS's answer holds no token") from error
        if not colon:
            raise RegistryError(f"login to {uri.host}: AWS's token is no user and password")
        login = Credential(host=uri.host, path=uri.prefix, username=username, password=password, expires=expires)
        self._learn(login.secrets())
        return login

    def ensure(self, repositories: Sequence[NewRepository]) -> None:
        """Create the repositories that are not there; another job may do the same at the same time.

        Where the credentials may neither look nor create, the push will tell.

        Raises:
            RegistryAuthError, RegistryUnreachableError, RegistryError: As for `credential`.
        """
        client = self._client()
        for repository in repositories:
            there = self._is_there(client, repository.name)
            if there:
                continue
            try:
                self._create(client, repository)
            except _DeniedError as denial:
                if there is False:
                    raise denial.error from denial
                log.warning("can't tell whether the ECR repository is there: %s", denial.error.message)

    def _is_there(self, client: ECRClient, name: str) -> bool | None:
        """Tell whether a repository is there; None where we may not look."""
        action = "ecr:DescribeRepositories"
        with self._explained(f"look for the ECR repository {self.uri.host}/{name}", action, self.uri.arn(name)):
            try:
                client.describe_repositories(registryId=self.uri.account, repositoryNames=[name])
            except ClientError as error:
                if is_denied(error):
                    return None
                if error_code(error) != "RepositoryNotFoundException":
                    raise
                return False
        return True

    def _create(self, client: ECRClient, repository: NewRepository) -> None:
        name = repository.name
        what = f"creation of the ECR repository {self.uri.host}/{name}"
        with self._explained(what, "ecr:CreateRepository", self.uri.arn(name)) as call:
            try:
                client.create_repository(
                    registryId=self.uri.account,
                    repositoryName=name,
                    imageTagMutability=repository.tag_mutability,
                    imageScanningConfiguration={"scanOnPush": repository.scan_on_push},
                )
            except ClientError as error:
                if is_denied(error):
                    raise _DeniedError(explain(error, call)) from error
                if error_code(error) != "RepositoryAlreadyExistsException":
                    raise
                return
        log.info("created the ECR repository %s/%s", self.uri.host, name)

    def _client(self) -> ECRClient:
        """Make a client with the connection's keys or the default chain, and its role on top of that."""
        spec = self._connection.spec
        what = f"login to {self.uri.host}"
        with self._explained(what, "ecr:GetAuthorizationToken", "*"):
            session = Session(
                aws_access_key_id=spec.key_id.get_secret_value() or None,
                aws_secret_access_key=spec.key_secret.get_secret_value() or None,
                region_name=self.uri.region,
            )
            self._learn_session(session)
        if spec.role:
            with self._explained(f"{what}: the role {spec.role}", "sts:AssumeRole", spec.role):
                sts = session.client("sts", config=self._config())
                tell_retries(sts)
                given = sts.assume_role(RoleArn=spec.role, RoleSessionName="packager")["Credentials"]
            secrets = given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
            self._learn(secrets)
            session = Session(*secrets, region_name=self.uri.region)
        with self._explained(what, "ecr:GetAuthorizationToken", "*"):
            client = session.client("ecr", config=self._config())
        tell_retries(client)
        return client

    def _learn_session(self, session: Session) -> None:
        found = session.get_credentials()
        if found is not None:
            frozen = found.get_frozen_credentials()
            self._learn([text for text in (frozen.access_key, frozen.secret_key, frozen.token) if text])

    def _config(self) -> Config:
        return Config(
            connect_timeout=10,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            # None leaves it to the user's own AWS configuration, as for an endpoint of a private network
            use_fips_endpoint=self.uri.fips or None,
            use_dualstack_endpoint=self.uri.dual_stack or None,
        )

    @contextmanager
    def _explained(self, what: str, action: str, resource: str) -> Iterator[EcrCall]:
        """Turn boto3's errors into ours."""
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
                f"{what}: what answered in AWS's place doesn't speak its protocol",
                hint="check the proxy variables and AWS_ENDPOINT_URL",
            ) from error


class _DeniedError(Exception):
    """We may not create a repository; `error` is what the user sees of it."""

    def __init__(self, error: PackagerError) -> None:
        super().__init__(error.message)
        self.error = error


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
        problems.append("it has one of keyID and keySecret; give both, or none for the environment's AWS credentials")
    if spec.role and not _ROLE.fullmatch(spec.role):
        problems.append(f"its role {spec.role!r} is no ARN; write arn:aws:iam::<account>:role/<name>")
    if problems or uri is None:
        raise RequestError.from_problems(
            f"connection {connection.id!r} can't be used", problems, hint=f"an ecr connection's uri is {FORM}"
        )
    return uri


def ensure_repositories(
    push: Connection,
    image: Reference,
    cache: Reference | None,
    settings: Settings,
    learn: Callable[[Iterable[str]], None],
) -> None:
    """Create what is missing of the image's repository and the layer cache's, where they are in this registry.

    The cache's tags name what is in them and two builds may write the same one, so it is never immutable.

    Raises:
        RequestError, RegistryAuthError, RegistryUnreachableError, RegistryError: They can't be created.
    """
    ecr = Ecr(push, learn)
    wanted = []
    if ecr.uri.serves(image.host):
        wanted.append(
            NewRepository(
                name=image.path,
                tag_mutability=settings.ecr_tag_mutability,
                scan_on_push=settings.ecr_scan_on_push,
            )
        )
    if cache is not None and ecr.uri.serves(cache.host):
        wanted.append(NewRepository(name=cache.path))
    if wanted:
        ecr.ensure(wanted)
