"""The Job image as a pod runs it. Tests that Kaniko takes part in are left out, by name, where it can't be had."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.bases import plain_channel
from tests.integration.packaging import CONDA_FILE, PODMAN, RUN_WORDS, PackagingHarness, wait_until_serving
from tests.integration.pod import Pod, authfile, job_image, push_base, wait_for, wait_for_upload
from tests.integration.proc import processes_with
from tests.integration.registry import PASSWORD, free_port, serve_registry
from tests.integration.test_environment import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "podman", "runc", "docker-registry", "htpasswd", "patchelf", "root")
needs_kaniko = pytest.mark.needs("kaniko-executor")
PROBE = Path(__file__).with_name("job_probe.py")
CAPABILITY_NUMBERS = (0, 1, 3, 5, 6, 7, 31)  # linux/capability.h, of pod.CAPABILITIES
BASES = ("debian", "own-kaniko", "merged", "conda")
ENVIRONMENT, RUNTIME, MODEL = -3, -2, -1  # a plan's layers, from the top


@pytest.fixture(scope="session")
def image(storage: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return job_image({**os.environ, **storage}, tmp_path_factory.mktemp("job") / "placeholder")


@pytest.fixture(scope="session")
def bases(
    storage: dict[str, str], password_registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bases")
    return {kind: push_base(kind, password_registry, storage, folder / kind) for kind in BASES}


@pytest.fixture(scope="session")
def channel() -> Path:
    return plain_channel()


@pytest.fixture
def pod(
    tmp_path: Path,
    storage: dict[str, str],
    image: str,
    channel: Path,
    bases: dict[str, str],
    password_registry: Registry,
) -> Iterator[Pod]:
    harness = PackagingHarness(folder=tmp_path, environ=storage, base=bases["debian"])
    harness.put_model()
    harness.put_manifest(password_registry, imageName=f"{tmp_path.name.strip('_')}:1")
    cache = CACHE / "job-cache"
    cache.mkdir(parents=True, exist_ok=True)
    with Pod(harness=harness, image=image, channel=channel, cache=cache) as made:
        yield made


def name_of(pod: Pod) -> str:
    name: str = pod.harness.manifest["modelPackaging"]["spec"]["arguments"]["imageName"]
    return "models/" + name.partition(":")[0].lower().replace("_", "-")


# The image by itself


def test_the_image_lives_below_kaniko_alone(pod: Pod) -> None:
    """A Python that needs nothing of its root, and starts itself, uv and the packager, when all else is gone."""
    pod.options = ["--volume", f"{PROBE}:/probe.py:ro", "--entrypoint", "/kaniko/python/bin/python3"]
    ran = pod.run("-I", "/probe.py", "wipe")
    assert ran.code == 0, ran.err
    seen = json.loads(pod.harness.termination_log.read_text())
    assert seen["capabilities"] == sum(1 << number for number in CAPABILITY_NUMBERS)
    assert seen["no_new_privileges"] == "1"
    assert seen["before"] == []
    assert seen["loaders"] == []
    assert set(seen["root"]) <= {"kaniko", "proc", "dev", "sys", "etc", "run", "mnt", "workspace", "probe.py"}
    assert seen["child"] == "asyncio"
    assert seen["uv"].startswith("uv ")
    assert "PACKAGER_WORK_DIR" in seen["packager"]


def test_nothing_of_this_machine_is_in_the_image(pod: Pod) -> None:
    """Outside /kaniko there are a loader and a glibc; inside no path of the folder that it was made in."""
    container = subprocess.run(
        ["buildah", "from", "--pull-never", pod.image],
        env=pod.harness.environ,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    try:
        mounted = subprocess.run(
            ["buildah", "mount", container], env=pod.harness.environ, check=True, capture_output=True, text=True
        ).stdout.strip()
        root = Path(mounted)
        outside = {
            path.name for path in root.rglob("*") if path.is_file() and "kaniko" not in path.parts[len(root.parts) :]
        }
        assert {"libc.so.6", "libm.so.6"} < outside
        assert all(".so" in name for name in outside)
        inside = {path.relative_to(root / "kaniko").as_posix() for path in (root / "kaniko").iterdir()}
        assert not [path for path in (root / "kaniko").rglob("*") if path.is_symlink() and not path.exists()]
        assert {"executor", "python", "ssl", "work", ".packager-job-image"} <= inside
        here = os.fsencode(Path(__file__).parents[2])
        named = [path for path in (root / "kaniko/python").rglob("*") if path.is_file() and here in path.read_bytes()]
        assert named == []
    finally:
        subprocess.run(["buildah", "rm", container], env=pod.harness.environ, check=True, capture_output=True)


def test_a_python_of_a_conda_environment_runs_in_the_empty_root(pod: Pod) -> None:
    """uv and the compiler run the staged Python, which looks for its loader in /lib64, before there is any base."""
    pod.harness.put_model(conda_file="name: wine\nchannels: [conda-forge]\ndependencies: [python, pip: [six]]\n")
    pod.harness.base = "127.0.0.1:1/nowhere:1"
    probe = (
        "import os, sys; from pathlib import Path, PurePosixPath as P; from packager.environment import ImageTarget;"
        "from packager.environment.conda import make_conda_environment as make;"
        "from packager.settings import Settings; from packager.system.process import run_command;"
        "from packager.logs.progress import SilentReporter;"
        "made = make(Path('/mnt/model/odahuflow_model/conda.yaml'), artifact_root=Path('/mnt/model'),"
        "envs_location=P('/e'),"
        "workspace=Path('/kaniko/work'), target=ImageTarget(platform='linux-64', glibc='2.36'),"
        "settings=Settings.from_env(os.environ), run=run_command, reporter=SilentReporter(), environ=os.environ);"
        "assert list(made.root.rglob('six*.pyc')); print(made.lock)"
    )
    pod.options = ["--entrypoint", "/kaniko/python/bin/python3"]
    ran = pod.run("-I", "-c", probe)
    assert ran.code == 0, ran.err
    assert "# pip: six==" in ran.err


@pytest.mark.parametrize("kind", BASES)
def test_a_context_that_the_job_image_writes_makes_an_image_on_any_base(
    pod: Pod, registry: Registry, storage: dict[str, str], tmp_path: Path, kind: str
) -> None:
    """Everything but the build is the Job image's own; Buildah stands in for Kaniko here, on the same Dockerfile."""
    base = push_base(kind, registry, storage, tmp_path / "base")
    words = ["--packager", "docker-cli", "--engine", "kaniko", "-a", f"dockerfileBaseImage={base}"]
    if kind == "conda":
        words += ["-a", "dockerfileAddCondaInstallation=false", "-a", "dockerfileCondaEnvsLocation=/envs"]
    ran = pod.run("render", "/mnt/model", "--context", "/workspace/context", *words)
    assert ran.code == 0, ran.err
    context, local = tmp_path / "workspace/context", f"localhost/{pod.name}:1"
    words = ["build", "--isolation", "chroot", "--layers=false", "--tls-verify=false", "--tag", local, str(context)]
    subprocess.run(["buildah", *words], env=storage, check=True, capture_output=True)
    (tmp_path / "workspace/in.json").write_text(json.dumps({"data": [[1, 2, 4]]}))
    run = [*PODMAN, "run", "--rm", *RUN_WORDS, "--read-only", "--volume", f"{tmp_path / 'workspace'}:/volume", local]
    done = subprocess.run([*run, "predict", "/volume/in.json", "/volume"], env=storage, check=True, capture_output=True)
    if kind == "conda":
        assert done.stdout == b"updated odahu\n"
    else:
        assert json.loads((tmp_path / "workspace/result.json").read_text())["prediction"] == [[1.5]]


