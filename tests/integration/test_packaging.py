"""`packager` from end to end with real tools: a model goes in, images come out, are run, and predict."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.bases import make_base, user_environ
from tests.integration.front import serve_front
from tests.integration.packaging import (
    CONDA_FILE,
    PODMAN,
    ROOT,
    RUN_WORDS,
    PackagingHarness,
    wait_until_serving,
    zip_folder,
)
from tests.integration.proc import children_of
from tests.integration.registry import PASSWORD, free_port, serve_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs(
    "buildah", "podman", "runc", "docker-registry", "htpasswd", "mmdebstrap", "make", "root", "unshare"
)


@pytest.fixture(scope="session")
def environ(storage: dict[str, str]) -> dict[str, str]:
    """A user's environment: the tests' own storage, the small channel in conda-forge's place."""
    return user_environ(storage)


@pytest.fixture(scope="session")
def bases(storage: dict[str, str]) -> dict[str, str]:
    """The two base images of `make build-local`, in the tests' storage."""
    return {kind: make_base(kind, storage) for kind in ("base", "python")}


@pytest.fixture
def harness(
    tmp_path: Path, environ: dict[str, str], bases: dict[str, str], password_registry: Registry
) -> PackagingHarness:
    work = tmp_path / "work"
    made = PackagingHarness(folder=tmp_path, environ={**environ, "PACKAGER_WORK_DIR": str(work)}, base=bases["base"])
    made.put_model()
    made.put_manifest(password_registry)
    return made


def tree_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        row = (str(path.relative_to(folder)), status.st_mode, int(status.st_mtime), hashlib.sha256(content).hexdigest())
        digest.update(repr(row).encode())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def wine() -> Path:
    """The example: a real scikit-learn model."""
    archive = ROOT / ".cache/example/wine-1.0.zip"
    subprocess.run(["make", "-s", str(archive.relative_to(ROOT))], cwd=ROOT, check=True, capture_output=True)
    return archive


