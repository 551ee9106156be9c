"""A model meets the same in the check and in a container: what fails in one fails in the other, and the rest serves."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.integration.bases import make_base, user_environ
from tests.integration.oci import push
from tests.integration.packaging import CONDA_FILE, PODMAN, RUN_WORDS, PackagingHarness
from tests.integration.registry import free_port
from tests.integration.test_packaging import ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.integration.packaging import Ran
    from tests.integration.registry import Registry

pytestmark = [
    pytest.mark.needs("buildah", "podman", "runc", "docker-registry", "htpasswd", "mmdebstrap", "root"),
    pytest.mark.timeout(900),
]

CANT_SERVE = 24
STRICT_POD = ("--read-only", "--user", "12345", "--passwd=false")
ONLY_TMP = ("--read-only-tmpfs=false", "--mount", "type=tmpfs,destination=/tmp")
ONLY_MEMORY = ("--read-only-tmpfs=false",)  # /dev/shm
NOTHING = (*ONLY_MEMORY, "--mount", "type=tmpfs,destination=/dev/shm,ro=true")
SERVES, FAILS = True, False
GOOD = """
def init():
    return "matrix"

def predict_on_matrix(matrix, provided_columns_names=None):
    run()
    return matrix, ["same"]

def info():
    return [{"name": "a", "type": "number", "example": 1}], [{"name": "same", "type": "number"}]
"""
# Tries what other models do when they are imported and when they predict, and writes what worked.
TRIES = (
    """
import asyncio, argparse, getpass, multiprocessing, os, pathlib, pwd, signal, sqlite3, sys, tempfile
from multiprocessing import shared_memory
HERE = pathlib.Path(__file__).parent
TMP = pathlib.Path("/tmp")

def attempt(cases):
    for name, code in cases:
        try:
            exec(code, globals())
        except BaseException:
            works = False
        else:
            works = True
        os.write(2, f"TRIED {name}: {works}\\n".encode())
"""
    + GOOD
)


class Case(NamedTuple):
    """What a model does, and whether it works under docker-rest and docker-cli."""

    code: str
    rest: bool
    cli: bool


WHEN_LOADED = {
    "signal handler": Case("signal.signal(signal.SIGALRM, lambda *_: None)", SERVES, SERVES),
    "arguments parsed": Case("argparse.ArgumentParser().parse_args()", FAILS, FAILS),
    "arguments of docker-rest": Case("assert sys.argv[1:3] == ['rest', '--host']", SERVES, FAILS),
    "arguments of docker-cli": Case("assert sys.argv[1:3] == ['cli', 'predict']", FAILS, SERVES),
    "standard input": Case("assert not sys.stdin.read()", SERVES, SERVES),
}
WHEN_IT_PREDICTS = {
    "file beside its own": Case("(HERE / 'cache').write_text('x')", FAILS, FAILS),
    "file in the working folder": Case("open('cache', 'w')", FAILS, FAILS),
    "file above the model": Case("(HERE.parent.parent / 'cache').write_text('x')", FAILS, FAILS),
    "file in the root": Case("open('/cache', 'w')", FAILS, FAILS),
    "file in the environment": Case("open(os.__file__ + '.cache', 'w')", FAILS, FAILS),
    "own file changed": Case("open(__file__, 'a')", FAILS, FAILS),
    "own file removed": Case("os.unlink(__file__)", FAILS, FAILS),
    "folder that says it can't be written": Case("assert not os.access(HERE, os.W_OK)", SERVES, SERVES),
    "relative path": Case("open('odahuflow_model/entrypoint.py')", SERVES, SERVES),
    "file in /tmp": Case("(TMP / 'of-a-test').touch(); (TMP / 'of-a-test').unlink()", SERVES, SERVES),
    "temporary file": Case("tempfile.NamedTemporaryFile()", SERVES, SERVES),
    "rename into another folder": Case(
        "new = pathlib.Path(tempfile.mkdtemp()); (new / 'a').mkdir(); (new / 'x').touch(); "
        "(new / 'x').rename(new / 'a/x')",
        SERVES,
        SERVES,
    ),
    "shared memory": Case(
        "memory = shared_memory.SharedMemory(create=True, size=9); memory.close(); memory.unlink()", SERVES, SERVES
    ),
    "null device": Case("open(os.devnull, 'w').write('x')", SERVES, SERVES),
    "sqlite in the home": Case(
        "sqlite3.connect(pathlib.Path.home() / 'x.db').execute('create table if not exists t(a)')", SERVES, SERVES
    ),
    "home by its user": Case("assert os.path.expanduser('~/x') == os.environ['HOME'] + '/x'", SERVES, SERVES),
    "user name": Case("getpass.getuser()", SERVES, SERVES),
    "user in passwd": Case("pwd.getpwuid(os.getuid())", FAILS, FAILS),
    "login name": Case("os.getlogin()", FAILS, FAILS),
    "signal handler later": Case("signal.signal(signal.SIGALRM, lambda *_: None)", FAILS, SERVES),
    "event loop": Case("asyncio.get_event_loop_policy().get_event_loop()", FAILS, SERVES),
    "event loop of its own": Case("asyncio.run(asyncio.sleep(0))", SERVES, SERVES),
    "pool of processes": Case("with multiprocessing.Pool(2) as pool: pool.map(abs, [1, 2])", SERVES, SERVES),
}
PACKAGES = ("numba", "matplotlib", "joblib", "huggingface_hub")
WITH_PACKAGES = """
import getpass, os, pathlib, tempfile
import huggingface_hub.constants, joblib, matplotlib, numba
matplotlib.use("agg")
from matplotlib import pyplot