# Failures that come before Kaniko is started


def wrong_password(pod: Pod) -> None:
    pod.harness.manifest["targets"][0]["connection"]["spec"]["password"] = "wrong-password"


def registry_down(pod: Pod) -> None:
    pod.harness.manifest["targets"][0]["connection"]["spec"]["uri"] = "127.0.0.1:1/models"


def base_missing(pod: Pod) -> None:
    arguments = pod.harness.manifest["modelPackaging"]["spec"]["arguments"]
    arguments["dockerfileBaseImage"] = arguments["dockerfileBaseImage"].replace("debian", "nowhere")


def base_registry_down(pod: Pod) -> None:
    pod.harness.manifest["modelPackaging"]["spec"]["arguments"]["dockerfileBaseImage"] = "127.0.0.1:1/nowhere:1"


EARLY: dict[str, tuple[Callable[[Pod], None], int, str, str]] = {
    "wrong password": (wrong_password, 31, "registry-auth", "user and password"),
    "registry of the base down": (base_registry_down, 32, "registry-unreachable", "name and port"),
    "base image missing": (base_missing, 33, "image-not-found", "dockerfileBaseImage"),
}


@pytest.mark.parametrize("name", EARLY)
def test_what_is_wrong_from_the_start_is_told(pod: Pod, password_registry: Registry, name: str) -> None:
    change, code, word, hint = EARLY[name]
    change(pod)
    ran = pod.run()
    assert_failed(pod, password_registry, ran.code, ran.err, code=code, word=word, hint=hint)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "work"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_under_the_context_is_told(small_disk: Path, pod: Pod, password_registry: Registry) -> None:
    assert small_disk == pod.harness.work
    (pod.harness.model / "odahuflow_model/weights.bin").write_bytes(os.urandom(30 << 20))
    ran = pod.run()
    assert_failed(pod, password_registry, ran.code, ran.err, code=50, word="disk-full", hint="PACKAGER_WORK_DIR")


