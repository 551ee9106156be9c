"""The whole program as its users start it: a model, a workspace, the command, and a look at what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.proc import processes_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.registry import Registry

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "tests" / "data" / "models"
CONDA_FORGE = "https://conda.anaconda.org/conda-forge"
CONDA_FILE = "name: wine\nchannels: [conda-forge]\ndependencies: [python]\n"
PODMAN = ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs")
RUN_WORDS = ("--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


@dataclass(kw_only=True)
class Ran:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


@dataclass(kw_only=True)
class PackagingHarness:
    """A working directory of the platform's kind with a model and a manifest in it."""

    folder: Path
    environ: dict[str, str]
    base: str
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def termination_log(self) -> Path:
        return self.folder / "termination-log"

    def put_model(self, name: str = "wine", conda_file: str = CONDA_FILE) -> None:
        shutil.rmtree(self.model, ignore_errors=True)
        shutil.copytree(MODELS / name, self.model)
        (self.model / "odahuflow_model/conda.yaml").write_text(conda_file)

    def put_manifest(self, registry: Registry | None, *, integration: str = "docker-rest", **arguments: Any) -> None:
        connection = registry.connection("models") if registry else None
        targets = []
        if connection is not None:
            spec = connection.spec.model_dump(by_alias=True, mode="json")
            spec["password"] = connection.spec.password.get_secret_value()
            spec["keyID"] = spec["keySecret"] = spec["publicKey"] = None
            targets = [{"name": "docker-push", "connection": {"id": "registry", "spec": spec}}]
        arguments = {"dockerfileBaseImage": self.base, "imageName": "{{ Name }}:{{ Version }}", **arguments}
        self.manifest = {
            "modelPackaging": {
                "id": "wine",
                "spec": {"integrationName": integration, "artifactName": "wine.zip", "arguments": arguments},
            },
            "targets": targets,
        }

    def arguments(self) -> list[str]:
        (self.folder / "mp.json").write_text(json.dumps(self.manifest))
        words = ["run", str(self.model), "mp.json", "--results-dir", str(self.results)]
        return [*words, "--termination-log", str(self.termination_log)]

    def start(self, *words: str, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        self.work.mkdir(exist_ok=True)
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "packager", *words],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def packager(self, *words: str) -> Ran:
        with self.start(*words) as process:
            out, err = process.communicate()
        return Ran(code=process.returncode, out=out, err=err)

    def run(self) -> Ran:
        return self.packager(*self.arguments())

    def buildah(self, *words: str) -> str:
        return subprocess.run(["buildah", *words], env=self.environ, check=True, capture_output=True, text=True).stdout

    def assert_nothing_left(self) -> None:
        """No result, no temporary folder, no process and no working container."""
        assert not (self.folder / "result.json").exists()
        assert not [path for path in self.folder.iterdir() if path.name.startswith(".")]
        assert list(self.results.iterdir()) == []
        self.assert_clean()

    def assert_clean(self) -> None:
        assert list(self.work.iterdir()) == []
        assert list(self.processes()) == []
        containers = self.buildah("containers", "--noheading", "--format", "{{.ContainerName}} of {{.ImageName}}")
        assert not containers, containers

    def processes(self) -> list[int]:
        """The processes that were started for this harness, by the folder in their environment."""
        marks = f"PACKAGER_WORK_DIR={self.work}".encode(), f"TMPDIR={self.work}".encode()
        return [pid for pid in processes_with("environ", *marks) if pid != os.getpid()]


def zip_folder(folder: Path, archive: Path, *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as stream:
        for path in sorted(folder.rglob("*")):
            stream.write(path, path.relative_to(folder))
    return archive


def wait_until_serving(port: int, process: subprocess.Popen[str]) -> None:
    import urllib.request  # noqa: PLC0415

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the image has ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the image does not serve")
