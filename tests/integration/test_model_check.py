"""The check of a model while it's packaged: real environments, models of every bad kind, nothing pushed."""

from __future__ import annotations

import ctypes
import json
import os
import textwrap
from typing import TYPE_CHECKING

import pytest

from packager.system.process import run_command, unreadable
from tests.integration.bases import plain_channel
from tests.integration.oci import pip_harness, push, words
from tests.integration.packaging import CONDA_FORGE, ROOT, PackagingHarness, zip_folder
from tests.integration.registry import PASSWORD
from tests.integration.test_environment import CACHE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.packaging import Ran
    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")

CANT_SERVE = 24
PR_SET_DUMPABLE = 4
GOOD = """
def predict_on_matrix(matrix, provided_columns_names=None):
    return [[sum(row)] for row in matrix], ["sum"]

def info():
    return [{"name": "a", "type": "number", "example": 1}], [{"name": "sum", "type": "number"}]

def init():
    return "matrix"
"""
IN_INIT = "def init():\n"


@pytest.fixture(scope="session")
def base(registry: Registry, storage: dict[str, str], tiny_base: str) -> str:
    push(storage, tiny_base, registry.host, "check/base:1")
    return f"{registry.host}/check/base:1"


@pytest.fixture
def pip(tmp_path: Path, storage: dict[str, str], base: str) -> PackagingHarness:
    harness = pip_harness(tmp_path, storage, base)
    harness.environ["PACKAGER_ENVIRONMENT_CACHE"] = "false"
    return harness


@pytest.fixture
def conda(tmp_path: Path, storage: dict[str, str], base: str) -> PackagingHarness:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PACKAGER_")}
    ours = {
        "PACKAGER_WORK_DIR": str(tmp_path / "work"),
        "PACKAGER_CACHE_DIR": str(CACHE / "cache"),
        "PACKAGER_CONDA_MIRRORS": f"{CONDA_FORGE}=file://{plain_channel()}",
        "PACKAGER_ENVIRONMENT_CACHE": "false",
        "PYTHONPATH": str(ROOT),
    }
    harness = PackagingHarness(folder=tmp_path, environ={**inherited, **storage, **ours}, base=base)
    harness.put_model()
    return harness


def put(harness: PackagingHarness, code: str) -> None:
    """Put a model's code in the place of the wine model's; what it defines comes after what is good."""
    (harness.model / "odahuflow_model/entrypoint.py").write_text(GOOD + textwrap.dedent(code))


def package(harness: PackagingHarness, output: str, *more: str) -> Ran:
    return harness.packager(*words(harness, output, *more))


def assert_refused(harness: PackagingHarness, registry: Registry, ran: Ran, repository: str, said: str) -> None:
    assert ran.code == CANT_SERVE, ran.err
    assert said in ran.err
    assert ran.out == ""
    assert "Building with" not in ran.err
    assert registry.ask("GET", f"/v2/{repository}/tags/list")[0] == 404
    assert list(harness.work.iterdir()) == []
    assert list(harness.processes()) == []


def test_a_good_model_is_checked_and_its_image_is_as_without(conda: PackagingHarness) -> None:
    layers = {}
    for option in ("--check", "--no-check"):
        ran = package(conda, f"oci:{conda.folder / option[2:]}", option, "--verbose")
        assert ran.code == 0, ran.err
        assert ("the model serves: loaded in" in ran.err) == (option == "--check")
        assert ("a word on stdout" in ran.err) == (option == "--check")
        assert ("not checked, as requested" in ran.err) == (option == "--no-check")
        index = json.loads((conda.folder / option[2:] / "index.json").read_text())
        layers[option] = index["manifests"][0]["digest"]
    assert layers["--check"] == layers["--no-check"]


def test_a_module_that_the_conda_environment_lacks(conda: PackagingHarness, registry: Registry) -> None:
    put(conda, "import numpy_of_another_age\n")
    ran = package(conda, f"docker://{registry.host}/check/lacking:1")
    assert_refused(conda, registry, ran, "check/lacking", "ModuleNotFoundError: No module named 'numpy_of_another_age'")
    assert 'File "/opt/odahu/model/odahuflow_model/entrypoint.py", line' in ran.err


def test_a_model_that_changes_its_environment(conda: PackagingHarness, registry: Registry) -> None:
    put(conda, 'import os\ndef init():\n    open(os.__file__, "a").write("# mine")\n    return "matrix"\n')
    ran = package(conda, f"docker://{registry.host}/check/changing:1")
    assert_refused(conda, registry, ran, "check/changing", "lib/")  # as it's forbidden, or as it's seen afterwards


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        (
            "init",
            IN_INIT + "    return read_weights()\ndef read_weights():\n    raise OSError('no weights')",
            "in read_weights",
        ),
        ("info", "def info():\n    return 1", "info() of the model failed: TypeError"),
        (
            "sample",
            "def predict_on_matrix(matrix, provided_columns_names=None):\n    return 1 / 0",
            "ZeroDivisionError",
        ),
        (
            "form",
            "def predict_on_matrix(matrix, provided_columns_names=None):\n    return [object()], []",
            "can't be represented in JSON",
        ),
        ("hang", "import time\n" + IN_INIT + "    time.sleep(600)", "it had not ended after 10 s of loading"),
        ("exit", "import os\n" + IN_INIT + "    os._exit(0)", "ended its own process with exit code 0"),
        ("kill", "import os\n" + IN_INIT + "    os.kill(os.getpid(), 9)", "its process was killed by SIGKILL"),
        ("mode", IN_INIT + "    return 'tensor'", "init() of the model returned 'tensor'"),
        (
            "fork",
            "import os, time\n" + IN_INIT + "    if not os.fork(): time.sleep(600)\n    os._exit(3)",
            "exit code 3",
        ),
    ],
)
def test_a_model_that_can_not_serve_is_not_pushed(
    pip: PackagingHarness, registry: Registry, name: str, code: str, said: str
) -> None:
    put(pip, code)
    if name == "hang":
        pip.environ["PACKAGER_CHECK_SECONDS"] = "10"
    ran = package(pip, f"docker://{registry.host}/check/{name}:1", "--termination-log", str(pip.termination_log))
    assert_refused(pip, registry, ran, f"check/{name}", said)
    error = json.loads(pip.termination_log.read_text())["error"]
    assert (error["code"], "the model can't serve" in error["message"]) == ("model-check", True)
    assert "--no-check" in error["hint"]