@numba.njit(cache=True)
def twice(x):
    return x * 2

def init():
    return "matrix"

def count(directory):
    return sum(len(files) for _, _, files in os.walk(directory))

def predict_on_matrix(matrix, provided_columns_names=None):
    home, cache = pathlib.Path.home(), pathlib.Path(os.environ["XDG_CACHE_HOME"])
    values = [twice(row[0]) for row in matrix]
    assert twice.stats.cache_path.startswith(str(cache)) and count(twice.stats.cache_path)
    assert matplotlib.get_cachedir().startswith(str(cache))
    pyplot.plot(values)
    pyplot.savefig(home / "figure.png")
    memory = joblib.Memory(cache / "joblib", verbose=0)
    assert memory.cache(abs)(-1) == 1 and count(cache / "joblib")
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(x) for x in (-1, 2)) == [1, 2]
    hub = pathlib.Path(huggingface_hub.constants.HF_HUB_CACHE)
    assert hub.is_relative_to(cache)
    hub.mkdir(parents=True, exist_ok=True)
    (hub / "model").write_text("x")
    assert os.path.expanduser("~/x") == str(home / "x")
    assert getpass.getuser() == os.environ["USER"]
    with tempfile.NamedTemporaryFile() as file:
        assert file.name.startswith(os.environ["TMPDIR"])
    return [[value] for value in values], ["twice"]

def info():
    return [{"name": "a", "type": "number", "example": 1.5}], [{"name": "twice", "type": "number"}]
