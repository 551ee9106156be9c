"""Every Python that models come with: their own old packages beside ours, and images of them as any user, read-only."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import find_python
from tests.integration.bases import make_base, user_environ
from tests.integration.packaging import PODMAN, RUN_WORDS, PackagingHarness, wait_until_serving
from tests.integration.registry import free_port
from tests.integration.serving import make_venv
from tests.integration.test_environment import CACHE, make_channel
from tests.integration.test_packaging import ask
from tests.integration.test_runtime_processes import Homes, Kind, Runner

PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
GUNICORN = ("3.8", "3.9")  # what has no granian that we use
# The oldest that have wheels; none is the version of ours that allow_status its name.
PINS = ("flask==2.0.3", "werkzeug==2.0.3", "pydantic==1.10.21", "gunicorn==19.10.0", "packaging==20.9", "granian<1.7")
PINS_BY_PYTHON = {
    "3.8": ("numpy==1.24.4", "orjson==3.9.15", "markupsafe==2.0.1"),
    "3.9": ("numpy==1.26.4", "orjson==3.9.15", "markupsafe==2.0.1"),
    "3.10": ("numpy==1.26.4", "orjson==3.9.15", "markupsafe==2.0.1"),
}
NEWER_PINS = ("numpy==2.1.3", "orjson==3.10.7", "markupsafe==3.0.2")
# Images of 3.11 are what all other tests make: the oldest with either server, and the newest.
IMAGES_OF = ("3.8", "3.10", "3.13")
EACH_PYTHON = [pytest.param(version, marks=pytest.mark.needs(f"python{version}")) for version in PYTHONS]
EACH_IMAGE = [pytest.param(version, marks=pytest.mark.needs(f"python{version}")) for version in IMAGES_OF]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    return Homes(tmp_path_factory.mktemp("images"), {})


@pytest.mark.needs("index")
@pytest.mark.parametrize("version", EACH_PYTHON)
def test_model_with_old_versions_of_our_packages_gets_its_own(homes: Homes, tmp_path: Path, version: str) -> None:
    base = find_python(version)
    assert base is not None
    python = make_venv(f"pinned-{version}", base, *PINS, *PINS_BY_PYTHON.get(version, NEWER_PINS))
    kind = Kind(str(python), version, "gunicorn" if version in GUNICORN else "granian")
    runner = Runner(kind.python, homes.of(kind), tmp_path, kind.server)
    with runner.serve("pinned") as service:
        answer = service.invoke(30, 1, 2)
        assert answer.status == 200, answer.payload
        [[used, places, ours]] = answer.payload["prediction"]
        assert used == ["&lt;wine&gt;", 1.5, 20.0, 33.0, True, True, True]
        for name, place in places:
            assert Path(place).is_relative_to(python.parents[1]), name
        assert ours == []
        assert "Starting gunicorn 23.0.0" in service.log
        assert service.ask("POST", "/api/model/invoke", b"{").status == 400
        assert service.ask("GET", "/openapi.json").payload["openapi"] == "3.1.0"
        assert service.stop()[0] == 0


@pytest.fixture(scope="module")
def pythons_channel() -> Path:
    """A channel of these Pythons: pyenv's, as conda packages. It takes a while, once."""
    found = [find_python(version) for version in IMAGES_OF]
    prefixes = [word for python in found if python for word in ("--python", str(Path(python).parents[1]))]
    return make_channel(CACHE / "pythons-channel", *prefixes)


@pytest.fixture(scope="module")
def base(storage: dict[str, str]) -> str:
    """The base image of `make build-local`."""
    return make_base("base", storage)


@pytest.mark.timeout(600)
@pytest.mark.needs("buildah", "podman", "runc", "skopeo", "mmdebstrap", "patchelf", "root", "index")
@pytest.mark.parametrize("version", EACH_IMAGE)
def test_image_serves_as_any_user_with_a_read_only_root(
    tmp_path: Path, storage: dict[str, str], base: str, pythons_channel: Path, version: str
) -> None:
    environ = {**user_environ(storage, pythons_channel), "PACKAGER_WORK_DIR": str(tmp_path / "work")}
    harness = PackagingHarness(folder=tmp_path, environ=environ, base=base)
    harness.put_model(conda_file=f"name: wine\nchannels: [conda-forge]\ndependencies: ['python={version}']\n")
    port = free_port()
    output = tmp_path / "wine.tar"
    words = ("-a", f"dockerfileBaseImage={harness.base}", "-a", "imageName=wine:1", "-a", f"port={port}")
    ran = harness.packager("build", str(harness.model), *words, "--output", f"oci-archive:{output}")
    assert ran.code == 0, ran.err
    name = f"packager-test-{port}"
    rights = ("--read-only", "--read-only-tmpfs=false", "--user", "54321:0", "--cap-drop", "all")
    command = [*PODMAN, "run", *rights, "--rm", "--name", name, *RUN_WORDS, f"oci-archive:{output}"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as served:
        try:
            wait_until_serving(port, served)
            body = json.dumps({"columns": ["features"] * 3, "data": [[1, 2, 3]]}).encode()
            address = f"http://127.0.0.1:{port}"
            assert ask(f"{address}/api/model/invoke", body) == {"prediction": [[1.375]], "columns": ["predictions"]}
            assert ask(f"{address}/v2/health/ready") == {"ready": True}
            which = "import os, sys; print(sys.version_info[:2], os.getuid(), os.access('/', os.W_OK))"
            inside = [*PODMAN, "exec", name, "python", "-c", which]
            printed = subprocess.run(inside, env=environ, check=True, capture_output=True, text=True).stdout
            assert printed == f"({version.replace('.', ', ')}) 54321 False\n"
        finally:
            stop = [*PODMAN, "stop", "--ignore", "--time", "10", name]
            subprocess.run(stop, env=environ, check=False, capture_output=True)
        assert served.wait(30) == 0
