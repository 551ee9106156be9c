"""What an API server's refusal means: from its `Status` object to an error that says what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from packager.errors import (
    ClusterAccessError,
    ClusterError,
    EntityExistsError,
    EntityNotFoundError,
    PackagerError,
    RequestError,
)
from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from packager.kube.names import Kind

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_BUSY = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# `User "ann" cannot create resource "jobs" in API group "batch"`; a policy may say "cannot", too.
_BY_RBAC = re.compile(r"\bcannot \w+ (resource|path)\b")
_STRANGE = "no API server answers so: check the kubeconfig's server and the proxy"
_ENTITIES = frozenset({"secrets", "configmaps"})
_OF_USERS = frozenset({"get secrets", "create secrets", "get configmaps"})  # of those, what the chart lets users do


class BrokenOffError(Exception):
    """A connection ended before the answer did; never leaves `packager.kube`."""


@dataclass(frozen=True, kw_only=True)
class ApiRequest:
    """What was asked of the API server.

    Attributes:
        method: Of HTTP.
        kind: Of the objects.
        namespace: Where they are.
        name: Of one object; empty for a list.
        part: A part of it: `log`.
    """

    method: str
    kind: Kind
    namespace: str
    name: str = ""
    part: str = ""
    watch: bool = False

    @property
    def path(self) -> str:
        """The path of the API."""
        path = f"{self.kind.path}/namespaces/{self.namespace}/{self.kind.plural}"
        if self.name and self.method != "POST":
            path = "/".join([path, self.name, *([self.part] if self.part else [])])
        return path

    @property
    def permission(self) -> str:
        """The permission that it takes, as `kubectl auth can-i` has it: `create jobs.batch`."""
        verb = _VERBS[self.method] if self.name or self.method != "GET" else "watch" if self.watch else "list"
        plural = f"{self.kind.plural}/{self.part}" if self.part else self.kind.plural
        return f"{verb} {plural}{'.' + self.kind.group if self.kind.group else ''}"

    @property
    def subject(self) -> str:
        """How messages name it."""
        return f"{self.kind.name} {self.name!r}" if self.name else f"{self.kind.plural} of {self.namespace!r}"


def is_retryable(status: int) -> bool:
    """Whether a moment later the answer may be another."""
    return status in _BUSY


def failure(request: ApiRequest, status: int, body: dict[str, Any]) -> PackagerError:
    """Return the error for an answer that is none of 2xx."""
    message = sanitize(body.get("message")) or f"HTTP status {status}"
    if status == HTTPStatus.UNAUTHORIZED:
        hint = "log in anew; `kubectl auth whoami` shows who you are"
        return ClusterAccessError(f"the cluster doesn't know you: {message}", hint=hint)
    if status == HTTPStatus.FORBIDDEN:
        return _forbidden(request, message)
    if status == HTTPStatus.NOT_FOUND:
        return _missing(request, message)
    if status == HTTPStatus.CONFLICT:
        return _conflict(request, message, str(body.get("reason")))
    if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
        return RequestError.from_problems(f"the cluster refuses the {request.subject}", _problems(body) or [message])
    retryable = is_retryable(status)
    hint = "the API server is busy or not well; run it again" if retryable else _STRANGE
    return ClusterError(f"the cluster can't {request.permission}: {message}", hint=hint, retryable=retryable)


def _missing(request: ApiRequest, message: str) -> PackagerError:
    if re.search(r'namespaces "[^"]*" not found', message):
        return ClusterError(f"the cluster has no namespace {request.namespace!r}", hint="name another with --namespace")
    return EntityNotFoundError(f"the cluster has no {request.subject} in {request.namespace!r}")


def _conflict(request: ApiRequest, message: str, reason: str) -> PackagerError:
    if reason == "AlreadyExists":
        return EntityExistsError(f"the cluster has a {request.subject} already")
    return ClusterError(f"the {request.subject} was changed meanwhile: {message}", hint="run it again")


def _forbidden(request: ApiRequest, message: str) -> PackagerError:
    if "exceeded quota" in message:
        return ClusterError(
            f"the quota of the namespace {request.namespace!r} allows no more: {message}",
            hint="wait until others have ended, delete finished packagings, or have the quota raised",
        )
    if _BY_RBAC.search(message):
        for_admins = request.kind.plural in _ENTITIES and request.permission not in _OF_USERS
        role = "packager-admin" if for_admins else "packager-user"
        return ClusterAccessError(
            f"you may not {request.permission} in the namespace {request.namespace!r}: {message}",
            hint=f"have this permission granted by a Role (the chart's {role} has it); "
            f"`kubectl auth can-i {request.permission} -n {request.namespace}` tells",
        )
    return ClusterError(
        f"a policy of the cluster refuses the {request.subject}: {message}",
        hint="ask who runs the cluster, or change the settings of Jobs so that it passes",
    )


def _problems(body: dict[str, Any]) -> list[str]:
    causes = (body.get("details") or {}).get("causes") or []
    return [f"{each.get('field', '')}: {sanitize(each.get('message'))}" for each in causes if isinstance(each, dict)]
