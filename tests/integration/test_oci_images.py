"""`packager run` as the platform starts it, with the engine that it chooses itself: the images start and predict."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.integration.bases import make_base, plain_channel, user_environ
from tests.integration.oci import push
from tests.integration.packaging import (
    CONDA_FORGE,
    PODMAN,
    ROOT,
    RUN_WORDS,
    PackagingHarness,
    wait_until_serving,
)
from tests.integration.registry import PASSWORD, free_port
from tests.integration.test_packaging import ask, image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "podman", "runc", "docker-registry", "htpasswd", "mmdebstrap", "root")

NUMBERS = {"columns": ["features"] * 3, "data": [[1, 2, 4], [0, 0, 8]]}
ANSWER = [[1.5], [1.0]]
TMP = "/tmp"  # noqa: S108  (in the container, where it's empty)
SCRIPT = """
grep -E "^(CapEff|NoNewPrivs|Uid)" /proc/self/status >&2
! touch /x 2>/dev/null || exit 9
python3 -m packager build "$@" && ls -A /tmp
"""


@pytest.fixture(scope="session")
def bases(storage: dict[str, str], registry: Registry) -> dict[str, str]:
    """The base images of `make build-local`: the one for conda files in the registry, and one with a Python."""
    push(storage, make_base("base", storage), registry.host, "bases/debian:1")
    return {"python": make_base("python", storage), "base": f"{registry.host}/bases/debian:1"}


@pytest.fixture
def harness(tmp_path: Path, storage: dict[str, str], bases: dict[str, str]) -> PackagingHarness:
    environ = {**user_environ(storage), "PACKAGER_WORK_DIR": str(tmp_path / "work")}
    harness = PackagingHarness(folder=tmp_path, environ=environ, base=bases["base"])
    harness.put_model()
    return harness


@pytest.mark.timeout(900)
@pytest.mark.parametrize("integration", [pytest.param("docker-rest", marks=pytest.mark.smoke), "docker-cli"])
def test_the_platforms_run(harness: PackagingHarness, password_registry: Registry, integration: str) -> None:
    port = free_port()
    arguments = {"port": port} if integration == "docker-rest" else {}
    harness.put_manifest(password_registry, integration=integration, imageName=f"oci-{integration}:1", **arguments)
    ran = harness.run()
    assert ran.code == 0, ran.err
    assert "engine oci: no command needs to run during the build" in ran.err
    digest = password_registry.digest(f"models/oci-{integration}", "1")
    results = json.loads((harness.folder / "result.json").read_text())
    assert results["imageDigest"] == f"{password_registry.host}/models/oci-{integration}@{digest}"
    assert ran.out.splitlines() == [results["imageDigest"]]
    assert PASSWORD not in ran.out + ran.err
    harness.assert_clean()

    again = harness.run()
    assert "unchanged dependencies: using the environment in" in again.err
    assert "solving" not in again.err
    assert again.out == ran.out

    reference = results["imageDigest"]
    if integration == "docker-cli":
        volume = harness.folder / "volume"
        volume.mkdir()
        (volume / "in.json").write_text(json.dumps(NUMBERS))
        with image(harness, password_registry, reference, "--read-only", "-v", f"{volume}:/volume") as start:
            with start("predict", "/volume/in.json", "/volume") as batch:
                assert batch.wait() == 0
            assert json.loads((volume / "result.json").read_text())["prediction"] == ANSWER
        return
    with image(harness, password_registry, reference, "--read-only", "--user", "54321:0") as start, start() as rest:
        wait_until_serving(port, rest)
        answer = ask(f"http://127.0.0.1:{port}/api/model/invoke", json.dumps(NUMBERS).encode())
        assert answer["prediction"] == ANSWER
        start.stop()
        assert rest.wait(30) == 0


@pytest.mark.timeout(600)
def test_it_runs_as_nobody_with_a_root_that_can_not_be_written(
    harness: PackagingHarness, storage: dict[str, str], bases: dict[str, str], registry: Registry
) -> None:
    """This interpreter's packages and our source in an image with a Python; the conda environment is made in there."""
    site = sysconfig.get_path("purelib")
    mounts = {
        site: "/site",
        str(ROOT / "packager"): "/source/packager",
        str(plain_channel()): "/channel",
        str(harness.model): "/model",
    }
    digests = []
    for number in (1, 2):
        command = [
            *(*PODMAN, "run", "--rm", *RUN_WORDS),
            *("--read-only", "--read-only-tmpfs=false", "--user", "65534:65534"),
            *("--cap-drop", "all", "--security-opt", "no-new-privileges", "--mount", f"type=tmpfs,destination={TMP}"),
            *(word for here, there in mounts.items() for word in ("-v", f"{here}:{there}:ro")),
            *("-e", "PYTHONPATH=/source:/site", "-e", f"PACKAGER_CONDA_MIRRORS={CONDA_FORGE}=file:///channel"),
            *("-e", "PACKAGER_SERVER=gunicorn"),  # no index is to be reached in there
            *("--workdir", TMP, bases["python"], "sh", "-c"),
            SCRIPT,
            "sh",
            *(
                "/model",
                "-a",
                f"dockerfileBaseImage={bases['base']}",
                "--output",
                f"docker://{registry.host}/nobody/wine:1",
            ),
        ]
        ran = subprocess.run(command, env=storage, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert "Uid:\t65534\t65534" in ran.stderr
        assert "CapEff:\t0000000000000000" in ran.stderr
        assert "engine oci" in ran.stderr
        assert ("unchanged dependencies" in ran.stderr) == (number == 2)
        reference, *left = ran.stdout.split()
        assert set(left) <= {"packager-cache-65534"}
        digests.append(reference.rpartition("@")[2])
    assert digests == [registry.digest("nobody/wine", "1")] * 2
