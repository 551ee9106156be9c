"""Every command of the tutorials runs, with a small conda channel, a local registry and a mirror of Docker Hub."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SEARCH_PATH, go_program
from tests.integration.bases import make_base, user_environ
from tests.integration.packaging import PODMAN, ROOT
from tests.integration.registry import Registry, free_port
from tests.integration.tutorials import follow, read_blocks

TUTORIALS = ROOT / "docs" / "tutorials"
LIMITS = ("--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
# A machine without a container engine's usual set-up runs containers in the host's network.
_PODMAN = """\
#!/usr/bin/env python3
import os, sys
args = sys.argv[1:]
if args[0] == "run":
    if "-p" in args:
        del args[args.index("-p") : args.index("-p") + 2]
    args[1:1] = {limits}
os.execvp({podman}[0], [*{podman}, *args])
"""

pytestmark = [
    pytest.mark.needs(
        "buildah", "curl", "docker-registry", "index", "make", "mmdebstrap", "patchelf", "podman", "root", "runc"
    ),
    pytest.mark.timeout(1200),
]


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def push(source: str, destination: str, storage: dict[str, str]) -> None:
    words = ["buildah", "push", "--quiet", "--tls-verify=false", source, f"docker://{destination}"]
    subprocess.run(words, env=storage, check=True, capture_output=True)


@pytest.fixture
def environ(tmp_path: Path, storage: dict[str, str], registry: Registry) -> Iterator[dict[str, str]]:
    """A reader's environment: Podman, the packager, and Docker Hub's base images in the mirror."""
    for kind, image in (("base", "debian:12-slim"), ("python", "python:3.11-slim")):
        push(make_base(kind, storage), f"{registry.host}/library/{image}", storage)
    programs = tmp_path / "programs"
    podman = (str(shutil.which("podman", path=SEARCH_PATH)), *PODMAN[1:])
    write_program(programs / "podman", _PODMAN.format(limits=list(LIMITS), podman=list(podman)))
    packager = shlex.join([sys.executable, "-m", "packager"])
    write_program(programs / "packager", f'#!/bin/sh\nPYTHONPATH={ROOT} exec {packager} "$@"\n')
    # The channel's Python is the distribution's.
    write_program(programs / "python3", '#!/bin/sh\nexec /usr/bin/python3 "$@"\n')
    if helm := go_program("helm"):
        write_program(programs / "helm", f'#!/bin/sh\nexec {helm} "$@"\n')
    environ = {
        **user_environ(storage),
        "PATH": os.pathsep.join([str(programs), SEARCH_PATH]),
        "PACKAGER_REGISTRY_MIRRORS": f"docker.io={registry.host}",
        "REGISTRY": f"{registry.host}/models",
    }
    del environ["PYTHONPATH"]
    yield environ
    subprocess.run([programs / "podman", "rm", "--all", "--force"], env=environ, check=False, capture_output=True)


@pytest.mark.parametrize("name", ["scikit-learn", "onnx"])
def test_tutorial_runs_as_written(name: str, tmp_path: Path, environ: dict[str, str]) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    printed = follow(TUTORIALS / f"{name}.md", folder, environ, port=free_port())
    assert "@sha256:" in printed


def test_readme_runs_as_written(tmp_path: Path, environ: dict[str, str]) -> None:
    subprocess.run(["make", "example"], cwd=ROOT, check=True, capture_output=True)
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / ".cache/example/wine-1.0.zip", folder)
    printed = follow(ROOT / "README.md", folder, environ, port=free_port())
    assert '"prediction"' in printed


@pytest.mark.needs("helm")
def test_kubernetes_tutorial_renders_as_written(tmp_path: Path, environ: dict[str, str]) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    shutil.copytree(ROOT / "manifests", folder / "manifests")
    printed = follow(TUTORIALS / "kubernetes.md", folder, environ)
    assert "kind: Job" in printed


def test_blocks_of_tutorials_are_run_or_say_why_not() -> None:
    pages = sorted(TUTORIALS.glob("*.md"))
    assert {page.stem for page in pages} == {"scikit-learn", "onnx", "kubernetes"}
    for page in pages:
        blocks = [block for block in read_blocks(page) if block.language == "sh"]
        assert any(not block.reason for block in blocks)
        assert len(blocks) == page.read_text(encoding="utf-8").count("```sh"), page
