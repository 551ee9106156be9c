"""Amazon ECR: sessions with AWS, and tokens for its registries.

Every call goes to the account and region of the connection's `uri`. The actions are those of
docs.aws.amazon.com/AmazonECR/latest/APIReference.
"""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from packager.errors import RegistryError, RegistryUnreachableError, RequestError
from packager.registry.credentials import Credential
from packager.registry.ecr_errors import EcrCall, explain
from packager.registry.ecr_retries import ATTEMPTS, tell_retries
from packager.registry.ecr_uri import FORM, EcrUri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mypy_boto3_ecr import ECRClient

    from packager.models.connection import Connection

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")


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
        client = self.client()
        with self.explained(f"login to {uri.host}", "ecr:GetAuthorizationToken", "*"):
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
            self._learn_session(session)
        if spec.role:
            with self.explained(f"{what}: the role {spec.role}", "sts:AssumeRole", spec.role):
                sts = session.client("sts", config=self._config())
                tell_retries(sts)
                given = sts.assume_role(RoleArn=spec.role, RoleSessionName="packager")["Credentials"]
            secrets = given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
            self._learn(secrets)
            session = Session(*secrets, region_name=self.uri.region)
        with self.explained(what, "ecr:GetAuthorizationToken", "*"):
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
    def explained(self, what: str, action: str, resource: str) -> Iterator[EcrCall]:
        """Turn boto3's errors within the block into ours; it gets what they are explained with."""
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
