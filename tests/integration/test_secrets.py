"""A marker in every secret that the program takes, looked for in everything that it writes, prints and starts."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest

from tests.integration.bases import plain_channel
from tests.integration.conftest import container_storage, write_root
from tests.integration.fronts import serve_front
from tests.integration.markers import STEM, Watch, found_below, found_in, marked
from tests.integration.packaging import CONDA_FORGE, MODELS, ROOT, PackagingHarness, Ran, zip_folder
from tests.integration.registry import serve_registry
from tests.integration.storage_servers import REGION, S3, Thing, WebStore, serve_s3
from tests.integration.test_environment import make_channel, wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.registry import Registry

pytestmark = [pytest.mark.needs("buildah", "docker-registry", "htpasswd", "root"), pytest.mark.timeout(600)]

NASTY = ' "w:ord" ä/+%$'  # what a password may hold
PUSH, PULL = marked("push", NASTY), marked("pull", NASTY)
INDEX, EXTRA, LINKS = marked("index", "/+%:@"), marked("extra"), marked("links", "ä")
CHANNEL, MIRROR = marked("channel", ":/+%"), marked("mirror", "/+%@")
KEY_ID, KEY_SECRET = marked("AKIA"), marked("s3", "/+==")
SIGNATURE, USER_AUTH, USER_TOKEN = marked("sig", "/+="), marked("docker"), marked("identity")
PROXY = marked("proxy")
# Where secrets may be while a run lasts, and why: buildah takes logins by no other way than a file, rattler and uv take
# their credentials from files that are theirs alone.
PRIVATE = (
    "auth-*/config.json",
    "auth-*/config.json.new",
    "packager-*/conda-auth/auth.json",
    "packager-*/uv/uv.toml",
)
CONDA = "name: wine\nchannels: [conda-forge, '{channel}']\ndependencies: [python, {{pip: [mine, ours]}}]\n"


class Guarded(http.server.SimpleHTTPRequestHandler):
    """Serves a folder to those who know the password."""

    wanted = ""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != self.wanted:
            body = f"you sent {self.headers.get('Authorization')}".encode()  # as careless servers do
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="tests"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)
            return
        del self.headers["If-Modified-Since"]  # this server's 304 lacks what rattler wants to see in one
        super().do_GET()

    def do_HEAD(self) -> None:
        if self.headers.get("Authorization") != self.wanted:
            self.do_GET()
        else:
            super().do_HEAD()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path, password: str, user: str = "bob") -> Iterator[str]:
    """Serve a folder to bob alone; gives `127.0.0.1:PORT`."""
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    handler = type("Handler", (Guarded,), {"wanted": wanted})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that a run needs, each part behind a password of its own."""

    folder: Path
    push: Registry
    pull: Registry
    base: str
    s3: S3
    web: WebStore
    environ: dict[str, str]
    conda_file: str
    archive: bytes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    folders = {name: folder / name for name in ("storage", "cache", "index", "extra", "links", "docker", "home", "tmp")}
    for made in folders.values():
        made.mkdir()
    for name, package in (("index", "mine"), ("extra", "ours")):
        (folders[name] / package).mkdir()
        wheel(folders[name] / package / f"{package}-1.0-py3-none-any.whl", package)
    auths = {
        "elsewhere.example": {"auth": base64.b64encode(f"me:{USER_AUTH}".encode()).decode()},
        "token.example": {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": USER_TOKEN},
    }
    (folders["docker"] / "config.json").write_text(json.dumps({"auths": auths}))
    channel = plain_channel()
    tools = make_channel(folder / "tools", "--no-python", "--tool", "hello=1.0")
    with (
        container_storage(folders["storage"], driver="overlay") as storage,
        serve_registry(folder / "push", with_password=True, password=PUSH) as push,
        serve_registry(folder / "pull", with_password=True, password=PULL) as pull,
        served(folders["index"], INDEX) as index,
        served(folders["extra"], EXTRA) as extra,
        served(folders["links"], LINKS) as links,
        served(channel, MIRROR) as mirror,
        served(tools, CHANNEL) as own,
        serve_s3() as s3,
        WebStore() as web,
    ):
        s3.client.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": REGION})
        conda_file = CONDA.format(channel=f"http://{own}")
        model = folder / "model"
        shutil.copytree(MODELS / "wine", model)
        (model / "odahuflow_model/conda.yaml").write_text(conda_file)
        archive = zip_folder(model, folder / "wine.zip").read_bytes()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PACKAGER_", "AWS_"))}
        environ = {
            **inherited,
            **storage,
            **s3.environ,
            "HOME": str(folders["home"]),
            "TMPDIR": str(folders["tmp"]),
            "DOCKER_CONFIG": str(folders["docker"]),
            "PYTHONPATH": str(ROOT),
            "PACKAGER_CACHE_DIR": str(folders["cache"]),
            "PACKAGER_PIP_INDEX_URL": f"http://bob:{quote(INDEX, safe='')}@{index}/",
            "PACKAGER_PIP_EXTRA_INDEX_URLS": f"http://bob:{quote(EXTRA, safe='')}@{extra}/",
            "PACKAGER_PIP_FIND_LINKS": f"http://bob:{quote(LINKS, safe='')}@{links}/",
            "PACKAGER_CONDA_CREDENTIALS": f"127.0.0.1=bob:{CHANNEL}",
            # By another name for this machine, as rattler knows credentials by the host alone.
            "PACKAGER_CONDA_MIRRORS": f"{CONDA_FORGE}=http://bob:{quote(MIRROR, safe='')}@localhost:{mirror[10:]}",
            "PACKAGER_REGISTRY_RETRY_SECONDS": "1",
            "PACKAGER_SERVER": "gunicorn",  # the indexes have no other
        }
        yield World(
            folder=folder,
            push=push,
            pull=pull,
            base=push_base(folder / "base", pull, storage),
            s3=s3,
            web=web,
            environ=environ,
            conda_file=conda_file,
            archive=archive,
        )


def push_base(folder: Path, registry: Registry, storage: dict[str, str]) -> str:
    """Put the tiny base image into a registry and nowhere else."""
    write_root(folder / "root")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY root /\nENV PATH=/usr/bin:/bin\n")
    (folder / "auth.json").write_text(
        json.dumps({"auths": {registry.host: {"auth": base64.b64encode(f"packager:{PULL}".encode()).decode()}}})
    )
    name = f"{registry.host}/bases/tiny:1"
    push = ["push", "--authfile", str(folder / "auth.json"), "--tls-verify=false", name, f"docker://{name}"]
    for words in (["build", "--tag", name, str(folder)], push, ["rmi", "--all", "--force"]):
        subprocess.run(["buildah", *words], env=storage, check=True, capture_output=True)
    return name


def target(name: str, host: str, password: str) -> dict[str, Any]:
    spec = {"type": "docker", "uri": f"{host}/models", "username": "packager", "password": password}
    return {"name": name, "connection": {"id": name, "spec": spec}}


@dataclass(kw_only=True)
class SecretsHarness:
    """One run of the program in that world, watched."""

    world: World
    harness: PackagingHarness
    name: str
    host: str = ""
    model: str = ""
    password: str = PUSH
    holder: dict[str, Any] | None = None
    program: list[str] = field(default_factory=lambda: ["-m", "packager"])
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(folders=(self.harness.work, *self.places), private=PRIVATE)

    @property
    def places(self) -> tuple[Path, ...]:
        return (self.world.folder / "home", self.world.folder / "tmp")

    def words(self, *more: str) -> list[str]:
        self.harness.put_manifest(None, imageName=f"{self.name}:1")
        pull = target("docker-pull", self.world.pull.host, PULL)
        pull["connection"]["spec"]["uri"] = f"{self.world.pull.host}/bases"
        self.harness.manifest |= {
            "targets": [target("docker-push", self.host or self.world.push.host, self.password), pull],
            "modelHolder": self.holder and {"id": "store", "spec": self.holder},
            "trainingZipName": "wine.zip" if self.holder else "",
        }
        (self.harness.folder / "mp.json").write_text(json.dumps(self.harness.manifest))
        words = ["run", *([self.model] if self.model else []), "mp.json", "--verbose", *more]
        return [
            *words,
            "--results-dir",
            str(self.harness.results),
            "--termination-log",
            str(self.harness.termination_log),
        ]

    def run(self, *more: str, meanwhile: Callable[[subprocess.Popen[str]], None] | None = None) -> Ran:
        self.harness.work.mkdir(exist_ok=True)
        with self.watch:
            process = subprocess.Popen(
                [sys.executable, *self.program, *self.words(*more)],
                cwd=self.harness.folder,
                env=self.harness.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            self.watch.of(process.pid)
            if meanwhile is not None:
                meanwhile(process)
            out, err = process.communicate()
        return Ran(code=process.returncode, out=out, err=err)

    def findings(self, ran: Ran) -> list[str]:
        """Everything that holds a planted secret and must not."""
        folder = self.world.folder
        places = {
            self.harness.folder: (self.harness.folder / "mp.json",),
            **dict.fromkeys((*self.places, folder / "cache", folder / "storage"), ()),
            folder / "push" / "data": (),
            folder / "pull" / "data": (),
        }
        found = [f"{name}: {each}" for name, text in (("out", ran.out), ("err", ran.err)) for each in found_in(text)]
        for place, given in places.items():
            found += found_below(place, given=given)
        return found + self.watch.findings


@pytest.fixture
def harness(world: World, tmp_path: Path, request: pytest.FixtureRequest) -> SecretsHarness:
    environ = {**world.environ, "PACKAGER_WORK_DIR": str(tmp_path / "desk" / "work")}
    (tmp_path / "desk").mkdir()
    harness = PackagingHarness(folder=tmp_path / "desk", environ=environ, base=world.base)
    harness.put_model(conda_file=world.conda_file)
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower()).strip("-")
    return SecretsHarness(world=world, harness=harness, name=f"a{hash(name) % 10**9}", model=str(harness.model))


@pytest.mark.parametrize(
    ("engine", "source", "log_format"),
    [("buildah", "s3", "json"), ("oci", "https", "plain"), ("buildah", "https", "plain"), ("oci", "s3", "json")],
)
def test_no_secret_is_anywhere_after_and_while_an_image_is_made(
    harness: SecretsHarness, engine: str, source: str, log_format: str
) -> None:
    world = harness.world
    if source == "s3":
        world.s3.client.put_object(Bucket="models", Key="out/wine.zip", Body=world.archive)
        harness.model = ""
        harness.holder = {"type": "s3", "uri": "s3://models/out", "region": REGION}
        harness.holder |= {"keyID": KEY_ID, "keySecret": KEY_SECRET}
    else:
        world.web.things["/models/wine.zip"] = Thing(body=world.archive)
        harness.model = f"{world.web.url}/models/wine.zip?{urlencode({'X-Amz-Signature': SIGNATURE, 'se': '2030'})}"
    ran = harness.run("--engine", engine, "--log-format", log_format, "--refresh-environment")
    assert ran.code == 0, ran.err
    assert harness.findings(ran) == []
    assert harness.watch.rounds > 20
    assert {"uv", "buildah"} - ({"buildah"} if engine == "oci" else set()) <= harness.watch.commands
    assert {"auth.json", "uv.toml"} <= harness.watch.held
    assert engine == "buildah" or "config.json" not in harness.watch.held
    assert ran.out.strip().endswith(str(world.push.digest(f"models/{harness.name}", "1")))
    harness.harness.assert_clean()
    # What was looked through is what was made.
    if engine == "buildah":
        assert harness.harness.buildah("images", "--noheading", "--all")


@pytest.mark.parametrize("engine", ["buildah", "oci"])
def test_a_wrong_password_is_not_shown_even_by_a_registry_that_repeats_it(harness: SecretsHarness, engine: str) -> None:
    harness.password = marked("wrong", NASTY)
    with serve_parrot() as host:
        harness.host = host
        ran = harness.run("--engine", engine)
    assert ran.code == 31, ran.err
    assert "*****" in ran.err
    assert harness.findings(ran) == []


@contextmanager
def serve_parrot() -> Iterator[str]:
    """A registry that refuses everyone, and says what it was sent, as it came and decoded."""

    class Parrot(http.server.BaseHTTPRequestHandler):
        def do_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            login = self.headers.get("Authorization", "")
            pair = base64.b64decode(login.removeprefix("Basic ")).decode() if login else ""
            message = f"who is {login!r}? {pair}"
            body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": message}]}).encode()
            self.send_response(403 if login and self.path != "/v2/" else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="tests"')
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_any  # noqa: N815

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("engine", ["buildah", "oci"])
@pytest.mark.parametrize(
    ("variable", "value", "conda_file", "code"),
    [
        ("PACKAGER_CONDA_CREDENTIALS", f"127.0.0.1=bob:{marked('wrong')}", "", 22),
        ("PACKAGER_PIP_INDEX_URL", "http://bob:{}@127.0.0.1:9/", "", 22),
        ("", "", "name: wine\nchannels: [conda-forge]\ndependencies: [python, nowhere]\n", 21),
        ("", "", "name: wine\nchannels: [conda-forge]\ndependencies: [python, {pip: [nowhere]}]\n", 21),
    ],
    ids=["channel-refuses", "no-index", "unsolvable", "no-package"],
)
def test_no_secret_is_shown_when_dependencies_cant_be_had(
    harness: SecretsHarness, engine: str, variable: str, value: str, conda_file: str, code: int
) -> None:
    if variable:
        harness.harness.environ[variable] = value.format(quote(marked("wrong", "/+:@"), safe=""))
    if conda_file:
        harness.harness.put_model(conda_file=conda_file)
    ran = harness.run("--engine", engine, "--refresh-environment")
    assert ran.code == code, ran.err
    assert harness.findings(ran) == []
    assert json.loads(harness.harness.termination_log.read_text())["error"]["code"]
    harness.harness.assert_nothing_left()


@pytest.mark.parametrize("engine", ["buildah", "oci"])
def test_no_secret_is_shown_when_the_push_fails(harness: SecretsHarness, engine: str) -> None:
    def judge(handler: http.server.BaseHTTPRequestHandler) -> str:
        return "503" if handler.command == "PUT" and "/manifests/" in handler.path else "passed on"

    with serve_front(harness.world.push, judge) as front:
        harness.host = front.host
        ran = harness.run("--engine", engine)
    assert ran.code in (30, 32), ran.err
    assert harness.findings(ran) == []
    harness.harness.assert_nothing_left()


@pytest.mark.parametrize("engine", ["buildah", "oci"])
def test_no_secret_is_left_when_it_is_stopped(harness: SecretsHarness, engine: str) -> None:
    def stop(process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 120
        while not list(harness.harness.work.glob("packager-*/uv/uv.toml")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)

    ran = harness.run("--engine", engine, "--refresh-environment", meanwhile=stop)
    assert ran.code == 143, ran.err
    assert harness.findings(ran) == []
    harness.harness.assert_nothing_left()


@pytest.mark.parametrize(
    ("leak", "told"),
    [
        ("stderr", "err: "),
        ("base64 on stderr", "err: "),
        ("argv", "cmdline of b'sh"),
        ("environment", "environ of b'sh"),
        ("cache", "/cache/leaked: "),
        ("home", "/home/.leaked: "),
        ("work file", "while it ran, "),
        ("mode", "had the mode 644"),
        ("result", "/result.json: "),
        ("label", "/push/data/"),
        ("layer", "/push/data/"),
    ],
)
def test_a_planted_leak_is_found(harness: SecretsHarness, leak: str, told: str, tmp_path: Path) -> None:
    before = snapshot(harness.world.folder)
    harness.program = [str(Path(__file__).with_name("leaky.py"))]
    harness.harness.environ |= {"LEAK": leak, "SEEN": str(tmp_path / "seen")}
    harness.harness.environ["PACKAGER_CACHE_REPO"] = f"{harness.world.push.host}/models/leaky-cache"
    try:
        with made_when_told(tmp_path / "seen", harness.watch, told):
            ran = harness.run("--engine", "oci")
        assert ran.code == 0, ran.err
        findings = harness.findings(ran)
        assert [finding for finding in findings if told in finding], findings
    finally:
        remove_new(harness.world.folder, before)


@contextmanager
def made_when_told(file: Path, watch: Watch, told: str) -> Iterator[None]:
    """Make a file as soon as the watch has found this, or else at the end of the block."""
    ended = threading.Event()

    def look() -> None:
        while not any(told in finding for finding in watch.findings) and not ended.wait(0.02):
            pass
        file.touch()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def snapshot(folder: Path) -> frozenset[Path]:
    return frozenset(path for path in folder.rglob("*") if not path.is_dir())


def remove_new(folder: Path, before: frozenset[Path]) -> None:
    """Take away what a leak has left in the world, which the other tests look through."""
    for path in snapshot(folder) - before:
        path.unlink()


def test_every_form_of_a_secret_is_found() -> None:
    for before in ("", "u:", "us:", "use:"):
        assert found_in(base64.b64encode(f"{before}{STEM}{NASTY}".encode()))
    for text in (quote(PUSH), json.dumps(PUSH), f"Basic {PUSH!r}", PUSH.encode().hex()):
        assert found_in(text)
    assert not found_in(base64.b64encode(b"something else of the same length"))
