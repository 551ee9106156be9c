"""Registries that can't be run here, as their users and makers report them: one server, and what differs as data.

By default the answers are those of github.com/opencontainers/distribution-spec. Each difference names the report that
it was made from. Tests don't wait for the times that a report names (a `Retry-After` of 60).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler
from itertools import count
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, urlsplit

from tests.integration.fronts import Server, read_body, serving
from tests.integration.registry import PASSWORD, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USERNAME = "packager"
_ROUTE = re.compile(r"/v2/(?P<path>.+)/(?P<kind>manifests|blobs/uploads|blobs)/(?P<name>[^/]*)")
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def _refusal(status: int, code: str, message: str = "", **headers: str) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message or code.lower()}]}).encode()
    return Answer(status=status, body=body, headers={"Content-Type": "application/json", **headers})


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """What a registry does its own way.

    Attributes:
        token_path: Where its token service is; it takes the password itself (Basic) when that is empty.
        token_elsewhere: The token service is another host.
        last_scope: A token is for the last scope only of those that were asked for.
        token_for_anyone: A wrong password gets a token too, which allows nothing.
        session_cookie: The token service sets a cookie, and what writes must not carry it.
        location: How an upload's address is given.
        upload_redirect: Uploads are begun at another host, where the registry sends the client.
        patch_status: The answer to a blob's PATCH.
        first_range: The answer to a PATCH always has the range of the first one.
        upload_state: What a GET of an upload tells: the range, one byte too many, or nothing.
        whole_put: Whether a PUT may bring all of a blob.
        mounts_referenced: A blob is mounted only where a manifest of its repository names it.
        mount_scope: A token must allow to pull from where a blob is mounted.
        digest_header: Whether manifests come with Docker-Content-Digest.
        blob_redirect: The status with which a blob's GET is sent on to a storage, which takes no Authorization; or 0.
        missing_manifest: The answer for a manifest that isn't there.
        limits: What is answered with `limit` the first time: "token", "upload", "manifest".
        immutable: The answer to a manifest for a tag that is there.
        same_again: Whether a tag that is there may be put again with what it has, all the same.
        refused_type: A manifest's type that isn't taken, and the answer.
    """

    token_path: str = ""
    token_elsewhere: bool = False
    last_scope: bool = False
    token_for_anyone: bool = False
    session_cookie: bool = False
    location: Literal["absolute", "path"] = "absolute"
    upload_redirect: bool = False
    patch_status: int = 202
    first_range: bool = False
    upload_state: Literal["range", "one more", "unknown"] = "range"
    whole_put: bool = True
    mounts_referenced: bool = False
    mount_scope: bool = True
    digest_header: bool = True
    blob_redirect: int = 0
    missing_manifest: int = 404
    limits: tuple[str, ...] = ()
    limit: Answer = field(default_factory=lambda: _refusal(429, "TOOMANYREQUESTS"))
    immutable: Answer | None = None
    same_again: bool = True
    refused_type: tuple[str, Answer] | None = None


ECR = Quirks(
    patch_status=201,  # openai/tart#273, jdx/mise#11376
    first_range=True,  # aws/containers-roadmap#2831
    upload_state="unknown",  # dotnet/sdk#33019
    mounts_referenced=True,  # aws/containers-roadmap#2860
    digest_header=False,  # google/containerregistry#10
    blob_redirect=307,  # open-policy-agent/opa#6728
)
ECR_IMMUTABLE = replace(  # aws/containers-roadmap#2380, moby/buildkit#3776
    ECR, immutable=_refusal(400, "TAG_INVALID", "The image tag already exists; the tag is immutable."), same_again=False
)
HARBOR = Quirks(
    token_path="/service/token",  # goharbor/harbor#9482
    session_cookie=True,  # dotnet/sdk-container-builds#418
    token_for_anyone=True,  # goharbor/harbor#11632, #20930
    location="path",  # goharbor/harbor-helm#839
    blob_redirect=307,  # spring-attic/spring-cloud-dataflow#4065
)
HARBOR_IMMUTABLE = replace(  # goharbor/harbor#9427
    HARBOR, immutable=_refusal(412, "PRECONDITION", "The tag is immutable, cannot be overwrite.")
)
GITLAB = Quirks(
    token_path="/jwt/auth",  # estesp/manifest-tool#53
    last_scope=True,  # estesp/manifest-tool#53, GoogleContainerTools/kaniko#181
)
QUAY = Quirks(
    token_path="/v2/auth",  # oras-project/oras#738
    mount_scope=False,  # quay/quay, endpoints/v2/blob.py: _try_to_mount_blob
    upload_state="one more",  # the same: fetch_existing_upload
    blob_redirect=302,  # dotnet/sdk-container-builds#566
    limits=("token", "manifest"),  # quay/quay#4133, 3scale/3scale-operator#583
    limit=Answer(
        status=429, body=b"<html><h1>429 Too Many Requests</h1></html>", headers={"Content-Type": "text/html"}
    ),
)
QUAY_WITHOUT_OCI = replace(  # GoogleContainerTools/jib#698, genuinetools/img#113
    QUAY, limits=(), refused_type=(_OCI_MANIFEST, _refusal(415, "MANIFEST_INVALID", "manifest invalid"))
)
ARTIFACTORY = Quirks(
    token_path="/artifactory/api/docker/docker-local/v2/token",  # earthly/earthly#1017
    whole_put=False,  # docker/buildx#196
    missing_manifest=403,  # google/go-containerregistry#1691
)
ARTIFACTORY_WITHOUT_DELETE = replace(  # GoogleContainerTools/kaniko#1095
    ARTIFACTORY, immutable=_refusal(403, "MANIFEST_INVALID", "manifest invalid")
)
DOCKER_HUB = Quirks(
    token_path="/token",  # GoogleContainerTools/jib#691
    token_elsewhere=True,
    mount_scope=True,  # oras-project/rust-oci-client#235
    blob_redirect=307,  # docker/hub-feedback#2218
    limits=("token", "upload", "manifest"),  # docker/hub-feedback#1907
    limit=Answer(
        status=429,
        body=b"Too Many Requests (HAP429).\n",
        headers={"Content-Type": "text/plain", "Retry-After": "0"},
    ),
)
DOCKER_HUB_IMMUTABLE = replace(DOCKER_HUB, limits=(), immutable=_refusal(403, "DENIED"))  # docker/hub-feedback#2466
REDIRECTED = Quirks(upload_redirect=True)  # containerd/containerd#11949


@contextmanager
def serve_fake(folder: Path, quirks: Quirks) -> Iterator[Registry]:
    """Run a registry with these quirks, which wants the password, for the block."""
    with serving(Server(partial(_Handler, _Store(quirks=quirks, limits=set(quirks.limits))))) as port:
        yield Registry(host=f"127.0.0.1:{port}", folder=folder, username=USERNAME, password=PASSWORD)


@dataclass
class _Upload:
    data: bytearray = field(default_factory=bytearray)
    parts: list[int] = field(default_factory=list)  # where each one has ended
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while a part comes in


@dataclass
class _Store:
    quirks: Quirks
    limits: set[str]
    blobs: defaultdict[str, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)  # by path and tag or digest
    uploads: dict[str, _Upload] = field(default_factory=dict)  # by host's name and number
    numbers: count[int] = field(default_factory=count)


def _digest(data: bytes | bytearray) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, store: _Store, *rest: Any) -> None:
        self.store, self.quirks = store, store.quirks
        super().__init__(*rest)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""

    def handle_any(self) -> None:
        self.body = read_body(self)
        answer = self.answer()
        for _piece in self.body:
            pass
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815  (the names it looks for)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the request came by the other name of this server, which means another host."""
        return self.headers["Host"].startswith("localhost")

    def elsewhere(self, path: str) -> str:
        assert isinstance(self.server, Server)
        return f"http://localhost:{self.server.server_port}{path}"

    def answer(self) -> Answer:  # noqa: PLR0911  (one each for what may be asked for)
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path.startswith("/storage/"):
            return self.stored(url.path.removeprefix("/storage/"))
        if url.path == self.quirks.token_path:
            return self.limited("token") or self.token(parse_qs(url.query).get("scope", []))
        if url.path == "/v2/":
            return self.challenge([]) or Answer(status=200)
        route = _ROUTE.fullmatch(url.path)
        if route is None:
            return _refusal(404, "NAME_UNKNOWN")
        path, kind, name = route["path"], route["kind"], route["name"]
        if refused := self.refused(path, query):
            return refused
        if kind == "blobs/uploads":
            return self.begin(path, query) if not name else self.upload(path, name, query)
        if kind == "blobs":
            return self.blob(path, name)
        return self.put_manifest(path, name) if self.command == "PUT" else self.manifest(path, name)

    def limited(self, what: str) -> Answer | None:
        try:
            self.store.limits.remove(what)
        except KeyError:
            return None
        return self.quirks.limit

    def refused(self, path: str, query: dict[str, str]) -> Answer | None:
        """Refuse what the request's login doesn't allow."""
        writes = self.command not in ("GET", "HEAD")
        if writes and self.quirks.session_cookie and "sid=" in self.headers.get("Cookie", ""):
            return _refusal(403, "FORBIDDEN", "CSRF token invalid")
        if self.quirks.upload_redirect and self.is_elsewhere:
            return None
        scopes = [f"repository:{path}:pull,push" if writes else f"repository:{path}:pull"]
        if "from" in query and self.quirks.mount_scope:
            scopes.append(f"repository:{query['from']}:pull")
        return self.challenge(scopes)

    def challenge(self, scopes: list[str]) -> Answer | None:
        given = self.headers.get("Authorization", "")
        if not self.quirks.token_path:
            wanted = 'Basic realm="registry"'
            if given == self.password:
                return None
        else:
            path = self.quirks.token_path
            realm = self.elsewhere(path) if self.quirks.token_elsewhere else f"http://{self.headers['Host']}{path}"
            wanted = f'Bearer realm="{realm}",service="registry"' + (f',scope="{" ".join(scopes)}"' if scopes else "")
            if given.startswith("Bearer ") and self.allows(given.removeprefix("Bearer "), scopes):
                return None
        return _refusal(401, "UNAUTHORIZED", "authentication required", **{"WWW-Authenticate": wanted})

    @property
    def password(self) -> str:
        return f"Basic {base64.b64encode(f'{USERNAME}:{PASSWORD}'.encode()).decode()}"

    @staticmethod
    def allows(token: str, scopes: list[str]) -> bool:
        granted = [scope.rpartition(":") for scope in json.loads(base64.b64decode(token))]
        wanted = [scope.rpartition(":") for scope in scopes]
        return all(
            any(one == name and set(actions.split(",")) <= set(those.split(",")) for one, _, those in granted)
            for name, _, actions in wanted
        )

    def token(self, parameters: list[str]) -> Answer:
        scopes = [scope for parameter in parameters for scope in parameter.split()]
        if self.headers.get("Authorization") != self.password:
            if not self.quirks.token_for_anyone:
                return _refusal(401, "UNAUTHORIZED", "incorrect username or password")
            scopes = []
        granted = scopes[-1:] if self.quirks.last_scope else scopes
        token = base64.b64encode(json.dumps(granted).encode()).decode()
        body = json.dumps({"token": token, "expires_in": 300}).encode()
        cookie = {"Set-Cookie": "sid=1; Path=/; HttpOnly"} if self.quirks.session_cookie else {}
        return Answer(status=200, body=body, headers={"Content-Type": "application/json", **cookie})

    def begin(self, path: str, query: dict[str, str]) -> Answer:
        if refused := self.limited("upload"):
            return refused
        if self.quirks.upload_redirect and not self.is_elsewhere:
            return Answer(status=307, headers={"Location": self.elsewhere(self.path)})
        digest, source = query.get("mount", ""), query.get("from", "")
        named = (data for (where, _), (_, data) in self.store.manifests.items() if where == source)
        if digest in self.store.blobs[source] and (
            not self.quirks.mounts_referenced or any(digest.encode() in data for data in named)
        ):
            self.store.blobs[path][digest] = self.store.blobs[source][digest]
            return self.created(path, digest)
        number = str(next(self.store.numbers))
        self.store.uploads[self.upload_key(number)] = _Upload()
        return Answer(status=202, headers={**self.location(path, number), "Range": "0-0"})

    def upload_key(self, number: str) -> str:
        return f"{self.headers['Host'].partition(':')[0]}/{number}"

    def location(self, path: str, number: str) -> dict[str, str]:
        location = f"/v2/{path}/blobs/uploads/{number}?_state=a%2Fb%3D"
        is_path = self.quirks.location == "path" or self.is_elsewhere
        return {"Location": location if is_path else f"http://{self.headers['Host']}{location}"}

    def upload(self, path: str, number: str, query: dict[str, str]) -> Answer:  # noqa: PLR0911  (as above)
        upload = self.store.uploads.get(self.upload_key(number))
        if upload is None:
            return _refusal(404, "BLOB_UPLOAD_UNKNOWN")
        with upload.lock:
            if self.command == "GET":
                return self.upload_state(path, number, upload)
            if self.command == "PATCH":
                return self.take_part(path, number, upload)
            del self.store.uploads[self.upload_key(number)]
            if self.command != "PUT":
                return Answer(status=204)
            begun = bool(upload.data)
            upload.data.extend(b"".join(self.body))
        if not begun and upload.data and not self.quirks.whole_put:
            return _refusal(404, "BLOB_UNKNOWN")
        digest = _digest(upload.data)
        if digest != query["digest"]:
            return _refusal(400, "DIGEST_INVALID", f"{digest} was sent")
        self.store.blobs[path][digest] = bytes(upload.data)
        return self.created(path, digest)

    @staticmethod
    def created(path: str, digest: str) -> Answer:
        return Answer(status=201, headers={"Location": f"/v2/{path}/blobs/{digest}", "Docker-Content-Digest": digest})

    def upload_state(self, path: str, number: str, upload: _Upload) -> Answer:
        if self.quirks.upload_state == "unknown":
            return _refusal(404, "BLOB_UPLOAD_UNKNOWN")
        end = max(0, len(upload.data) - 1)
        text = f"bytes=0-{end + 1}" if self.quirks.upload_state == "one more" else f"0-{end}"
        return Answer(status=204, headers={**self.location(path, number), "Range": text})

    def take_part(self, path: str, number: str, upload: _Upload) -> Answer:
        start = int(self.headers.get("Content-Range", "0").partition("-")[0])
        if start != len(upload.data):  # apple/containerization#790
            message = f"First byte of the layer part is {start} instead of {len(upload.data)}"
            return _refusal(416, "BLOB_UPLOAD_INVALID", message, **self.location(path, number))
        for piece in self.body:
            upload.data.extend(piece)
        upload.parts.append(len(upload.data))
        end = upload.parts[0 if self.quirks.first_range else -1] - 1
        return Answer(status=self.quirks.patch_status, headers={**self.location(path, number), "Range": f"0-{end}"})

    def blob(self, path: str, digest: str) -> Answer:
        data = self.store.blobs[path].get(digest)
        if data is None:
            return _refusal(404, "BLOB_UNKNOWN")
        if self.quirks.blob_redirect and self.command == "GET":
            location = self.elsewhere(f"/storage/{path}@{digest}?X-Amz-Signature=abc")
            return Answer(status=self.quirks.blob_redirect, headers={"Location": location})
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        return Answer(status=200, body=data, headers=headers)

    def stored(self, name: str) -> Answer:
        if "Authorization" in self.headers:
            return Answer(status=400, body=b"<Error>Only one auth mechanism allowed</Error>")
        path, _, digest = name.partition("@")
        return Answer(status=200, body=self.store.blobs[path][digest])

    def put_manifest(self, path: str, name: str) -> Answer:
        data = b"".join(self.body)
        if refused := self.limited("manifest"):
            return refused
        media_type, digest = self.headers["Content-Type"], _digest(data)
        present = self.store.manifests.get((path, name))
        if self.quirks.refused_type and self.quirks.refused_type[0] == media_type:
            return self.quirks.refused_type[1]
        if self.quirks.immutable and present and name != digest and (present[1] != data or not self.quirks.same_again):
            return self.quirks.immutable
        manifest = json.loads(data)
        blobs = {blob["digest"] for blob in (manifest["config"], *manifest["layers"])}
        if not blobs <= self.store.blobs[path].keys():
            return _refusal(404, "MANIFEST_BLOB_UNKNOWN")
        self.store.manifests[path, name] = self.store.manifests[path, digest] = (media_type, data)
        return Answer(status=201, headers={"Location": f"/v2/{path}/manifests/{digest}", **self.digest_header(digest)})

    def digest_header(self, digest: str) -> dict[str, str]:
        return {"Docker-Content-Digest": digest} if self.quirks.digest_header else {}

    def manifest(self, path: str, name: str) -> Answer:
        if (path, name) not in self.store.manifests:
            return _refusal(self.quirks.missing_manifest, "MANIFEST_UNKNOWN")
        media_type, data = self.store.manifests[path, name]
        return Answer(status=200, body=data, headers={"Content-Type": media_type, **self.digest_header(_digest(data))})
