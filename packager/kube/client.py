"""HTTP requests to a Kubernetes API server; the only module that imports the official client.

The client library handles kubeconfig, contexts, logins (tokens, certificates, credential plugins), in-cluster accounts,
proxies and TLS. Objects are plain mappings, sent as they were rendered.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import KubeConfigMerger

from packager import __version__
from packager.errors import ClusterError, ClusterUnreachableError
from packager.kube.api_errors import ApiRequest, BrokenOffError, failure, is_retryable
from packager.kube.names import check_namespace
from packager.logs.sanitize import sanitize
from packager.system.retries import RetryableError, RetryPolicy, read_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_CONNECT_SECONDS, _READ_SECONDS = 10.0, 60.0
RETRIES = RetryPolicy(attempts=4)
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# What the library raises for an invalid kubeconfig; RuntimeError: the user has no home directory.
_INVALID_KUBECONFIG = (
    *(ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, yaml.YAMLError),
)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Which cluster to use, as kubectl's options select it; with nothing set, kubectl's default."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None


def open_client(access: Access, environ: Mapping[str, str], *, retries: RetryPolicy = RETRIES) -> tuple[Client, str]:
    """Return a client for the cluster that kubectl would use, and the namespace.

    The cluster comes from the kubeconfig, else from the pod's own service account.

    Raises:
        ClusterUnreachableError: There is no configuration, or it is invalid.
        UsageError: The namespace's name is invalid.
    """
    configuration: Any = Configuration()
    path = str(access.kubeconfig or environ.get("KUBECONFIG") or "~/.kube/config")
    untyped: Any = config
    try:
        exists = any(Path(part).expanduser().exists() for part in path.split(os.pathsep))
        own_account = not exists and access.kubeconfig is None and not access.context
        if own_account and "KUBERNETES_SERVICE_HOST" in environ:
            untyped.load_incluster_config(client_configuration=configuration)
            own = _OWN_NAMESPACE.read_text(encoding="utf-8").strip()
        else:
            path = os.pathsep.join(str(Path(part).expanduser()) for part in path.split(os.pathsep))
            untyped.load_kube_config(path, context=access.context or None, client_configuration=configuration)
            own = _namespace_of(path, access.context)
    except _INVALID_KUBECONFIG as error:
        raise ClusterUnreachableError(
            f"no cluster is configured in {path}: {sanitize(error)}",
            hint="choose a kubeconfig with --kubeconfig or KUBECONFIG, and one of its contexts with --context",
        ) from error
    if "@" in urlsplit(configuration.host).netloc:
        raise ClusterUnreachableError(
            f"the server URL in {path} contains a user name or password",
            hint="write `server: https://HOST`, and the credentials under `users`",
        )
    configuration.retries = False  # retries are decided here
    namespace = check_namespace(access.namespace or own or "default")
    return Client(configuration, retries), namespace


def _namespace_of(path: str, context: str | None) -> str:
    """Return the namespace of a context; the library's own list of contexts fails without a current context."""
    merge: Any = KubeConfigMerger  # untyped
    merged = merge(path).config
    chosen = merged["contexts"].get_with_name(context or merged["current-context"])
    return str(chosen["context"].safe_get("namespace") or "")