def test_processes_that_a_model_leaves_behind_do_not_keep_the_check_waiting(pip: PackagingHarness) -> None:
    """multiprocessing waits for them at Python's end; joblib's idle for 300 s."""
    pip.environ["PACKAGER_CHECK_SECONDS"] = "100"
    code = IN_INIT + "    multiprocessing.Process(target=time.sleep, args=(600,)).start()\n    return 'matrix'"
    put(pip, "import multiprocessing, time\n" + code)
    ran = package(pip, f"oci:{pip.folder / 'image'}", "--check")
    assert (ran.code, "the model serves" in ran.err) == (0, True), ran.err
    assert list(pip.processes()) == []


def test_what_the_check_leaves_of_a_zip_is_nothing(pip: PackagingHarness) -> None:
    """Large files stay in the zip for the image, and are there for the check all the same; what it writes is gone."""
    (pip.model / "odahuflow_model/weights.bin").write_bytes(bytes(5 << 20))
    put(
        pip,
        """
        import os, pathlib, sys
        here = pathlib.Path(__file__).parent
        def init():
            assert (here / "weights.bin").stat().st_size == 5 << 20
            try:
                (here / "cache.txt").write_text("of mine")
            except PermissionError:
                pass
            else:
                raise AssertionError
            (pathlib.Path.home() / "cache.txt").write_text("of mine")
            assert os.environ["MODEL_LOCATION"] == str(here)
            assert not [path for path in here.rglob("*.pyc")]
            return "matrix"
        """,
    )
    archive = zip_folder(pip.model, pip.folder / "model.zip")
    digests = set()
    for option in ("--check", "--no-check"):
        words_ = words(pip, f"oci:{pip.folder / option[2:]}", option)
        ran = pip.packager(*[str(archive) if word == str(pip.model) else word for word in words_])
        assert ran.code == 0, ran.err
        digests.add(ran.out.rpartition("@")[2])
    assert len(digests) == 1
    assert not (pip.model / "odahuflow_model/cache.txt").exists()


def test_secrets_are_out_of_reach_and_out_of_the_log(pip: PackagingHarness, password_registry: Registry) -> None:
    put(
        pip,
        f"""
        import os, pathlib
        def init():
            work = pathlib.Path(__file__).parents[4]
            print("it is the", {PASSWORD!r}, "that I know")
            logins = [path.name for path in work.rglob("config.json")]
            secret = [name for name, value in os.environ.items() if "hidden-word" in value]
            raise RuntimeError(f"{{work.name[:9]}} logins: {{logins}}, secrets: {{secret}}")
        """,
    )
    pip.put_manifest(password_registry)
    pip.environ["PACKAGER_PIP_EXTRA_INDEX_URLS"] = "https://me:hidden-word@packages.invalid/simple"
    pip.environ["HTTPS_PROXY"] = "http://me:hidden-word@127.0.0.1:9"
    pip.environ["NO_PROXY"] = "*"
    pip.environ["MY_OWN"] = "hidden-word"
    pip.environ["PACKAGER_SERVER"] = "gunicorn"  # needs no index
    ran = pip.run()
    assert ran.code == CANT_SERVE, ran.err
    assert "RuntimeError: packager- logins: [], secrets: []" in ran.err
    assert "it is the ***** that I know" in ran.err
    assert PASSWORD not in ran.err + pip.termination_log.read_text()


def test_a_module_that_the_base_may_have_is_no_failure_unless_asked_for(pip: PackagingHarness) -> None:
    put(pip, "import module_of_the_base\n")
    ran = package(pip, f"oci:{pip.folder / 'image'}")
    assert ran.code == 0, ran.err
    assert (
        "not checked: its requirements lack the module 'module_of_the_base', which the base image may have" in ran.err
    )
    ran = package(pip, f"oci:{pip.folder / 'image'}", "--check")
    assert ran.code == CANT_SERVE
    assert "the model can't be checked here: " in ran.err


@pytest.mark.needs("root")
def test_our_environment_is_kept_from_processes_of_our_user() -> None:
    """By a child that is nobody: root may read everything."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # a change of user has taken that away
            words_ = ["/bin/cat", f"/proc/{os.getpid()}/environ"]
            before = run_command(words_, env={})
            with unreadable():
                meanwhile = run_command(words_, env={})
            after = run_command(words_, env={})
            code = 0 if [before.returncode, meanwhile.returncode, after.returncode] == [0, 1, 0] else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