def directly(wine: Path, request: str) -> Any:
    python = ROOT / ".cache/example-venv/bin/python"
    done = subprocess.run(
        [python, "examples/wine/predict_directly.py", wine, f"examples/wine/{request}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return json.loads(done.stdout)


def ask(url: str, body: bytes | None = None) -> Any:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


@pytest.mark.timeout(900)
def test_the_example_is_packaged_pushed_run_and_predicts(
    harness: PackagingHarness, wine: Path, password_registry: Registry
) -> None:
    port = free_port()
    harness.put_manifest(password_registry, port=port, workers=2)
    shutil.rmtree(harness.model)
    ran = harness.packager(*[str(wine) if word == str(harness.model) else word for word in harness.arguments()])
    assert ran.code == 0, ran.err

    # The four outputs agree, and the digest is what the registry serves.
    results = json.loads((harness.folder / "result.json").read_text())
    digest = password_registry.digest("models/wine", "1.0")
    assert results["image"] == f"{password_registry.host}/models/wine:1.0"
    assert results["imageDigest"] == f"{password_registry.host}/models/wine@{digest}"
    assert json.loads(harness.termination_log.read_text()) == results
    assert {path.name: path.read_text() for path in harness.results.iterdir()} == results
    assert ran.out.splitlines() == [results["imageDigest"]]
    assert PASSWORD not in ran.out + ran.err
    harness.assert_clean()

    # The image starts as any user with a read-only root, and answers what the model answers.
    with (
        image(harness, password_registry, results["imageDigest"], "--read-only", "--user", "54321:0") as run,
        run() as rest,
    ):
        wait_until_serving(port, rest)
        for request in ("request.json", "request-no-columns.json"):
            body = (ROOT / "examples/wine" / request).read_bytes()
            assert ask(f"http://127.0.0.1:{port}/api/model/invoke", body) == directly(wine, request)
        post = ask(f"http://127.0.0.1:{port}/api/model/info")["paths"]["/api/model/invoke"]["post"]
        assert "parameters" in post
        run.stop()
        assert rest.wait(30) == 0


class image:  # noqa: N801  (reads as a verb at its uses)
    """Runs an image of a registry under podman, with the tests' storage and login."""

    def __init__(self, harness: PackagingHarness, registry: Registry, reference: str, *words: str) -> None:
        self.harness = harness
        self.name = f"packager-test-{free_port()}"
        self.auth = harness.folder / "auth.json"
        self.auth.write_text("{}")
        login = ("--username", registry.username, "--password-stdin")
        subprocess.run(
            [*PODMAN, "login", "--authfile", str(self.auth), "--tls-verify=false", *login, registry.host],
            input=registry.password.encode(),
            env=harness.environ,
            check=True,
            capture_output=True,
        )
        access = ("--authfile", str(self.auth), "--tls-verify=false", "--name", self.name, "--rm")
        self.command = [*PODMAN, "run", *access, *RUN_WORDS, *words, f"docker://{reference}"]

    def __call__(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, *arguments], env=self.harness.environ, stdout=subprocess.PIPE, text=True
        )

    def stop(self) -> None:
        words = [*PODMAN, "stop", "--time", "10", self.name]
        subprocess.run(words, env=self.harness.environ, check=True, capture_output=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        words = [*PODMAN, "rm", "--force", "--ignore", "--time", "2", self.name]
        subprocess.run(words, env=self.harness.environ, check=False, capture_output=True)
        self.auth.unlink()


@pytest.mark.timeout(900)
def test_the_example_predicts_in_batch(harness: PackagingHarness, wine: Path, password_registry: Registry) -> None:
    harness.put_manifest(password_registry, integration="docker-cli", imageName="wine-cli:1")
    ran = harness.packager(*[str(wine) if word == str(harness.model) else word for word in harness.arguments()])
    assert ran.code == 0, ran.err
    reference = ran.out.strip()
    volume = harness.folder / "volume"
    volume.mkdir()
    shutil.copy(ROOT / "examples/wine/request.json", volume / "predicts.json")
    with image(harness, password_registry, reference, "--read-only", "-v", f"{volume}:/volume") as run:
        with run("predict", "/volume/predicts.json", "/volume") as batch:
            assert batch.wait() == 0
        assert json.loads((volume / "result.json").read_text()) == directly(wine, "request.json")
        with run("info") as info:
            text = info.communicate()[0]
        assert text.startswith("Input schema:\n{")
        assert "\nOutput schema:\n{" in text
        with run("--help") as help_:
            assert "predict" in help_.communicate()[0]


def test_the_entry_point_of_the_platform_fixes_the_packager(
    harness: PackagingHarness, password_registry: Registry
) -> None:
    harness.put_manifest(password_registry, integration="anything", imageName="fixed:1")
    program = Path(sys.executable).with_name("odahu-flow-pack-to-cli")
    harness.work.mkdir()
    done = subprocess.run(
        [program, *harness.arguments()[1:]],
        cwd=harness.folder,
        env=harness.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    config = password_registry.manifest("models/fixed", "1")["config"]["digest"]
    entrypoint = json.loads(password_registry.blob("models/fixed", config))["config"]["Entrypoint"]
    assert entrypoint[1:] == ["/opt/odahu/runtime", "cli"]


def test_a_second_run_makes_the_same_bytes_and_a_new_model_moves_only_itself(
    harness: PackagingHarness, password_registry: Registry
) -> None:
    digests = []
    for number in (1, 2):
        context = harness.folder / f"context-{number}"
        words = ("-a", f"dockerfileBaseImage={harness.base}", "--context", str(context))
        ran = harness.packager("render", str(zip_folder(harness.model, harness.folder / "wine.zip")), *words)
        assert ran.code == 0, ran.err
        digests.append(tree_digest(context))
    assert digests[0] == digests[1]

    layers = []
    for version in ("a", "b"):
        harness.put_manifest(password_registry, imageName=f"again:{version}")
        (harness.model / "odahuflow_model/weights.bin").write_bytes(version.encode() * 1000)
        ran = harness.packager(*harness.arguments(), "--verbose")
        assert ran.code == 0, ran.err
        layers.append([layer["digest"] for layer in password_registry.manifest("models/again", version)["layers"]])
    assert layers[0][:-1] == layers[1][:-1]
    assert layers[0][-1] != layers[1][-1]
    assert ran.err.count("Using cache") >= 2  # Buildah took the environment and the runtime as they were


def test_a_model_with_pip_requirements_runs_on_the_bases_python(
    harness: PackagingHarness, bases: dict[str, str], password_registry: Registry
) -> None:
    manifest = (harness.model / "odahuflow.project.yaml").read_text()
    manifest = manifest.replace("dependencies: conda", "dependencies: pip").replace("conda_path", "requirements_path")
    (harness.model / "odahuflow.project.yaml").write_text(manifest.replace("conda.yaml", "requirements.txt"))
    (harness.model / "odahuflow_model/requirements.txt").write_text("six==1.16.0\n")
    entrypoint = harness.model / "odahuflow_model/entrypoint.py"
    entrypoint.write_text(
        "import six\nassert six.__version__ == '1.16.0'\n"
        + entrypoint.read_text().replace("from __future__ import annotations\n", "")
    )
    harness.put_manifest(
        password_registry, integration="docker-cli", dockerfileBaseImage=bases["python"], imageName="pip:1"
    )
    ran = harness.run()
    assert ran.code == 0, ran.err
    with image(harness, password_registry, ran.out.strip()) as run, run("info") as info:
        assert info.communicate()[0].startswith("Input schema:\n{")
        assert info.returncode == 0


def test_a_base_with_its_own_conda_updates_its_environment_during_the_build(
    harness: PackagingHarness, bases: dict[str, str], environ: dict[str, str], password_registry: Registry
) -> None:
    # A conda of a few lines: `env update` makes the environment that is asked for out of the base's own Python.
    context = harness.folder / "conda-base"
    context.mkdir()
    (context / "conda").write_text(
        '#!/bin/sh -e\n[ "$1 $2 $3 $5" = "env update --name --file" ] && grep -q "^name: wine" "$6"\n'
        'mkdir -p "/envs/$4/bin" && ln -s /usr/bin/python3 "/envs/$4/bin/python" && echo "updated $4"\n'
    )
    (context / "conda").chmod(0o755)
    (context / "Dockerfile").write_text(
        f"FROM {bases['python']}\nCOPY conda /usr/bin/conda\nENV ODAHU_CONDA_ENV_NAME=odahu\n"
    )
    base = "localhost/conda-base:1"
    subprocess.run(["buildah", "build", "-t", base, context], env=environ, check=True, capture_output=True)
    arguments = {"dockerfileAddCondaInstallation": False, "dockerfileCondaEnvsLocation": "/envs"}
    harness.put_manifest(
        password_registry, integration="docker-cli", dockerfileBaseImage=base, imageName="conda:1", **arguments
    )
    ran = harness.run()
    assert ran.code == 0, ran.err
    with image(harness, password_registry, ran.out.strip()) as run, run("info") as info:
        assert info.communicate()[0].startswith("Input schema:\n{")
        assert info.returncode == 0
    assert "the model serves: loaded in" in ran.err

    code = harness.model / "odahuflow_model/entrypoint.py"
    good = code.read_text()
    code.write_text(good + "\nimport a_module_that_nobody_has\n")
    failed = harness.run()
    assert failed.code == 24
    assert "No module named 'a_module_that_nobody_has'" in failed.err
    assert 'File "/opt/odahu/model/odahuflow_model/entrypoint.py"' in failed.err
    harness.assert_nothing_left()
    code.write_text(good)

    (harness.model / "odahuflow_model/conda.yaml").write_text(CONDA_FILE.replace("name: wine", "name: other"))
    failed = harness.run()
    assert failed.code == 41
    assert "conda env update" in failed.err
    harness.assert_nothing_left()


@pytest.mark.parametrize("output", ["oci-archive:wine.tar", "oci:layout"])
def test_without_a_registry_the_image_goes_to_a_file_or_a_folder(harness: PackagingHarness, output: str) -> None:
    words = ("-a", f"dockerfileBaseImage={harness.base}", "-a", "imageName=wine:1", "--output", output)
    ran = harness.packager("build", str(harness.model), *words, "--result-file", "out.json")
    assert ran.code == 0, ran.err
    results = json.loads((harness.folder / "out.json").read_text())
    assert ran.out.strip() == results["imageDigest"]
    inspected = subprocess.run(
        ["skopeo", "inspect", f"{output}:localhost/wine:1"],
        cwd=harness.folder,
        env=harness.environ,
        check=True,
        capture_output=True,
    )
    assert results["imageDigest"] == f"localhost/wine@{json.loads(inspected.stdout)['Digest']}"
    harness.assert_clean()


def edit(path: str, old: str, new: str) -> Callable[[PackagingHarness], None]:
    def change(harness: PackagingHarness) -> None:
        file = harness.model / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return change


def remove(path: str) -> Callable[[PackagingHarness], None]:
    return lambda harness: (harness.model / path).unlink()


def conda(text: str) -> Callable[[PackagingHarness], None]:
    def change(harness: PackagingHarness) -> None:
        (harness.model / "odahuflow_model/conda.yaml").write_text(text)

    return change


def argument(**values: Any) -> Callable[[PackagingHarness], None]:
    def change(harness: PackagingHarness) -> None:
        harness.manifest["modelPackaging"]["spec"]["arguments"].update(values)

    return change


def target(**values: Any) -> Callable[[PackagingHarness], None]:
    def change(harness: PackagingHarness) -> None:
        harness.manifest["targets"][0]["connection"]["spec"].update(values)

    return change


def setting(name: str, value: str) -> Callable[[PackagingHarness], None]:
    return lambda harness: harness.environ.update({name: value})


def no_target(harness: PackagingHarness) -> None:
    harness.manifest["targets"] = []


def no_manifest_file(harness: PackagingHarness) -> None:
    harness.manifest = {}


def truncated_zip(harness: PackagingHarness) -> None:
    whole = zip_folder(harness.model, harness.folder / "whole.zip").read_bytes()
    shutil.rmtree(harness.model)
    harness.model.write_bytes(whole[: len(whole) // 2])


MANIFEST = "odahuflow.project.yaml"
BAD_INPUTS: dict[str, tuple[Callable[[PackagingHarness], None], int, str, str]] = {
    "truncated zip": (truncated_zip, 10, "artifact", "is truncated"),
    "no manifest": (remove(MANIFEST), 11, "manifest", "odahuflow.project.yaml"),
    "manifest not YAML": (edit(MANIFEST, "binaries:", "binaries: ["), 11, "manifest", "YAML"),
    "another type": (edit(MANIFEST, "type: python", "type: r"), 11, "manifest", "python"),
    "no model section": (edit(MANIFEST, "model:", "modell:"), 11, "manifest", "model"),
    "no conda file": (remove("odahuflow_model/conda.yaml"), 20, "dependencies", "conda.yaml"),
    "unsolvable": (conda(CONDA_FILE.replace("python]", "'python >=99']")), 21, "solve", "python >=99"),
    "unreachable channel": (
        conda("channels: ['http://127.0.0.1:1/c', nodefaults]\ndependencies: [python]"),
        22,
        "channel",
        "127.0.0.1:1",
    ),
    "unknown argument": (argument(color="red"), 12, "request", "argument 'color' is unknown"),
    "wrong type": (argument(port="many"), 12, "request", "argument port: input should be a valid integer"),
    "port out of range": (argument(port=70000), 12, "request", "less than or equal to 65535"),
    "no docker-push": (no_target, 12, "request", "target 'docker-push' is required"),
    "connection of a wrong type": (target(type="s3"), 12, "request", "is of type 's3'"),
    "name renders to nothing": (argument(imageName="{{ '' }}"), 12, "request", "leaves no name"),
    "undefined template name": (argument(imageName="{{ Nam }}"), 12, "request", "'Nam' is undefined"),
    "template with attributes": (
        argument(imageName="{{ Name.__class__ }}"),
        12,
        "request",
        "is not allowed",
    ),
    "registry refused": (target(uri="127.0.0.1:1/models"), 32, "registry-unreachable", "127.0.0.1:1"),
    "wrong password": (target(password="wrong-password"), 31, "registry-auth", "127.0.0.1"),
    "base image missing": (
        argument(dockerfileBaseImage="localhost/nowhere:1"),
        33,
        "image-not-found",
        "localhost/nowhere:1",
    ),
    "unknown setting": (setting("PACKAGER_COLOR", "red"), 2, "usage", "PACKAGER_COLOR"),
    "no packaging": (no_manifest_file, 12, "request", "modelPackaging"),
    "buildah missing": (setting("PATH", "/nonexistent"), 43, "tool-missing", "buildah"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_bad_input_is_one_clear_error_and_leaves_nothing(harness: PackagingHarness, name: str) -> None:
    change, code, word, message = BAD_INPUTS[name]
    path = harness.environ["PATH"]
    change(harness)
    (harness.folder / "result.json").write_text("an earlier run's")
    ran = harness.run()
    harness.environ["PATH"] = path
    assert ran.code == code, ran.err
    assert ran.out == ""
    told = json.loads(harness.termination_log.read_text())["error"] if code != 2 else None
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert PASSWORD not in ran.err
    assert "wrong-password" not in ran.err
    if told:
        assert told["code"] == word
        assert message in told["message"]
        assert told["hint"]
    if code != 2:
        harness.assert_nothing_left()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_under_the_work_folder_is_told(harness: PackagingHarness, small_disk: Path) -> None:
    harness.environ["PACKAGER_WORK_DIR"] = str(small_disk)
    (harness.model / "odahuflow_model/weights.bin").write_bytes(os.urandom(30 << 20))
    ran = harness.run()
    assert ran.code == 50, ran.err
    assert "PACKAGER_WORK_DIR" in ran.err
    assert list(small_disk.iterdir()) == []
    harness.assert_nothing_left()


def test_a_registry_out_of_space_is_told(harness: PackagingHarness, small_disk: Path) -> None:
    (harness.model / "odahuflow_model/weights.bin").write_bytes(os.urandom(60 << 20))
    with serve_registry(harness.folder / "full", storage=small_disk) as registry:
        harness.put_manifest(registry)
        ran = harness.run()
        assert ran.code == 30, ran.err
        assert registry.digest("models/wine", "1.0") is None
    harness.assert_nothing_left()


AS_PROCESS_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL")
STAGES = [
    "Reading the model",
    "Looking into the base image",
    "solving the conda environment",
    "linking 1 conda packages",
    "compiling modules",
    "Checking that the model serves",
    "Writing the build context",
    "Building with buildah",
    "build --isolation",
    "push --authfile",
]


SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]
ENDINGS = [
    pytest.param(stage, number, prefix, id=f"{stage}-{number.name}-{place}")
    for index, stage in enumerate(STAGES)
    for place, prefix, numbers in (("child", (), SIGNALS), ("process 1", AS_PROCESS_1, [SIGNALS[index % 3]]))
    for number in numbers
]


@pytest.mark.parametrize(("stage", "number", "prefix"), ENDINGS)
def test_a_signal_at_any_stage_leaves_nothing(
    harness: PackagingHarness, password_registry: Registry, stage: str, number: signal.Signals, prefix: tuple[str, ...]
) -> None:
    name = f"stopped-{STAGES.index(stage)}"
    (harness.model / "odahuflow_model/weights.bin").write_bytes(os.urandom(64 << 20))
    with serve_front(password_registry) as front:
        front.stalled.set()  # so that no push ends before its signal comes
        harness.put_manifest(replace(password_registry, host=front.host), imageName=f"{name}:{number.name}")
        process = harness.start(*harness.arguments(), "--verbose", prefix=prefix)
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if f" {stage}" in line and "done in" not in line:
                outer = children_of(process.pid)[0] if prefix else process.pid
                worker = next(pid for pid in children_of(outer) if os.getsid(pid) == pid)
                os.kill(worker if number == signal.SIGKILL else outer, number)
                break
        out, err = process.communicate(timeout=60)
        assert process.returncode == 128 + number, "".join(lines) + err
        assert out == ""
        error = json.loads(harness.termination_log.read_text())["error"]
        assert error["code"] == ("killed" if number == signal.SIGKILL else "interrupted")
        front.stalled.clear()
        if number == signal.SIGKILL:
            harness.buildah("rm", "--all")  # else the next run does it (tests/integration/test_buildah.py)
        harness.assert_nothing_left()  # that could push on
    assert password_registry.digest(f"models/{name}", number.name) is None


@pytest.mark.parametrize(
    ("words", "stage", "made"),
    [
        (("render", "--context", "out"), "Writing the build context", "Dockerfile"),
        (("build", "--output", "oci:out"), "Building with buildah", "index.json"),
    ],
    ids=["render", "build"],
)
def test_a_stop_comes_too_late_once_the_output_is_there(
    harness: PackagingHarness, words: tuple[str, ...], stage: str, made: str
) -> None:
    process = harness.start(words[0], str(harness.model), "-a", f"dockerfileBaseImage={harness.base}", *words[1:])
    assert process.stderr is not None
    for line in process.stderr:
        if f" {stage}" in line and "done in" in line:
            process.send_signal(signal.SIGTERM)
            break
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 0, err
    assert (harness.folder / "out" / made).is_file()
    harness.assert_clean()