"""


@pytest.fixture(scope="session")
def base(registry: Registry, storage: dict[str, str]) -> str:
    push(storage, make_base("base", storage), registry.host, "surroundings/base:1")
    return f"{registry.host}/surroundings/base:1"


class PodHarness(PackagingHarness):
    """Checks models, and starts images with a model of the test's in place of their own."""

    def put(self, code: str) -> None:
        (self.model / "odahuflow_model/entrypoint.py").write_text(code)

    def build(self, output: str, integration: str, *options: str) -> Ran:
        words = ["build", str(self.model), "--packager", integration, "-a", f"dockerfileBaseImage={self.base}"]
        return self.packager(*words, "--output", output, *options)

    @contextmanager
    def container(self, image: str, options: Sequence[str], *words: str) -> Iterator[subprocess.Popen[str]]:
        name = f"packager-test-{free_port()}"
        model = f"{self.model / 'odahuflow_model'}:/opt/odahu/model/odahuflow_model:ro"
        command = [*PODMAN, "run", "--rm", "--tls-verify=false", "--name", name, *RUN_WORDS, "-v", model, *options]
        errors = self.folder / "errors"
        with (
            errors.open("w") as err,
            subprocess.Popen(
                [*command, f"docker://{image}", *words],
                env=self.environ,
                stdin=subprocess.PIPE if "-i" in options else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                remove = [*PODMAN, "rm", "--force", "--ignore", "--time", "0", name]
                subprocess.run(remove, env=self.environ, check=True, capture_output=True)

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text()

    def serves_in_a_pod(self, image: str, *options: str) -> bool:
        """Whether the server starts and answers a request."""
        port = free_port()
        with self.container(image, options, "--host", "127.0.0.1", "--port", str(port)) as process:
            if not serves(port, process):
                return False
            try:
                ask(f"http://127.0.0.1:{port}/api/model/invoke", b'{"data": [[1]]}')
            except urllib.error.HTTPError:
                return False
            return True

    def predicts_in_a_pod(self, image: str, *options: str) -> bool:
        """Whether the program of docker-cli predicts."""
        with self.container(image, ("-i", *options), "predict", "-", "-") as process:
            process.communicate('{"data": [[1]]}')
        return process.returncode == 0


def serves(port: int, process: subprocess.Popen[str]) -> bool:
    """Wait until the server answers or its container has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None:
        assert time.monotonic() < deadline, "it neither serves nor ends"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=5):
                return True
        except OSError:
            time.sleep(0.1)
    return False


@pytest.fixture
def pod(tmp_path: Path, storage: dict[str, str], base: str) -> PodHarness:
    return make_harness(tmp_path, storage, base)


def make_harness(folder: Path, storage: dict[str, str], base: str) -> PodHarness:
    environ = {**user_environ(storage), "PACKAGER_WORK_DIR": str(folder / "work"), "PACKAGER_SERVER": "gunicorn"}
    pod = PodHarness(folder=folder, environ=environ, base=base)
    pod.put_model()
    return pod


@pytest.fixture(scope="session")
def images(
    tmp_path_factory: pytest.TempPathFactory, registry: Registry, storage: dict[str, str], base: str
) -> dict[str, str]:
    """An image of each integration, without any package."""
    pod = make_harness(tmp_path_factory.mktemp("images"), storage, base)
    pod.put(GOOD + "def run(): pass\n")
    return {name: build(pod, registry, name) for name in ("docker-rest", "docker-cli")}


def build(pod: PodHarness, registry: Registry, integration: str, name: str = "") -> str:
    image = f"{registry.host}/surroundings/{name or integration}:1"
    ran = pod.build(f"docker://{image}", integration, "--check")
    assert ran.code == 0, ran.err
    assert "the check" not in ran.err, "this machine can't confine the check"
    return image


@pytest.mark.parametrize("integration", ["docker-rest", "docker-cli"])
def test_what_fails_in_the_check_fails_in_a_pod_and_the_other_way_round(
    pod: PodHarness, images: dict[str, str], integration: str
) -> None:
    loading, predicting = (
        [(name, case.code) for name, case in cases.items()] for cases in (WHEN_LOADED, WHEN_IT_PREDICTS)
    )
    pod.put(f"{TRIES}\nattempt({loading!r})\ndef run():\n    attempt({predicting!r})\n")
    ran = pod.build(f"oci:{pod.folder / 'checked'}", integration, "--check", "--verbose")
    assert ran.code == 0, ran.err
    serve = pod.serves_in_a_pod if integration == "docker-rest" else pod.predicts_in_a_pod
    assert serve(images[integration], *STRICT_POD), pod.errors
    cases = {**WHEN_LOADED, **WHEN_IT_PREDICTS}
    expected = {name: case.rest if integration == "docker-rest" else case.cli for name, case in cases.items()}
    assert tried(ran.err) == expected
    assert tried(pod.errors) == expected


def tried(log: str) -> dict[str, bool]:
    return {name: works == "True" for name, works in re.findall(r"TRIED (.+): (True|False)", log)}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os\ndef run(): open(os.path.dirname(__file__) + '/cache', 'w')", "Permission denied"),
        ("import signal\ndef run(): signal.signal(signal.SIGALRM, print)", "signal only works in main thread"),
    ],
)
def test_a_model_that_fails_in_a_pod_is_refused(pod: PodHarness, images: dict[str, str], code: str, said: str) -> None:
    pod.put(f"{GOOD}\n{code}\n")
    ran = pod.build(f"oci:{pod.folder / 'checked'}", "docker-rest")
    assert (ran.code, said in ran.err) == (CANT_SERVE, True), ran.err
    assert not pod.serves_in_a_pod(images["docker-rest"], *STRICT_POD)


@pytest.mark.needs("index")
def test_packages_that_keep_caches_work_wherever_a_folder_can_be_written(pod: PodHarness, registry: Registry) -> None:
    pod.put_model(conda_file=CONDA_FILE.replace("[python]", json.dumps(["python", {"pip": PACKAGES}])))
    pod.put(WITH_PACKAGES)
    image = build(pod, registry, "docker-rest", "packages")
    for options in ((), STRICT_POD, (*STRICT_POD, *ONLY_TMP)):
        assert pod.serves_in_a_pod(image, *options), pod.errors
        assert "WARNING" not in pod.errors
    assert pod.serves_in_a_pod(image, *STRICT_POD, *ONLY_MEMORY), pod.errors
    assert "WARNING Temporary files and caches are kept in memory (/dev/shm), as /tmp can't be written" in pod.errors
    assert not pod.serves_in_a_pod(image, *STRICT_POD, *NOTHING)
    assert "Matplotlib requires access to a writable cache directory" in pod.errors
    assert "WARNING No folder can be written, not even /tmp or /dev/shm" in pod.errors


@pytest.mark.parametrize("server", ["granian", "gunicorn"])
def test_a_model_that_writes_nothing_serves_where_nothing_can_be_written(
    pod: PodHarness, registry: Registry, server: str
) -> None:
    pod.environ["PACKAGER_SERVER"] = server
    pod.put(GOOD + "import getpass, pathlib\ndef run():\n    getpass.getuser(), pathlib.Path.home()\n")
    image = build(pod, registry, "docker-rest", server)
    assert pod.serves_in_a_pod(image, *STRICT_POD, *NOTHING), pod.errors
    assert "WARNING No folder can be written, not even /tmp or /dev/shm" in pod.errors