@pytest.mark.parametrize("stage", ["linking 1 conda packages", "compiling modules"])
def test_a_pod_that_is_deleted_before_the_build_ends_at_once(
    pod: Pod, password_registry: Registry, stage: str, tmp_path: Path
) -> None:
    pod.cache = tmp_path / "empty-cache"
    pod.cache.mkdir()
    with pod.start() as job:
        log = wait_for(job, f"{stage} ...")
        pod.signal("TERM")
        log += job.communicate(timeout=30)[0]
    assert_failed(pod, password_registry, job.returncode, log, code=143, word="interrupted", hint="")


def assert_failed(pod: Pod, registry: Registry, exit_code: int, log: str, *, code: int, word: str, hint: str) -> None:
    assert exit_code == code, log
    told = pod.told()
    assert told["code"] == word
    assert hint in told["hint"]
    assert PASSWORD not in log
    assert "wrong-password" not in log
    assert "Traceback" not in log
    assert "sha256:" not in pod.harness.termination_log.read_text()
    assert registry.digest(name_of(pod), "1") is None
    pod.assert_nothing_left()


# The whole Job


def assert_packaged(pod: Pod, registry: Registry, log: str) -> str:
    """The outputs agree with what the registry serves; return the image by digest."""
    results: dict[str, str] = json.loads(pod.harness.termination_log.read_text())
    digest = registry.digest(name_of(pod), "1")
    assert results == {
        "image": f"{registry.host}/{name_of(pod)}:1",
        "imageDigest": f"{registry.host}/{name_of(pod)}@{digest}",
        "modelCheck": results["modelCheck"],
    }
    assert results["modelCheck"].startswith(("passed", "skipped: "))
    assert json.loads((pod.harness.folder / "workspace" / "result.json").read_text()) == results
    assert {path.name: path.read_text() for path in pod.results.iterdir()} == results
    assert PASSWORD not in log
    assert "\033[" not in log
    assert list(pod.harness.work.iterdir()) == []
    assert pod.processes() == []
    return results["imageDigest"]


def layers(registry: Registry, pod: Pod) -> list[str]:
    return [layer["digest"] for layer in registry.manifest(name_of(pod), "1")["layers"]]


def names_in(registry: Registry, pod: Pod, digest: str) -> set[str]:
    blob = registry.blob(name_of(pod), digest)
    with tarfile.open(fileobj=io.BytesIO(blob), mode="r:*") as archive:
        return {name.strip("./") for name in archive.getnames()}


class Started:
    """The packaged image, running under podman."""

    def __init__(self, pod: Pod, registry: Registry, reference: str, *words: str) -> None:
        auth = authfile(registry, pod.harness.folder)
        access = ("--authfile", str(auth), "--tls-verify=false", "--name", f"{pod.name}-image", "--rm")
        self.environ = pod.harness.environ
        self.name = f"{pod.name}-image"
        self.command = [*PODMAN, "run", *access, *RUN_WORDS, *words, f"docker://{reference}"]

    def __call__(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*self.command, *arguments], env=self.environ, stdout=subprocess.PIPE, text=True)

    def remove(self) -> None:
        words = [*PODMAN, "rm", "--force", "--ignore", "--time", "2", self.name]
        subprocess.run(words, env=self.environ, check=False, capture_output=True)


