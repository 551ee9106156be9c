"""The Job image, run by podman under the rules that a pod would set, and the bases that it is tried on."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.conftest import write_root
from tests.integration.packaging import CONDA_FORGE, PODMAN, ROOT, RUN_WORDS, PackagingHarness, Ran
from tests.integration.proc import processes_with
from tests.integration.registry import free_port

if TYPE_CHECKING:
    from typing_extensions import Self

    from tests.integration.registry import Registry

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETFCAP", "KILL")
RULES = (
    "--cap-drop=all",
    *(f"--cap-add={name}" for name in CAPABILITIES),
    "--security-opt=no-new-privileges",
)
PLACEHOLDER = "localhost/no-kaniko:1"
_GLIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1")
# A conda of a few words, for a base that has only a shell, `cat` and `sleep`: the file it reads says what it does.
_CONDA = """#!/bin/sh -e
[ "$1 $2 $3 $5" = "env update --name --file" ]
case "$(cat "$6")" in
*"name: broken"*) echo "nothing provides teapot"; exit 42 ;;
*"name: slow"*) echo "conda has started"; sleep 321 & sleep 321 ;;
esac
echo "updated $4" > "/envs/$4/updated"
"""


@dataclass(kw_only=True)
class Pod:
    """One Job: its container, and the folder of this machine that its mounts come from."""

    harness: PackagingHarness
    image: str
    channel: Path
    cache: Path
    options: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"packager-job-{free_port()}")

    @property
    def results(self) -> Path:
        return self.harness.folder / "workspace" / "results"

    def command(self, *words: str) -> list[str]:
        folder = self.harness.folder
        (folder / "mp.json").write_text(json.dumps(self.harness.manifest))
        for name in ("workspace", "work"):
            (folder / name).mkdir(exist_ok=True)
        self.harness.termination_log.touch()
        mounts = {
            f"{self.harness.model}:/mnt/model": "ro",
            f"{folder / 'mp.json'}:/mnt/mp.json": "ro",
            f"{self.channel}:/mnt/channel": "ro",
            f"{folder / 'workspace'}:/workspace": "rw",
            f"{self.harness.work}:/kaniko/work": "rw",
            f"{self.cache}:/kaniko/cache-packager": "rw",
            f"{self.harness.termination_log}:/dev/termination-log": "rw",
        }
        variables = {"PACKAGER_CONDA_MIRRORS": f"{CONDA_FORGE}=file:///mnt/channel", **self.variables}
        run = [*PODMAN, "run", "--rm", "--name", self.name, *RUN_WORDS, *RULES, "--workdir", "/workspace"]
        run += [word for place, mode in mounts.items() for word in ("--volume", f"{place}:{mode}")]
        run += [word for item in variables.items() for word in ("--env", "=".join(item))]
        return [*run, *self.options, self.image, *words]

    def packaging(self) -> list[str]:
        return ["run", "/mnt/model", "/mnt/mp.json", "--engine", "kaniko", "--results-dir", "/workspace/results", "-v"]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the Job; its log and its output come through one pipe, as in a pod."""
        return subprocess.Popen(
            self.command(*words or self.packaging()),
            env=self.harness.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str) -> Ran:
        with self.start(*words) as process:
            log, _ = process.communicate()
        return Ran(code=process.returncode, out=log.strip().rpartition("\n")[2], err=log)

    def signal(self, name: str) -> None:
        words = [*PODMAN, "kill", "--signal", name, self.name]
        subprocess.run(words, env=self.harness.environ, check=True, capture_output=True)

    def told(self) -> dict[str, str]:
        """What the termination log says of the failure."""
        error: dict[str, str] = json.loads(self.harness.termination_log.read_text())["error"]
        return error

    def assert_nothing_left(self) -> None:
        """No result, no temporary file, no process, no container."""
        assert not (self.harness.folder / "workspace" / "result.json").exists()
        assert list(self.results.iterdir()) == []
        assert list(self.harness.work.iterdir()) == []
        listed = subprocess.run(
            [*PODMAN, "ps", "--all", "--quiet", "--filter", f"name={self.name}"],
            env=self.harness.environ,
            check=True,
            capture_output=True,
        )
        assert listed.stdout == b""
        assert self.processes() == []

    def processes(self) -> list[int]:
        """The processes of this container, by what is mounted for them; other tests run the same image beside it."""
        mark = f"/{self.harness.folder.parent.name}/{self.harness.folder.name}/workspace /workspace "
        return processes_with("mountinfo", mark.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        words = [*PODMAN, "rm", "--force", "--ignore", "--time", "1", self.name]
        subprocess.run(words, env=self.harness.environ, check=False, capture_output=True)


def job_image(environ: dict[str, str], folder: Path) -> str:
    """Make the Job image in the tests' storage; without Kaniko in it where Kaniko can't be had."""
    if not kaniko_is_there():
        folder.mkdir()
        (folder / "executor").write_text("#!/kaniko/python/bin/python3\nimport sys\n\nsys.exit('this is not Kaniko')\n")
        (folder / "executor").chmod(0o755)
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY executor /kaniko/executor\n")
        words = ["build", "--layers=false", "--timestamp", "0", "--tag", PLACEHOLDER, str(folder)]
        subprocess.run(["buildah", *words], env=environ, check=True, capture_output=True)
        environ = {**environ, "KANIKO_IMAGE": PLACEHOLDER}
    done = subprocess.run(["local/packager_image.sh"], cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode().strip()


def kaniko_is_there() -> bool:
    from tests.conftest import is_there  # noqa: PLC0415  (pytest has loaded it under another name)

    return is_there("kaniko-executor")


def authfile(registry: Registry, folder: Path) -> Path:
    pair = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))
    return path


