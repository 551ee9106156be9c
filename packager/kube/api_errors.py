"""Requests to the API server, and the errors that its `Status` objects become."""

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
# `User "ann" cannot create resource "jobs" in API group "batch"`; a policy may also write "cannot".
_BY_RBAC = re.compile(r"\bcannot \w+ (resource|path)\b")
_NOT_AN_API_SERVER = "this is not the response of an API server: check the kubeconfig's server and the proxy"
_ENTITIES = frozenset({"secrets", "configmaps"})
_OF_USERS = frozenset(
    {"get secrets", "create secrets", "get configmaps"}
)  # of these kinds, the permissions of the chart's packager-user


class BrokenOffError(Exception):
    """A connection ended before the response was complete; caught within `packager.kube`."""


@dataclass(frozen=True, kw_only=True)
class ApiRequest:
    """A request to the API server.

    Attributes:
        method: The HTTP method.
        kind: The kind of the objects.
        namespace: The namespace of the objects.
        name: The name of one object; empty for a list.
        part: A subresource: `log`.
        watch: Whether a list is watched.
    """

    method: str
    kind: Kind
    namespace: str
    name: str = ""
    part: str = ""
    watch: bool = False

    @property
    def path(self) -> str:
        """The URL path."""
        path = f"{self.kind.path}/namespaces/{self.namespace}/{self.kind.plural}"
        if self.name and self.method != "POST":
            path = "/".join([path, self.name, *([self.part] if self.part else [])])
        return path

    @property
    def permission(self) -> str:
        """The permission that the request needs, as for `kubectl auth can-i`: `create jobs.batch`."""
        verb = _VERBS[self.method] if self.name or self.method != "GET" else "watch" if self.watch else "list"
        plural = f"{self.kind.plural}/{self.part}" if self.part else self.kind.plural
        return f"{verb} {plural}{'.' + self.kind.group if self.kind.group else ''}"

    @property
    def subject(self) -> str:
        """The objects as messages name them."""
        return f"{self.kind.name} {self.name!r}" if self.name else f"{self.kind.plural} of {self.namespace!r}"


def is_retryable(status: int) -> bool:
    """Return whether a later attempt may succeed."""
    return status in _BUSY


def failure(request: ApiRequest, status: int, body: dict[str, Any]) -> PackagerError:
    """Return the error for a response whose status is not 2xx."""
    message = sanitize(body.get("message")) or f"HTTP status {status}"
    if status == HTTPStatus.UNAUTHORIZED:
        hint = "log in again; `kubectl auth whoami` shows the current user"
        return ClusterAccessError(f"the cluster rejected the credentials: {message}", hint=hint)
    if status == HTTPStatus.FORBIDDEN:
        return _forbidden(request, message)
    if status == HTTPStatus.NOT_FOUND:
        return _missing(request, message)
    if status == HTTPStatus.CONFLICT:
        return _conflict(request, message, str(body.get("reason")))
    if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
        return RequestError.from_problems(f"the cluster rejected {request.subject}", _problems(body) or [message])
    retryable = is_retryable(status)
    hint = "the API server is overloaded or unavailable; try again later" if retryable else _NOT_AN_API_SERVER
    return ClusterError(f"cannot {request.permission}: {message}", hint=hint, retryable=retryable)


def _missing(request: ApiRequest, message: str) -> PackagerError:
    if re.search(r'namespaces "[^"]*" not found', message):
        return ClusterError(
            f"namespace {request.namespace!r} does not exist", hint="choose another one with --namespace"
        )
    return EntityNotFoundError(f"{request.subject} does not exist in namespace {request.namespace!r}")


def _conflict(request: ApiRequest, message: str, reason: str) -> PackagerError:
    if reason == "AlreadyExists":
        return EntityExistsError(f"{request.subject} already exists in namespace {request.namespace!r}")
    return ClusterError(f"{request.subject} was changed by another client: {message}", hint="run the command again")


def _forbidden(request: ApiRequest, message: str) -> PackagerError:
    if "exceeded quota" in message:
        return ClusterError(
            f"the quota of namespace {request.namespace!r} is exceeded: {message}",
            hint="wait for other packagings to end, delete finished ones, or ask for a higher quota",
        )
    if _BY_RBAC.search(message):
        for_admins = request.kind.plural in _ENTITIES and request.permission not in _OF_USERS
        role = "packager-admin" if for_admins else "packager-user"
        return ClusterAccessError(
            f"permission denied: {request.permission} in namespace {request.namespace!r}: {message}",
            hint=f"ask for a Role with this permission (the chart's {role} has it); "
            f"check with `kubectl auth can-i {request.permission} -n {request.namespace}`",
        )
    return ClusterError(
        f"a policy of the cluster rejected {request.subject}: {message}",
        hint="ask the cluster's administrators, or change the Job settings to comply with the policy",
    )


def _problems(body: dict[str, Any]) -> list[str]:
    causes = (body.get("details") or {}).get("causes") or []
    return [f"{each.get('field', '')}: {sanitize(each.get('message'))}" for each in causes if isinstance(each, dict)]
