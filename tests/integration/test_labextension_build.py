"""The bundle of JupyterLab's extension that is checked in is what its sources and their lock give."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs("npm"), pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
BUILT = Path("packager", "jupyterlab", "labextension")
# The one thing that hangs on the folder it is built in: the number of the entry's own module, and so the entry's name.
_ENTRY = re.compile(rb"(?<=={)\d+(?=\(e,r,n\)\{var t=\{\"\./index\")")
_NAME = re.compile(rb"(?<=remoteEntry\.)[0-9a-f]+(?=\.js)")


def test_a_build_from_the_lock_gives_the_same_bundle(tmp_path: Path) -> None:
    sources = tmp_path / "labextension"
    shutil.copytree(PROJECT / "labextension", sources, ignore=shutil.ignore_patterns("node_modules", "lib"))
    (tmp_path / BUILT.parent).mkdir(parents=True)
    for words in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "check"], ["run", "build"]):
        done = subprocess.run(["npm", *words], cwd=sources, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert _bundle(tmp_path / BUILT) == _bundle(PROJECT / BUILT)


def _bundle(folder: Path) -> dict[str, bytes]:
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            if entry := _ENTRY.search(content):
                content = re.sub(rb"\b%s\b" % entry[0], b"ENTRY", content)
            name = _NAME.sub(b"NAME", str(file.relative_to(folder)).encode()).decode()
            found[name] = _NAME.sub(b"NAME", content)
    return found
