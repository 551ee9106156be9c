"""An API server for tests: the wire of a real one, in memory, which plays what a cluster does, scene by scene.

It keeps objects, resource versions and history, selects by labels and fields, pages lists, streams watches and logs in
chunks, and can cut, expire or refuse any of it. What the controllers of a cluster do is played by a test's own scene, a
function that runs in a thread of its own from the moment a Job is created.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

TOKEN = "the-token-of-ann"
START = "2026-03-01T10:00:{:02d}Z"
_ROUTE = re.compile(r"(?:/api/v1|/apis/batch/v1)/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?(?:/(log))?$")
_GROUPS = {"jobs": "batch"}


@dataclass(kw_only=True)
class RequestContext:
    """A request that was made."""

    method: str
    plural: str
    name: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass(kw_only=True)
class Refusal:
    """An answer in the place of the right one, for so many times."""

    method: str
    plural: str
    code: int
    message: str
    reason: str = ""
    times: int = 1_000_000
    extra: dict[str, Any] = field(default_factory=dict)


Permission = tuple[str, str, str]  # API group, resource, verb
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def permissions(role: dict[str, Any]) -> set[Permission]:
    """Return what a Role allows."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


class ApiServer:
    """The server; a context manager."""

    def __init__(self, *, longest_watch: float = 1.0, tls: tuple[Path, Path] | None = None) -> None:
        """Answer on a free port of this machine; a watch lives for `longest_watch` seconds at most."""
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []
        self.logs: dict[str, list[str]] = {}
        self.asked: list[RequestContext] = []
        self.refusals: list[Refusal] = []
        self.scene: Callable[[ApiServer, dict[str, Any]], None] = lambda _server, _job: None
        self.before_secret: Callable[[], object] = lambda: None
        self.before_job: Callable[[], object] = lambda: None
        self.before_job_answer: Callable[[], object] = lambda: None
        self.changed = threading.Condition()
        self.version = 100
        self.longest_watch = longest_watch
        self.cuts = 0  # the next so many watches or logs are cut after their first line
        self.expiries = 0  # the next so many watches are told that their version is too old
        self.list_expiries = 0  # the next so many lists are told the same about their `continue`
        self.lost_answers = 0  # the next so many objects are made, but the answer breaks off
        self.pages: list[tuple[str, bytes]] = []  # what comes in the place of an answer: of a `GET` or a `watch`
        self.failed: list[BaseException] = []
        self.allowed: set[Permission] | None = None  # None: everything
        self.used: set[Permission] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.server = self  # type: ignore[attr-defined]
        self._scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._closing = False

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def kubeconfig(self, path: Path, *, token: str = TOKEN, namespace: str = "ml") -> Path:
        """Write a kubeconfig with two contexts: `there`, and `nowhere`, a port where nobody listens."""
        clusters = {"there": f"{self._scheme}://127.0.0.1:{self.port}", "nowhere": "http://127.0.0.1:9"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "there",
            "clusters": [{"name": name, "cluster": {"server": url}} for name, url in clusters.items()],
            "users": [{"name": "ann", "user": {"token": token}}],
            "contexts": [
                {"name": name, "context": {"cluster": name, "user": "ann", "namespace": namespace}} for name in clusters
            ],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    # What a scene plays

    def put(self, plural: str, body: dict[str, Any], kind: str = "") -> dict[str, Any]:
        """Keep an object as it is now, and tell who watches."""
        with self.changed:
            name = body["metadata"]["name"]
            known = (plural, name) in self.objects
            self.version += 1
            metadata = {
                "namespace": "ml",
                "uid": f"uid-{plural}-{name}-{self.version}",
                "creationTimestamp": START.format(self.version % 60),
                **self.objects.get((plural, name), {}).get("metadata", {}),
                **body["metadata"],
                "resourceVersion": str(self.version),
            }
            stored: dict[str, Any] = json.loads(json.dumps({**body, "metadata": metadata}))
            self.objects[plural, name] = stored
            self.history.append((self.version, plural, kind or ("MODIFIED" if known else "ADDED"), stored))
            self.changed.notify_all()
            return stored

    def remove(self, plural: str, name: str) -> None:
        """Remove an object, and what it owns."""
        with self.changed:
            gone = self.objects.pop((plural, name))
            self.version += 1
            gone["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, plural, "DELETED", gone))
            owned = [
                key
                for key, each in self.objects.items()
                if gone["metadata"]["uid"] in [o["uid"] for o in each["metadata"].get("ownerReferences", [])]
            ]
            self.changed.notify_all()
            for key in owned:
                if key in self.objects:
                    self.remove(*key)

    def pod(self, job: dict[str, Any], number: int = 1, **status: Any) -> dict[str, Any]:
        """Keep a pod of a Job in a state: its `phase`, `conditions`, `reason`, and its container's `state`."""
        state = status.pop("state", None)
        if state is not None:
            image = job["spec"]["template"]["spec"]["containers"][0]["image"]
            status["containerStatuses"] = [{"name": "packager", "image": image, "state": state}]
        metadata = job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        name = f"{metadata['name']}-pod{number}"
        own = {"name": name, "labels": metadata["labels"], "ownerReferences": [owner]}
        own["creationTimestamp"] = START.format(number)
        return self.put("pods", {"metadata": own, "spec": {}, "status": {"phase": "Pending", **status}})

    def ended(self, job: dict[str, Any], code: int, message: Any = "", number: int = 1, **more: Any) -> dict[str, Any]:
        """Keep a pod of a Job whose container has ended; what it wrote to the termination log may be JSON."""
        text = message if isinstance(message, str) else json.dumps(message)
        reason = more.pop("terminated_reason", "Completed" if code == 0 else "Error")
        state = {"terminated": {"exitCode": code, "reason": reason, "message": text}}
        self.say(f"{job['metadata']['name']}-pod{number}", None)
        return self.pod(job, number, phase="Failed" if code else "Succeeded", state=state, **more)

    def finish(self, job: dict[str, Any], kind: str, reason: str = "", message: str = "") -> None:
        """Put the last condition on a Job."""
        name = job["metadata"]["name"]
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        self.put("jobs", {**self.objects["jobs", name], "status": {"conditions": [condition]}})

    def warn(self, kind: str, about: dict[str, Any], reason: str, message: str) -> None:
        """Keep an event about an object."""
        number = self.version + 1
        involved = {"kind": kind, "name": about["metadata"]["name"], "uid": about["metadata"]["uid"]}
        body = {
            "metadata": {"name": f"event-{number}"},
            "involvedObject": involved,
            "type": "Warning",
            "reason": reason,
            "message": message,
            "lastTimestamp": "2026-03-01T10:01:00Z",
        }
        self.put("events", body)

    def say(self, pod: str, text: str | None) -> None:
        """Add a line to a pod's log; None ends it."""
        with self.changed:
            lines = self.logs.setdefault(pod, [])
            moment = f"2026-03-01T10:02:{len(lines) // 10:02d}.{len(lines) % 10 + 1}Z"  # as Go writes it: no zeros
            lines.append("" if text is None else f"{moment} {text}")
            self.changed.notify_all()

    def refuse(self, method: str, plural: str, code: int, message: str, reason: str = "", **more: Any) -> None:
        self.refusals.append(Refusal(method=method, plural=plural, code=code, message=message, reason=reason, **more))

    def names(self, plural: str) -> list[str]:
        with self.changed:
            return sorted(name for kind, name in self.objects if kind == plural)

    def wait_for(self, plural: str) -> str:
        """Wait until there is an object, and return its name; for scenes."""
        with self.changed:
            while not (names := self.names(plural)):
                self.changed.wait(0.1)
            return names[0]

    def requests(self, method: str, plural: str) -> list[RequestContext]:
        return [each for each in self.asked if (each.method, each.plural) == (method, plural)]

    def play(self, job: dict[str, Any]) -> None:
        def run() -> None:
            try:
                self.scene(self, job)
            except BaseException as error:  # noqa: BLE001  (shown by the test)
                self.failed.append(error)

        threading.Thread(target=run, daemon=True).start()

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing = True
        with self.changed:
            self.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        for error in self.failed:
            raise AssertionError("the scene broke off") from error


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: ApiServer

    def log_message(self, *_words: object) -> None:
        """Say nothing."""

    def handle_one_request(self) -> None:
        self.api = self.server.server  # type: ignore[attr-defined]
        try:
            super().handle_one_request()
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        if self._in_its_place(query) or (self.command == "GET" and self._discovery(parts.path)):
            return
        route = _ROUTE.fullmatch(unquote(parts.path))
        if not route:
            self._status(404, f"no such path: {parts.path}")
            return
        namespace, plural, name, part = route.groups()
        asked = RequestContext(
            method=self.command,
            plural=f"{plural}/{part}" if part else plural,
            name=name or "",
            query=query,
            body=body,
            headers=dict(self.headers),
        )
        self.api.asked.append(asked)
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token != TOKEN:
            self._status(401, "Unauthorized", "Unauthorized")
            return
        permission = _permission(asked)
        self.api.used.add(permission)
        if self.api.allowed is not None and permission not in self.api.allowed:
            group, resource, verb = permission
            self._status(403, f'User "ann" cannot {verb} resource "{resource}" in API group "{group}"', "Forbidden")
            return
        for refusal in self.api.refusals:
            if (refusal.method, refusal.plural) == (asked.method, asked.plural) and refusal.times > 0:
                refusal.times -= 1
                self._status(refusal.code, refusal.message, refusal.reason, **refusal.extra)
                return
        if namespace != "ml":
            self._status(404, f'namespaces "{namespace}" not found', "NotFound")
            return
        if part == "log":
            self._log(name or "", query)
        elif self.command == "GET" and not name:
            self._watch(plural, query) if query.get("watch") == "true" else self._list(plural, query)
        else:
            self._object(asked)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815  (the library's names)

    def _in_its_place(self, query: dict[str, str]) -> bool:
        """Give what a proxy would, if the test says so."""
        pages, way = self.api.pages, "watch" if query.get("watch") == "true" else self.command
        if not pages or pages[0][0] != way:
            return False
        self._begin_chunks("text/html")
        self._chunk(pages.pop(0)[1])
        self._chunk(b"")
        return True

    def _discovery(self, path: str) -> bool:
        found = discovery(path)
        if found:
            self._json(200, found)
        return bool(found)

    # Answers

    def _json(self, code: int, body: dict[str, Any], *, whole: bool = True) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if whole else data[:9])
        self.close_connection |= not whole

    def _status(self, code: int, message: str, reason: str = "", **more: Any) -> None:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
        self._json(code, {**body, "code": code, **more})

    def _object(self, asked: RequestContext) -> None:
        api = self.api
        name = asked.name or asked.body["metadata"]["name"]
        found = api.objects.get((asked.plural, name))
        if asked.method == "POST":
            self._created(asked, name)
        elif not found:
            self._status(404, f'{asked.plural} "{name}" not found', "NotFound")
        elif asked.method == "GET":
            self._json(200, found)
        elif asked.method == "PUT":
            if asked.body["metadata"].get("resourceVersion", "") != found["metadata"]["resourceVersion"]:
                self._status(409, "the object has been modified", "Conflict")
                return
            self._json(200, api.put(asked.plural, _as_stored(asked.body)))
        elif asked.method == "PATCH" and asked.body["metadata"].get("uid") not in (None, found["metadata"]["uid"]):
            self._status(409, "Precondition failed: UID in precondition", "Conflict")
        elif asked.method == "PATCH":
            self._json(200, api.put(asked.plural, _merged(found, asked.body)))
        elif asked.body.get("preconditions", {}).get("uid") not in (None, found["metadata"]["uid"]):
            self._status(409, "the uid in the precondition does not match", "Conflict")
        else:
            api.remove(asked.plural, name)
            self._json(200, {"kind": "Status", "status": "Success"})

    def _created(self, asked: RequestContext, name: str) -> None:
        api = self.api
        if asked.plural == "secrets":
            api.before_secret()
        if (asked.plural, name) in api.objects:
            self._status(409, f'{asked.plural} "{name}" already exists', "AlreadyExists")
            return
        if asked.query.get("dryRun") == "All":
            self._json(201, asked.body)
            return
        if asked.plural == "jobs":
            api.before_job()
        stored = api.put(asked.plural, _as_stored(asked.body))
        if asked.plural == "jobs":
            api.before_job_answer()
        if api.lost_answers:
            api.lost_answers -= 1
            self._json(201, stored, whole=False)
        else:
            self._json(201, stored)
        if asked.plural == "jobs":
            api.play(stored)

    def _list(self, plural: str, query: dict[str, str]) -> None:
        api = self.api
        with api.changed:
            found = [
                each for (kind, _), each in sorted(api.objects.items()) if kind == plural and _selected(each, query)
            ]
            version = str(api.version)
        token, limit = int(query.get("continue", "0")), int(query.get("limit", "1000"))
        if token and api.list_expiries:
            api.list_expiries -= 1
            message = "The provided continue parameter is too old"
            self._status(410, message, "Expired", metadata={"continue": str(token)})
            return
        page, rest = found[token : token + limit], len(found) - token - limit
        metadata = {"resourceVersion": version, **({"continue": str(token + limit)} if rest > 0 else {})}
        self._json(200, {"kind": "List", "metadata": metadata, "items": page})

    def _begin_chunks(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _cut(self) -> None:
        """Break the connection in the middle of a line."""
        self._chunk(b'{"type": "MODIF')
        self.close_connection = True

    def _watch(self, plural: str, query: dict[str, str]) -> None:
        api = self.api
        self._begin_chunks("application/json")
        if api.expiries:
            api.expiries -= 1
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            self._chunk(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            self._chunk(b"")
            return
        if api.cuts:
            api.cuts -= 1
            self._cut()
            return
        last = int(query.get("resourceVersion") or 0)
        end = time.monotonic() + min(float(query.get("timeoutSeconds", "60")), api.longest_watch)
        while True:
            with api.changed:
                new = [item for item in api.history if item[0] > last and item[1] == plural]
                if not new and time.monotonic() < end and not api._closing:  # noqa: SLF001  (our own)
                    api.changed.wait(0.05)
                    continue
            for version, _, kind, each in new:
                last = version
                if _selected(each, query):
                    self._chunk(json.dumps({"type": kind, "object": each}).encode() + b"\n")
            if time.monotonic() >= end or api._closing:  # noqa: SLF001
                self._chunk(b"")
                return

    def _log(self, name: str, query: dict[str, str]) -> None:
        api = self.api
        if ("pods", name) not in api.objects:
            self._status(404, f'pods "{name}" not found', "NotFound")
            return
        self._begin_chunks("text/plain")
        since = query.get("sinceTime", "")[:19]  # whole seconds: the kubelet gives some lines again
        sent, follow = 0, query.get("follow") == "true"
        while True:
            with api.changed:
                lines = api.logs.get(name, [])[sent:]
                if not lines and follow and not api._closing:  # noqa: SLF001
                    api.changed.wait(0.05)
                    continue
            sent += len(lines)
            for line in lines:
                if line and line[:19] >= since:
                    self._chunk(line.encode() + b"\n")
                    if api.cuts and follow:
                        api.cuts -= 1
                        self._cut()
                        return
            if not follow or "" in lines or api._closing:  # noqa: SLF001
                self._chunk(b"")
                return


_RESOURCES = {
    "v1": {
        "configmaps": "ConfigMap",
        "secrets": "Secret",
        "serviceaccounts": "ServiceAccount",
        "namespaces": "Namespace",
    },
    "batch/v1": {"jobs": "Job"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
}


def discovery(path: str) -> dict[str, Any] | None:
    """What kubectl asks before anything else: which kinds there are."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for version in list(_RESOURCES)[1:]:
            each = {"groupVersion": version, "version": "v1"}
            groups.append({"name": version.partition("/")[0], "versions": [each], "preferredVersion": each})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = path.removeprefix("/apis/") if path.startswith("/apis/") else path.removeprefix("/api/")
    if version not in _RESOURCES:
        return None
    kinds = [
        {"name": plural, "kind": kind, "namespaced": kind != "Namespace", "verbs": ["create", "get"]}
        for plural, kind in _RESOURCES[version].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": kinds}


def _permission(asked: RequestContext) -> Permission:
    if asked.method == "GET" and not asked.name:
        verb = "watch" if asked.query.get("watch") == "true" else "list"
    else:
        verb = _VERBS.get(asked.method, "get")
    return _GROUPS.get(asked.plural, ""), asked.plural, verb


def _as_stored(body: dict[str, Any]) -> dict[str, Any]:
    """Fold `stringData` into `data`, as the API server does."""
    stored = {key: value for key, value in body.items() if key != "stringData"}
    if "stringData" in body:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in body["stringData"].items()}
        stored["data"] = {**body.get("data", {}), **encoded}
    return stored


def _merged(old: Any, change: Any) -> Any:
    """Merge as RFC 7396 says."""
    if not isinstance(change, dict):
        return change
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _selected(each: dict[str, Any], query: dict[str, str]) -> bool:
    labels = each["metadata"].get("labels") or {}
    for name, several, one in re.findall(
        r"([^,=!]+?)(?: in \(([^)]*)\)|=([^,]*))(?:,|$)", query.get("labelSelector", "")
    ):
        if labels.get(name) not in (several.split(",") if several else [one]):
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, wanted = term.partition("=")
        value: Any = each
        for part in path.split("."):
            value = value.get(part, "") if isinstance(value, dict) else ""
        if value != wanted:
            return False
    return True
