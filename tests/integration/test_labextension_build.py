"""The bundle of JupyterLab's extension that is checked in is what its sources and their lock give."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs("npm"), pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
BUILT = Path("packager", "jupyterlab", "labextension")


def test_a_build_from_the_lock_gives_the_same_bundle(tmp_path: Path) -> None:
    sources = tmp_path / "labextension"
    shutil.copytree(PROJECT / "labextension", sources, ignore=shutil.ignore_patterns("node_modules", "lib"))
    (tmp_path / BUILT.parent).mkdir(parents=True)
    for words in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "check"], ["run", "build"]):
        done = subprocess.run(["npm", *words], cwd=sources, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert _bundle(tmp_path / BUILT) == _bundle(PROJECT / BUILT)


def _bundle(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