def ask(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@needs_kaniko
def test_a_rest_image_is_built_pushed_and_predicts(pod: Pod, password_registry: Registry) -> None:
    port = free_port()
    pod.harness.manifest["modelPackaging"]["spec"]["arguments"]["port"] = port
    ran = pod.run()
    assert ran.code == 0, ran.err
    started = Started(pod, password_registry, assert_packaged(pod, password_registry, ran.err), "--read-only")
    try:
        with started() as rest:
            wait_until_serving(port, rest)
            answer = ask(f"http://127.0.0.1:{port}/api/model/invoke", {"data": [[1, 2, 4]]})
            assert answer == {"prediction": [[1.5]], "columns": ["predictions"]}
            started.remove()
    finally:
        started.remove()


@needs_kaniko
@pytest.mark.parametrize("kind", ["debian", "own-kaniko", "merged"])
def test_a_cli_image_is_built_on_any_base_and_predicts(
    pod: Pod, password_registry: Registry, bases: dict[str, str], kind: str
) -> None:
    arguments = pod.harness.manifest["modelPackaging"]["spec"]["arguments"]
    pod.harness.manifest["modelPackaging"]["spec"]["integrationName"] = "docker-cli"
    arguments["dockerfileBaseImage"] = bases[kind]
    ran = pod.run()
    assert ran.code == 0, ran.err
    reference = assert_packaged(pod, password_registry, ran.err)

    # Our layers hold what the plan says, and nothing of the Job image.
    for digest in layers(password_registry, pod)[ENVIRONMENT:]:
        assert {name.partition("/")[0] for name in names_in(password_registry, pod, digest)} <= {"", "opt", "root"}

    volume = pod.harness.folder / "volume"
    volume.mkdir()
    (volume / "in.json").write_text(json.dumps({"data": [[1, 2, 4]]}))
    started = Started(pod, password_registry, reference, "--read-only", "--volume", f"{volume}:/volume")
    with started("predict", "/volume/in.json", "/volume") as batch:
        assert batch.wait() == 0
    assert json.loads((volume / "result.json").read_text())["prediction"] == [[1.5]]
    if kind == "own-kaniko":
        started.command[started.command.index("--read-only")] = "--entrypoint=/bin/cat"
        with started("/kaniko/executor") as cat:
            assert cat.communicate()[0] == "the base's own\n"


@needs_kaniko
def test_a_second_model_takes_the_layers_below_it_from_the_cache(pod: Pod, password_registry: Registry) -> None:
    first = pod.run()
    assert first.code == 0, first.err
    before = layers(password_registry, pod)
    with (pod.harness.model / "odahuflow_model/entrypoint.py").open("a") as module:
        module.write("\nANOTHER = True\n")
    second = pod.run()
    assert second.code == 0, second.err
    after = layers(password_registry, pod)
    assert after[:MODEL] == before[:MODEL]
    assert after[MODEL] != before[MODEL]
    assert second.err.count("Using caching version of cmd") == len((ENVIRONMENT, RUNTIME))
    assert_packaged(pod, password_registry, second.err)


def use_conda_of_the_base(pod: Pod, bases: dict[str, str], name: str) -> None:
    arguments = pod.harness.manifest["modelPackaging"]["spec"]["arguments"]
    arguments |= {
        "dockerfileBaseImage": bases["conda"],
        "dockerfileAddCondaInstallation": False,
        "dockerfileCondaEnvsLocation": "/envs",
    }
    pod.harness.manifest["modelPackaging"]["spec"]["integrationName"] = "docker-cli"
    pod.harness.put_model(conda_file=CONDA_FILE.replace("name: wine", f"name: {name}"))


@needs_kaniko
def test_a_run_step_updates_the_environment_of_the_base(
    pod: Pod, password_registry: Registry, bases: dict[str, str]
) -> None:
    use_conda_of_the_base(pod, bases, "wine")
    ran = pod.run()
    assert ran.code == 0, ran.err
    reference = assert_packaged(pod, password_registry, ran.err)
    (run_layer,) = [
        digest
        for digest in layers(password_registry, pod)
        if "envs/odahu/updated" in names_in(password_registry, pod, digest)
    ]
    changed = {name for name in names_in(password_registry, pod, run_layer) if name.count("/") > 1}
    assert changed == {"envs/odahu/updated"}
    with Started(pod, password_registry, reference)("info") as info:
        assert info.communicate()[0] == "updated odahu\n"


@needs_kaniko
def test_our_python_outlives_a_build_of_several_stages(
    pod: Pod, password_registry: Registry, bases: dict[str, str]
) -> None:
    """Kaniko empties the root between stages and at the end."""
    context = pod.harness.folder / "context"
    context.mkdir()
    (context / "file").write_text("text\n")
    (context / "Dockerfile").write_text(
        f"FROM {bases['debian']} AS first\nCOPY file /first\nRUN cat /first > /made\n"
        f"FROM {bases['merged']}\nCOPY --from=first /made /made\n"
    )
    auth = pod.harness.folder / "auth"
    auth.mkdir()
    authfile(password_registry, auth)
    pod.options = ["--entrypoint", "/kaniko/python/bin/python3", "--env", "DOCKER_CONFIG=/mnt/auth"]
    for place in (f"{PROBE}:/mnt/probe.py", f"{context}:/mnt/context", f"{auth}:/mnt/auth"):
        pod.options += ["--volume", f"{place}:ro"]
    destination = f"{password_registry.host}/{name_of(pod)}:1"
    ran = pod.run(
        *(
            "-I",
            "/mnt/probe.py",
            "build",
            "--context",
            "dir:///mnt/context",
            "--insecure",
            "--insecure-pull",
            "--cleanup",
        ),
        *("--destination", destination),
    )
    assert ran.code == 0, ran.err
    seen = json.loads(pod.harness.termination_log.read_text())
    assert seen["before"] == []
    assert seen["child"] == "asyncio"
    assert names_in(password_registry, pod, layers(password_registry, pod)[MODEL]) >= {"made"}


@needs_kaniko
def test_a_failing_run_step_is_told(pod: Pod, password_registry: Registry, bases: dict[str, str]) -> None:
    use_conda_of_the_base(pod, bases, "broken")
    ran = pod.run()
    assert_failed(pod, password_registry, ran.code, ran.err, code=41, word="build-step", hint="")
    assert "teapot" in pod.told()["message"]


@needs_kaniko
def test_a_pod_that_is_deleted_during_a_run_step_leaves_nothing(
    pod: Pod, password_registry: Registry, bases: dict[str, str]
) -> None:
    use_conda_of_the_base(pod, bases, "slow")
    with pod.start() as job:
        log = wait_for(job, "conda has started")
        pod.signal("TERM")
        log += job.communicate(timeout=30)[0]
    assert_failed(pod, password_registry, job.returncode, log, code=143, word="interrupted", hint="")


@needs_kaniko
def test_a_pod_that_is_deleted_during_the_push_leaves_nothing(pod: Pod, password_registry: Registry) -> None:
    (pod.harness.model / "odahuflow_model/weights.bin").write_bytes(os.urandom(200 << 20))
    with pod.start() as job:
        wait_for_upload(password_registry, name_of(pod), job)
        pod.signal("TERM")
        log = job.communicate(timeout=30)[0]
    assert_failed(pod, password_registry, job.returncode, log, code=143, word="interrupted", hint="")


@needs_kaniko
def test_a_registry_that_goes_down_during_the_push_is_told(
    pod: Pod, password_registry: Registry, registry: Registry, storage: dict[str, str], tmp_path: Path
) -> None:
    (pod.harness.model / "odahuflow_model/weights.bin").write_bytes(os.urandom(200 << 20))
    base = push_base("debian", registry, storage, tmp_path / "base")
    with serve_registry(tmp_path / "dying") as dying:
        pod.harness.base = base
        pod.harness.put_manifest(dying, imageName=name_of(pod).removeprefix("models/") + ":1")
        with pod.start() as job:
            wait_for_upload(dying, name_of(pod), job)
            shutil.rmtree(dying.folder / "data/docker/registry/v2/repositories", ignore_errors=True)
            stop(dying)
            log = job.communicate(timeout=200)[0]
    assert_failed(
        pod, password_registry, job.returncode, log, code=32, word="registry-unreachable", hint="name and port"
    )


def stop(registry: Registry) -> None:
    """End a registry's server at once, by the configuration that it was started with."""
    for pid in processes_with("cmdline", os.fsencode(registry.folder / "config.yml")):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


@needs_kaniko
def test_a_registry_that_is_down_at_the_push_is_told(
    pod: Pod, password_registry: Registry, registry: Registry, storage: dict[str, str], tmp_path: Path
) -> None:
    registry_down(pod)
    arguments = pod.harness.manifest["modelPackaging"]["spec"]["arguments"]
    arguments["dockerfileBaseImage"] = push_base("debian", registry, storage, tmp_path / "base")
    ran = pod.run()
    assert_failed(pod, password_registry, ran.code, ran.err, code=32, word="registry-unreachable", hint="name and port")


@needs_kaniko
def test_a_memory_limit_that_is_hit_is_told(pod: Pod, password_registry: Registry) -> None:
    (pod.harness.model / "odahuflow_model/weights.bin").write_bytes(os.urandom(200 << 20))
    pod.options = ["--memory", "120m", "--memory-swap", "120m"]
    ran = pod.run()
    assert_failed(pod, password_registry, ran.code, ran.err, code=42, word="out-of-memory", hint="memory")