class Client:
    """Sends requests to an API server, and retries what may succeed later."""

    def __init__(self, configuration: Configuration, retries: RetryPolicy) -> None:
        """Take the server's configuration."""
        self._api: Any = ApiClient(configuration)
        self._api.user_agent = f"packager/{__version__}"
        self._host = configuration.host
        self._retries = retries

    def send(
        self, request: ApiRequest, *, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send a request and return the status and the object of the response.

        Only what cannot take effect twice is retried: reads, and requests that the server rejected as too many.

        Raises:
            ClusterUnreachableError: The server is unreachable.
            ClusterError: The response is not that of an API server.
        """

        def once() -> tuple[int, dict[str, Any]]:
            try:
                with closing(self._open(request, query or {}, body, _READ_SECONDS)) as response:
                    status, data, headers = int(response.status), response.data, response.headers
            except urllib3.exceptions.HTTPError as error:
                raise self._unreachable(error) from error
            answer = _object(data)
            if status < HTTPStatus.MULTIPLE_CHOICES and not {"kind", "metadata"} & answer.keys():
                unexpected = self._unexpected_response(answer)
                raise RetryableError(unexpected) if request.method == "GET" else unexpected
            if is_retryable(status) and (request.method == "GET" or status == HTTPStatus.TOO_MANY_REQUESTS):
                raise RetryableError(failure(request, status, answer), retry_after=read_retry_after(headers))
            return status, answer

        return self._retry(once, request)

    def lines(
        self, request: ApiRequest, query: Mapping[str, str], *, read_seconds: float, allow_status: int = 0
    ) -> Iterator[str]:
        """Yield the lines of a response as they arrive; nothing for the status `allow_status`.

        Raises:
            BrokenOffError: The connection broke, or no line arrived for `read_seconds`.
            PackagerError: The server rejected the request or is unreachable.
        """

        def begin() -> Any:  # noqa: ANN401  (urllib3's response, untyped in the client)
            response = self._open(request, query, None, read_seconds)
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                return response
            with closing(response):
                answer = _object(response.data)
            if is_retryable(response.status):
                wait = read_retry_after(response.headers)
                raise RetryableError(failure(request, response.status, answer), retry_after=wait)
            if response.status == allow_status:
                return None
            raise failure(request, response.status, answer)

        response = self._retry(begin, request)
        if response is None:
            return
        with closing(response):
            held = b""
            try:
                for block in response.stream(amt=None, decode_content=True):
                    *lines, held = (held + block).split(b"\n")
                    yield from (line.decode(errors="replace") for line in lines if line)
            except urllib3.exceptions.HTTPError as error:
                log.debug("the connection for %s broke: %s", request.subject, error)
                raise BrokenOffError from error
            if held:
                yield held.decode(errors="replace")

    def _retry(self, work: Callable[[], _T], request: ApiRequest) -> _T:
        """Do the work with retries. An unreachable server is retried for reads only: a write may have taken effect."""

        def attempt() -> _T:
            try:
                return work()
            except ClusterUnreachableError as error:
                if error.retryable and request.method == "GET":
                    raise RetryableError(error) from error.__cause__
                raise

        try:
            return self._retries.call(attempt, request.permission)
        except RetryableError as failed:
            raise failed.error from failed.__cause__

    def _open(
        self, request: ApiRequest, query: Mapping[str, str], body: Mapping[str, Any] | None, read_seconds: float
    ) -> Any:  # noqa: ANN401  (urllib3's response, untyped in the client)
        headers = {"Accept": "application/json"}
        if body is not None:
            merge = request.method == "PATCH"
            headers["Content-Type"] = "application/merge-patch+json" if merge else "application/json"
        words = self._api.param_serialize(
            request.method,
            request.path,
            query_params=[(name, value) for name, value in query.items() if value],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            return self._api.call_api(*words, _request_timeout=(_CONNECT_SECONDS, read_seconds)).response
        except (urllib3.exceptions.HTTPError, ApiException) as error:  # ApiException: an untrusted certificate
            raise self._unreachable(error) from error
        except ValueError:
            raise self._unsendable() from None  # its message contains the token

    def _unsendable(self) -> ClusterUnreachableError:
        return ClusterUnreachableError(
            f"the credentials for the cluster {self._host} contain characters that an HTTP header cannot",
            hint="look for a line break or a non-ASCII character in the token of the kubeconfig",
        )

    def _unexpected_response(self, answer: Mapping[str, Any]) -> ClusterError:
        return ClusterError(
            f"{self._host} is not a Kubernetes API server: {sanitize(answer.get('message'))}",
            hint="a proxy or a login page may have answered: check the kubeconfig's server and the proxy",
            retryable=True,
        )

    def _unreachable(self, error: Exception) -> ClusterUnreachableError:
        cause = error.reason if isinstance(error, ApiException) else error
        return ClusterUnreachableError(
            f"cannot reach the cluster at {self._host}: {sanitize(cause)}",
            hint="check the context, the network and the proxy",
            retryable=True,
        )


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {"message": data[:400].decode(errors="replace")}  # a proxy's page
    return value if isinstance(value, dict) else {}
