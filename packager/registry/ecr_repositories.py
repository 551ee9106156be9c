"""The ECR repositories that must exist before a push: looked for, and created if missing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from packager.registry.ecr import Ecr
from packager.registry.ecr_errors import error_code, explain, is_denied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_ecr.literals import ImageTagMutabilityType

    from packager.errors import PackagerError
    from packager.models.connection import Connection
    from packager.models.reference import Reference
    from packager.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NewRepository:
    """A repository to create if it is missing, and its settings."""

    name: str
    tag_mutability: ImageTagMutabilityType = "MUTABLE"
    scan_on_push: bool = False


def ensure_repositories(
    push: Connection,
    image: Reference,
    cache: Reference | None,
    settings: Settings,
    register_secrets: Callable[[Iterable[str]], None],
) -> None:
    """Create the repositories of the image and of the layer cache if they are missing, as far as they are in ECR.

    The cache's tags name their contents, and two builds may write the same one, so it is never immutable.

    Raises:
        RequestError, RegistryAuthError, RegistryUnreachableError, RegistryError: They can't be created.
    """
    ecr = Ecr(push, register_secrets)
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
        _ensure(ecr, wanted)


def _ensure(ecr: Ecr, repositories: Sequence[NewRepository]) -> None:
    """Create the missing repositories; another job may do the same at the same time.

    With credentials that may neither look nor create, the push shows whether a repository exists.
    """
    client = ecr.client()
    for repository in repositories:
        exists = _exists(ecr, client, repository.name)
        if exists:
            continue
        try:
            _create(ecr, client, repository)
        except _DeniedError as denial:
            if exists is False:
                raise denial.error from denial
            log.warning("can't check whether the ECR repository exists: %s", denial.error.message)


def _exists(ecr: Ecr, client: ECRClient, name: str) -> bool | None:
    """Tell whether a repository exists; None where we may not look."""
    action = "ecr:DescribeRepositories"
    with ecr.explained(f"look for the ECR repository {ecr.uri.host}/{name}", action, ecr.uri.arn(name)):
        try:
            client.describe_repositories(registryId=ecr.uri.account, repositoryNames=[name])
        except ClientError as error:
            if is_denied(error):
                return None
            if error_code(error) != "RepositoryNotFoundException":
                raise
            return False
    return True


def _create(ecr: Ecr, client: ECRClient, repository: NewRepository) -> None:
    name = repository.name
    what = f"creation of the ECR repository {ecr.uri.host}/{name}"
    with ecr.explained(what, "ecr:CreateRepository", ecr.uri.arn(name)) as call:
        try:
            client.create_repository(
                registryId=ecr.uri.account,
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
    log.info("created the ECR repository %s/%s", ecr.uri.host, name)


class _DeniedError(Exception):
    """We may not create a repository; `error` is the one to show."""

    def __init__(self, error: PackagerError) -> None:
        super().__init__(error.message)
        self.error = error
