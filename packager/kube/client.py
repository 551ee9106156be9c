"""The wire to a Kubernetes API server, through the official client; the only importer of it.

The library gives what is hard: kubeconfig, contexts, logins (tokens, certificates, programs of clouds), in-cluster
accounts, proxies and TLS. Objects are plain mappings, sent as they were rendered.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import KubeConfigMerger
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from packager import __version__
from packager.errors import ClusterError, ClusterUnreachableError, PackagerError
from packager.kube.api_errors import ApiRequest, BrokenOffError, failure, is_retryable
from packager.kube.cluster import Cluster
from packager.kube.names import check_namespace
from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger(__name__)

_CONNECT_SECONDS, _READ_SECONDS = 10.0, 60.0
_TRIES = 4
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# What reading a wrong kubeconfig ends in; RuntimeError: nobody's home.
_WRONG = (*(ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, yaml.YAMLError),)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Which cluster is meant, as kubectl's options say it; all None: as kubectl would choose."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None


class _Retryable(Exception):  # noqa: N818  (never leaves this module)
    """A failure that may be over in a moment."""

    def __init__(self, error: PackagerError) -> None:
        super().__init__(str(error))
        self.error = error


def connect(access: Access, environ: Mapping[str, str], *, pause: float = 0.5) -> Cluster:
    """Find the cluster as kubectl does: by the kubeconfig, else by the pod's own service account.

    `pause` is the seconds before a transient failure is retried, doubled each time.

    Raises:
        ClusterUnreachableError: There is no configuration, or it's wrong.
        UsageError: The namespace is none.
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
    except _WRONG as error:
        raise ClusterUnreachableError(
            f"no cluster is configured by {path}: {sanitize(error)}",
            hint="name a kubeconfig with --kubeconfig or KUBECONFIG, and one of its contexts with --context",
        ) from error
    if "@" in urlsplit(configuration.host).netloc:
        raise ClusterUnreachableError(
            f"the cluster's address in {path} holds a user or a password",
            hint="write `server: https://HOST`, and the login under `users`",
        )
    configuration.retries = False  # what may be tried again is decided here
    namespace = check_namespace(access.namespace or own or "default")
    return Cluster(Client(configuration, pause=pause), namespace)


def _namespace_of(path: str, context: str | None) -> str:
    """Return the namespace of a context that could be loaded; the library's list of them wants a current one."""
    merge: Any = KubeConfigMerger  # untyped
    merged = merge(path).config
    chosen = merged["contexts"].get_with_name(context or merged["current-context"])
    return str(chosen["context"].safe_get("namespace") or "")


class Client:
    """Asks an API server, again where a moment later the answer may be another."""

    def __init__(self, configuration: Configuration, *, pause: float) -> None:
        """Take how the server is reached."""
        self._api: Any = ApiClient(configuration)
        self._api.user_agent = f"packager/{__version__}"
        self._host = configuration.host
        self._pause = pause

    def ask(
        self, request: ApiRequest, *, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return the status and the object of an answer.

        Asked again is what can't do a thing twice: reads, and what the server was too busy to take.

        Raises:
            ClusterUnreachableError
            ClusterError: The answer is none of an API server.
        """

        def once() -> tuple[int, dict[str, Any]]:
            try:
                with closing(self._send(request, query or {}, body, _READ_SECONDS)) as response:
                    status, data = int(response.status), response.data
            except urllib3.exceptions.HTTPError as error:
                raise self._unreachable(error) from error
            answer = _object(data)
            if status < HTTPStatus.MULTIPLE_CHOICES and not {"kind", "metadata"} & answer.keys():
                unexpected = self._unexpected_response(request, answer)
                raise _Retryable(unexpected) if request.method == "GET" else unexpected
            if is_retryable(status) and (request.method == "GET" or status == HTTPStatus.TOO_MANY_REQUESTS):
                raise _Retryable(failure(request, status, answer))
            return status, answer

        answered: tuple[int, dict[str, Any]] = self._again(once, unreachable=request.method == "GET")
        return answered

    def lines(
        self, request: ApiRequest, query: Mapping[str, str], *, read_seconds: float, allow_status: int = 0
    ) -> Iterator[str]:
        """Give an answer's lines as they come; none at the status `allow_status`.

        Raises:
            BrokenOffError: The connection broke, or no line came for `read_seconds`.
            PackagerError: The server refused, or can't be reached from the first.
        """

        def begin() -> Any:  # noqa: ANN401  (urllib3's response, untyped in the client)
            response = self._send(request, query, None, read_seconds)
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                return response
            with closing(response):
                answer = _object(response.data)
            if is_retryable(response.status):
                raise _Retryable(failure(request, response.status, answer))
            if response.status == allow_status:
                return None
            raise failure(request, response.status, answer)

        response = self._again(begin, unreachable=True)
        if response is None:
            return
        with closing(response):
            held = b""
            try:
                for block in response.stream(amt=None, decode_content=True):
                    *lines, held = (held + block).split(b"\n")
                    yield from (line.decode(errors="replace") for line in lines if line)
            except urllib3.exceptions.HTTPError as error:
                log.debug("the connection about %s broke: %s", request.subject, error)
                raise BrokenOffError from error
            if held:
                yield held.decode(errors="replace")

    def _again(self, ask: Callable[[], Any], *, unreachable: bool) -> Any:  # noqa: ANN401  (what `ask` gives)
        retryable = (_Retryable, ClusterUnreachableError) if unreachable else (_Retryable,)
        retrying = Retrying(
            retry=retry_if_exception_type(retryable),
            stop=stop_after_attempt(_TRIES),
            wait=wait_exponential(multiplier=self._pause, max=10),
            reraise=True,
        )
        try:
            return retrying(ask)
        except _Retryable as passed:
            raise passed.error from passed

    def _send(
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
        except (urllib3.exceptions.HTTPError, ApiException) as error:  # the latter for a certificate it doesn't trust
            raise self._unreachable(error) from error
        except ValueError:
            raise self._unsendable() from None  # its words hold the token

    def _unsendable(self) -> ClusterUnreachableError:
        return ClusterUnreachableError(
            f"the login at the cluster {self._host} can't be sent: it holds what no HTTP header can",
            hint="look for a line break or another odd character in the token of the kubeconfig",
        )

    def _unexpected_response(self, request: ApiRequest, answer: Mapping[str, Any]) -> ClusterError:
        return ClusterError(
            f"what answers at {self._host} for the {request.subject} is no Kubernetes: "
            f"{sanitize(answer.get('message'))}",
            hint="a proxy or a login page may stand before the cluster: check the kubeconfig's server and the proxy",
            retryable=True,
        )

    def _unreachable(self, error: Exception) -> ClusterUnreachableError:
        cause = error.reason if isinstance(error, ApiException) else error
        return ClusterUnreachableError(
            f"the cluster at {self._host} can't be reached: {cause}",
            hint="check the context, the network and the proxy",
            retryable=True,
        )


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {"message": data[:400].decode(errors="replace")}  # a proxy's page
    return value if isinstance(value, dict) else {}