def make_base(kind: str, folder: Path) -> Path:
    """Write the build context of a base: a shell, `cat` and `sleep`, and a glibc, in one of several layouts.

    `debian` has no Python; `own-kaniko` has a `/kaniko` of its own; `merged` keeps its libraries in /usr/lib64, which a
    cache tells the loader; `conda` has a conda.
    """
    root = folder / "root"
    write_root(root)
    for name in ("usr/bin/python3.11", "usr/bin/python3", "etc/alternatives/python3"):
        (root / name).unlink()
    libraries = next(root.rglob("libc.so.6")).parent
    for name in _GLIBC:
        shutil.copy2(Path("/", libraries.relative_to(root), name).resolve(), libraries / name)
    if kind == "own-kaniko":
        (root / "kaniko/python/bin").mkdir(parents=True)
        (root / "kaniko/executor").write_text("the base's own\n")
        (root / "kaniko/python/bin/python3").write_text("the base's own\n")
    elif kind == "merged":
        _merge(root, libraries)
    elif kind == "conda":
        (root / "envs/odahu/bin").mkdir(parents=True)
        (root / "envs/odahu/bin/python").write_text("#!/bin/sh\ncat /envs/odahu/updated\n")
        (root / "bin/conda").write_text(_CONDA)
        for name in ("envs/odahu/bin/python", "bin/conda"):
            (root / name).chmod(0o755)
    (folder / "Dockerfile").write_text(
        'FROM scratch\nCOPY root /\nENV PATH=/usr/bin:/bin ODAHU_CONDA_ENV_NAME=odahu\nCMD ["/bin/sh"]\n'
    )
    return folder


def _merge(root: Path, libraries: Path) -> None:
    (root / "usr/lib64").mkdir(parents=True)
    for path in (*libraries.iterdir(), *(root / "lib64").iterdir()):
        path.rename(root / "usr/lib64" / path.name)
    shutil.rmtree(root / "lib64")
    shutil.rmtree(root / "lib", ignore_errors=True)
    (root / "lib64").symlink_to("usr/lib64")
    (root / "etc/ld.so.conf").write_text("/usr/lib64\n")
    subprocess.run(["/sbin/ldconfig", "-r", root], check=True)


def push_base(kind: str, registry: Registry, environ: dict[str, str], folder: Path) -> str:
    """Build a base and push it to a registry; return its reference there."""
    folder.mkdir()
    local, reference = f"localhost/{kind}:1", f"{registry.host}/bases/{kind}:1"
    words = ["build", "--layers=false", "--timestamp", "1700000000", "--tag", local, str(make_base(kind, folder))]
    subprocess.run(["buildah", *words], env=environ, check=True, capture_output=True)
    words = [
        "push",
        "--tls-verify=false",
        "--authfile",
        str(authfile(registry, folder)),
        local,
        f"docker://{reference}",
    ]
    subprocess.run(["buildah", *words], env=environ, check=True, capture_output=True)
    return reference


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read a Job's log until a line has the text; return what was read."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def wait_for_upload(registry: Registry, repository: str, process: subprocess.Popen[str]) -> None:
    """Wait until a layer is on its way into a repository."""
    uploads = registry.folder / "data/docker/registry/v2/repositories" / repository / "_uploads"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if uploads.is_dir() and any(os.scandir(uploads)):
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    raise AssertionError("nothing was uploaded")
