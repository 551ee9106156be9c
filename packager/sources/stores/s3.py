"""Opening a bucket of S3 or a compatible store (MinIO, Ceph): boto3 finds the credentials, obstore reads."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from obstore.auth.boto3 import Boto3CredentialProvider, StsCredentialProvider
from obstore.store import S3Store

from packager.errors import RequestError, StorageAuthError, StorageUnreachableError
from packager.sources.stores.checksums import Checksum, from_headers, from_s3_etag
from packager.sources.stores.location import is_loopback
from packager.sources.stores.objects import ONCE, ClientEnvironment, OpenedStore
from packager.sources.stores.store import CONNECT_SECONDS, READ_SECONDS, Access, ErrorResponse, without_queries
from packager.sources.stores.tls import write_bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore.store import S3Credential

    from packager.models.connection import ConnectionSpec
    from packager.sources.stores.location import RemoteModel

_REGION = "us-east-1"
_SESSION_NAME = "packager"
_EARLY = timedelta(minutes=6)  # before they expire; obstore asks for new ones five minutes before


def open_store(model: RemoteModel, environment: ClientEnvironment) -> OpenedStore:
    """Open the bucket of a model; the endpoint is AWS_ENDPOINT_URL_S3's or AWS_ENDPOINT_URL's, if they are set.

    Raises:
        RequestError: The connection has a key without its secret.
        StorageAuthError: There are no credentials, or the role can't be assumed.
        StorageUnreachableError: The service that gives out credentials can't be reached.
    """
    spec = model.connection.spec if model.connection else None
    session = _session(model, environment)
    access = Access(
        location=str(model),
        store=model.bucket,
        credential=_credential(model),
        permission=f"s3:GetObject on {model.bucket}",
    )
    bundle = write_bundle(environment.authorities, environment.workspace)
    client = _client(session, "s3", bundle)
    provider: Boto3CredentialProvider | StsCredentialProvider
    try:
        if session.get_credentials() is None:
            raise StorageAuthError(
                f"there are no credentials for {model}; looked for in: {access.credential}",
                hint="give the connection keyID and keySecret, or set AWS's own variables, profile or pod identity",
            )
        if spec is not None and spec.role:
            provider = _Role(session, spec.role, bundle)
            provider()
        else:
            provider = Boto3CredentialProvider(session)
            provider()
    except ClientError as error:
        raise _refused_role(error, access, spec) from error
    except BotoCoreError as error:
        raise StorageUnreachableError(
            f"{access.credential} gives no credentials for {model}: {without_queries(str(error))}",
            hint="check AWS's variables and profile, and that the service which gives out credentials can be reached",
        ) from error
    endpoint = str(client.meta.endpoint_url)
    store = S3Store(
        model.bucket,
        endpoint=endpoint,
        region=session.region_name or _REGION,
        virtual_hosted_style_request=False,
        client_options=environment.client_options(endpoint),
        retry_config=ONCE,
        credential_provider=provider,
    )
    return OpenedStore(store=store, access=access, checksums=_Checksums(model, session, provider, bundle))


class _Role(StsCredentialProvider):
    """The credentials of an assumed role, renewed when obstore finds them expired."""

    def __init__(self, session: boto3.Session, role: str, bundle: str | None) -> None:
        super().__init__(session, RoleArn=role, RoleSessionName=_SESSION_NAME)
        self._bundle = bundle
        self._given: S3Credential | None = None

    def __call__(self) -> S3Credential:
        now = datetime.now(timezone.utc)
        if self._given is None or not self._given["expires_at"] or self._given["expires_at"] - now < _EARLY:
            given = _client(self.session, "sts", self._bundle).assume_role(**self.kwargs)["Credentials"]
            self._given = {
                "access_key_id": given["AccessKeyId"],
                "secret_access_key": given["SecretAccessKey"],
                "token": given["SessionToken"],
                "expires_at": given["Expiration"].astimezone(timezone.utc),  # obstore reads no other kind of zone
            }
        return self._given


class _Checksums:
    """Asks S3 for an object's checksums: boto3 gives the headers, which obstore doesn't."""

    def __init__(
        self, model: RemoteModel, session: boto3.Session, provider: Callable[[], S3Credential], bundle: str | None
    ) -> None:
        self._model, self._session, self._provider, self._bundle = model, session, provider, bundle

    def __call__(self, etag: str) -> list[Checksum]:
        given = self._provider()
        session = boto3.Session(
            aws_access_key_id=given["access_key_id"],
            aws_secret_access_key=given["secret_access_key"],
            aws_session_token=given.get("token"),
            region_name=self._session.region_name,
        )
        wanted = {"Bucket": self._model.bucket, "Key": self._model.key, "IfMatch": etag, "ChecksumMode": "ENABLED"}
        answer = _client(session, "s3", self._bundle).head_object(**wanted)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return [*from_headers(headers), *from_s3_etag(etag, headers, self._model.bucket)]


def _session(model: RemoteModel, environment: ClientEnvironment) -> boto3.Session:
    environ = environment.environ
    spec = model.connection.spec if model.connection else None
    region = (spec.region if spec else "") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None
    key, secret = (spec.key_id.get_secret_value(), spec.key_secret.get_secret_value()) if spec else ("", "")
    if bool(key) != bool(secret):
        raise RequestError(
            f"connection {model.connection.id if model.connection else ''!r}: "
            f"it has {'keyID without keySecret' if key else 'keySecret without keyID'}",
            hint="give both, or neither for the environment's own credentials",
        )
    try:
        session = boto3.Session(aws_access_key_id=key or None, aws_secret_access_key=secret or None, region_name=region)
        if not session.region_name:  # the profile has none either
            session = boto3.Session(
                aws_access_key_id=key or None, aws_secret_access_key=secret or None, region_name=_REGION
            )
    except BotoCoreError as error:  # such as an unknown AWS_PROFILE
        raise StorageAuthError(
            f"there are no credentials for {model}: {without_queries(str(error))}", hint="check AWS_PROFILE and ~/.aws"
        ) from error
    return session


def _client(session: boto3.Session, service: str, bundle: str | None) -> Any:  # noqa: ANN401  (boto3 makes its clients while it runs)
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 3},
        s3={"addressing_style": "path"},
    )
    make: Any = session.client
    client = make(service, config=config, verify=bundle)
    if is_loopback(urlsplit(client.meta.endpoint_url).hostname or ""):
        client = make(service, config=config.merge(Config(proxies={})), verify=bundle)
    return client


def _credential(model: RemoteModel) -> str:
    if model.connection is None:
        return "the default credentials of AWS"
    spec = model.connection.spec
    role = f" with the role {spec.role}" if spec.role else ""
    if not spec.key_id.get_secret_value():
        return f"connection {model.connection.id!r} (the default credentials of AWS{role})"
    return f"connection {model.connection.id!r}{role}"


def _refused_role(error: ClientError, access: Access, spec: ConnectionSpec | None) -> Exception:
    found = error.response.get("Error", {})
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    answer = ErrorResponse(status=status, code=str(found.get("Code", "")), message=str(found.get("Message", "")))
    if spec is None or not spec.role:
        return StorageAuthError(
            f"{access.credential} gives no credentials: {answer}",
            hint="check AWS's variables, profile or pod identity",
        )
    return StorageAuthError(
        f"the role {spec.role} can't be assumed by {access.credential}: {answer}",
        hint="allow sts:AssumeRole in the user's policy and in the role's trust policy",
    )
