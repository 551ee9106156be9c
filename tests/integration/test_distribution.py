"""The wheel installs under its own name in an empty environment, and the three documented starts work from it."""

from __future__ import annotations

import email.parser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

import packager
from tests.integration.packagings import wait_until
from tests.integration.plain_http import PLAIN
from tests.integration.registry import free_port

pytestmark = [pytest.mark.needs("index"), pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
UV = [sys.executable, "-m", "uv"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([*UV, "build", "-q", "--wheel", "--out-dir", str(folder), str(PROJECT)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path, extra: str = "") -> Path:
    """Install the wheel into a new environment, and return the folder of its programs."""
    subprocess.run([*UV, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    python = ["--python", str(folder / "bin/python"), "-c", str(PROJECT / "requirements.lock")]
    subprocess.run([*UV, "pip", "install", "-q", *python, f"odahu-packager{extra} @ {wheel.as_uri()}"], check=True)
    return folder / "bin"


def run(program: Path, *args: str) -> str:
    environ = {"PATH": os.environ["PATH"], "HOME": str(program.parent)}
    return subprocess.run([program, *args], env=environ, check=True, capture_output=True, text=True).stdout


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        headers = email.parser.Parser().parsestr(archive.read(metadata).decode())
    assert (headers["Name"], headers["Version"]) == ("odahu-packager", packager.__version__)
    assert headers["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_plain_installation_packages_models(wheel: Path, tmp_path: Path) -> None:
    programs = install(wheel, tmp_path / "venv")
    assert run(programs / "packager", "--version").strip() == packager.__version__
    assert "docker-rest" in run(programs / "packager", "integrations")
    assert "RESOURCE_FILE" in run(programs / "odahu-flow-pack-to-rest", "--help")
    refused = subprocess.run([programs / "packager", "api"], check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "pip install 'odahu-packager[api]'" in refused.stderr


def test_the_api_extra_starts_the_service(wheel: Path, tmp_path: Path) -> None:
    programs = install(wheel, tmp_path / "venv", "[api]")
    port = free_port()
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PACKAGER_API_LISTEN": f"127.0.0.1:{port}"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([programs / "packager", "api"], env=environ, stdout=log, stderr=log)

    def is_ready() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/ready", verify=PLAIN).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(is_ready, 120)
    finally:
        process.terminate()
        process.wait()
    assert process.returncode == 0


def test_the_jupyterlab_extra_brings_the_panel(wheel: Path, tmp_path: Path) -> None:
    programs = install(wheel, tmp_path / "venv", "[jupyterlab]")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1"}
    for words in (["labextension", "list"], ["server", "extension", "list"]):
        done = subprocess.run([programs / "jupyter", *words], env=environ, check=True, capture_output=True, text=True)
        assert "packager" in done.stdout + done.stderr
        assert "OK" in done.stdout + done.stderr
