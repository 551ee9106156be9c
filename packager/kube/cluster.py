"""One namespace of a cluster: its objects, lists, watches and logs, as plain mappings."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from packager.kube.api_errors import ApiRequest, BrokenOffError, failure, is_retryable
from packager.kube.client import RETRIES, Access, Client, open_client
from packager.kube.names import PODS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from packager.system.retries import RetryPolicy

__all__ = ["Access", "Cluster", "connect"]

log = logging.getLogger(__name__)

PAGE = 50  # objects per response: a Job with its document and results takes about 10 kB
_GRACE_SECONDS = 5.0  # added to a watch's own timeout, at which the API server ends it


def connect(access: Access, environ: Mapping[str, str], *, retries: RetryPolicy = RETRIES) -> Cluster:
    """Connect to the cluster that kubectl would use.

    Raises:
        ClusterUnreachableError: No cluster is configured, or the configuration is invalid.
        UsageError: The namespace's name is invalid.
    """
    return Cluster(*open_client(access, environ, retries=retries))


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, client: Client, namespace: str) -> None:
        """Work in a namespace through `client`."""
        self.namespace = namespace
        self._client = client

    def get(self, kind: Kind, name: str) -> dict[str, Any]:
        """Return an object.

        Raises:
            EntityNotFoundError, ClusterError
        """
        return self._answer(self._request("GET", kind, name))

    def create(self, kind: Kind, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object and return it as the cluster stored it; a `dry_run` only validates it.

        Raises:
            EntityExistsError, RequestError, ClusterError
        """
        query = {"dryRun": "All"} if dry_run else {}
        return self._answer(self._request("POST", kind, body["metadata"]["name"]), query=query, body=body)

    def replace(self, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object.

        Raises:
            EntityNotFoundError, RequestError, ClusterError
        """
        return self._answer(self._request("PUT", kind, body["metadata"]["name"]), body=body)

    def patch(self, kind: Kind, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `body` into an object (RFC 7396).

        Raises:
            EntityNotFoundError, RequestError, ClusterError
        """
        return self._answer(self._request("PATCH", kind, name), body=body)

    def delete(self, kind: Kind, name: str, *, uid: str = "", propagation: str = "Background") -> None:
        """Delete an object and what it owns; with `uid`, only if it has this UID.

        Raises:
            EntityNotFoundError, ClusterError
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        self._answer(self._request("DELETE", kind, name), body=options)

    def pages(self, kind: Kind, *, labels: str = "", fields: str = "") -> Iterator[tuple[list[dict[str, Any]], str]]:
        """Yield the objects page by page, each page with the list's resource version.

        When the continue token has expired (410), the list continues from the same position with newer objects.

        Raises:
            ClusterError
        """
        selectors = {"labelSelector": labels, "fieldSelector": fields, "limit": str(PAGE)}
        token = ""
        while True:
            request = self._request("GET", kind)
            status, answer = self._client.send(request, query={**selectors, "continue": token})
            if status == HTTPStatus.GONE and token and (newer := (answer.get("metadata") or {}).get("continue")):
                token = newer
                continue
            if status >= HTTPStatus.MULTIPLE_CHOICES:
                raise failure(request, status, answer)
            metadata = answer.get("metadata") or {}
            yield answer.get("items") or [], str(metadata.get("resourceVersion", ""))
            token = str(metadata.get("continue") or "")
            if not token:
                return

    def list(self, kind: Kind, *, labels: str = "", fields: str = "") -> tuple[list[dict[str, Any]], str]:
        """Return all objects, for kinds of which there are few, with the list's resource version."""
        items: list[dict[str, Any]] = []
        version = ""
        for page, version in self.pages(kind, labels=labels, fields=fields):  # noqa: B007  (the version of the last page)
            items += page
        return items, version

    def watch(
        self, kind: Kind, *, labels: str = "", fields: str = "", version: str = "", seconds: float
    ) -> Iterator[dict[str, Any]]:
        """Yield the changes since a resource version, each `{"type", "object"}`, for about that many seconds.

        The watch ends without an error when the time is over, when the connection breaks, when the version is too old
        (410), and at an invalid event, such as half a line from a proxy that closed the stream. The caller lists the
        objects again then, so no change is missed.

        Raises:
            ClusterAccessError, ClusterUnreachableError, ClusterError
        """
        request = replace(self._request("GET", kind), watch=True)
        whole = max(1, int(seconds))
        query = {"labelSelector": labels, "fieldSelector": fields, "resourceVersion": version, "watch": "true"}
        query |= {"timeoutSeconds": str(whole), "allowWatchBookmarks": "true"}
        lines = self._client.lines(request, query, read_seconds=whole + _GRACE_SECONDS, allow_status=HTTPStatus.GONE)
        with suppress(BrokenOffError):
            for line in lines:
                event = _event(line)
                if event is None:
                    log.debug("the watch on %s returned an invalid event: %.200s", request.subject, line)
                    return
                if event.get("type") != "ERROR":
                    yield event
                    continue
                status = event.get("object") or {}
                code = int(status.get("code") or HTTPStatus.INTERNAL_SERVER_ERROR)
                log.debug("the watch on %s ended: %s", request.subject, status.get("message"))
                if code != HTTPStatus.GONE and not is_retryable(code):
                    raise failure(request, code, status)
                return

    def log_lines(self, pod: str, container: str, *, follow: bool, since: str = "", seconds: float) -> Iterator[str]:
        """Yield the lines of a container's log, each with a leading timestamp.

        Raises:
            BrokenOffError: The connection broke, or no line arrived for `seconds`; the log may be longer.
            EntityNotFoundError: The pod does not exist.
            RequestError: The container has not started yet.
            ClusterError
        """
        request = self._request("GET", PODS, pod, "log")
        query = {"container": container, "follow": str(follow).lower(), "timestamps": "true", "sinceTime": since}
        yield from self._client.lines(request, query, read_seconds=max(1.0, seconds))

    def _request(self, method: str, kind: Kind, name: str = "", part: str = "") -> ApiRequest:
        return ApiRequest(method=method, kind=kind, namespace=self.namespace, name=name, part=part)

    def _answer(
        self, request: ApiRequest, *, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        status, answer = self._client.send(request, query=query, body=body)
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            raise failure(request, status, answer)
        return answer


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("object"), dict) else None
