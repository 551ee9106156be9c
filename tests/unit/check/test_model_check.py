from __future__ import annotations

import json
import logging
import platform
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from packager.check import confinement, model_check
from packager.check.model_check import USER_ID, ModelCheck, available_memory, choose_mode
from packager.check.sandbox import stage, watch_changes
from packager.environment.cache import unpack
from packager.environment.cache.local import LocalEnvironments
from packager.errors import ModelCheckError, RegistryUnreachableError, ToolMissingError
from packager.image.plan import StoredLayer
from packager.image.planner import Dependencies, PlanInputs, make_plan
from packager.logs.progress import SilentReporter
from packager.models.image import Descriptor
from packager.registry.access import RegistryAccess
from packager.settings import Settings
from packager.system.process import Completed, OutOfBoundsError
from tests.unit.builders import BASE_DIGEST, base, prepared, request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from packager.settings import CheckMode

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
SERVES = Completed(argv=(), returncode=0, output="", stdout='{"status": "ok", "sample": "predicted", "seconds": {}}\n')


@dataclass
class CheckHarness:
    """A workspace with an environment and a model, and a runner that answers what the test says."""

    folder: Path
    answer: Completed | Exception = SERVES
    python_runs: int | Exception = 0
    settings: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[list[str], dict[str, str]]] = field(default_factory=list)
    during: Callable[[], object] = lambda: None
    uid: int = USER_ID
    limit: int = 1 << 20  # bytes of the environments on this machine

    @property
    def environments(self) -> LocalEnvironments:
        return LocalEnvironments(folder=self.folder / "cache", max_bytes=self.limit)

    def __post_init__(self) -> None:
        (self.folder / "environment/bin").mkdir(parents=True)
        (self.folder / "artifact/wine").mkdir(parents=True)
        (self.folder / "artifact/wine/entrypoint.py").write_text("code")

    def run(self, argv: Sequence[str], *, env: Mapping[str, str], **more: Any) -> Completed:
        if argv[-2] == "-c":
            if isinstance(self.python_runs, Exception):
                raise self.python_runs
            return Completed(
                argv=tuple(argv), returncode=self.python_runs, output="GLIBC_2.99 not found", stdout=f"{self.uid}\n"
            )
        self.calls.append((list(argv), dict(env)))
        self.during()
        if isinstance(self.answer, Exception):
            more["on_line"]("its last words")
            raise self.answer
        return self.answer

    def check(self, ready: PlanInputs | None = None, mode: CheckMode = "auto") -> str:
        ready = ready or prepared(self.folder)
        platforms = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}
        values = {"platform": platforms[platform.machine()], **self.settings}
        outcome = ModelCheck(
            settings=Settings.model_validate(values),
            environ=self.environ,
            reporter=SilentReporter(),
            workspace=self.folder,
            access=RegistryAccess(),
            mode=mode,
            environments=self.environments,
            run=self.run,
        ).check(make_plan(request(), ready), ready)
        assert {path.name for path in self.folder.iterdir()} <= {"environment", "artifact", "cache"}
        return outcome


@pytest.fixture
def harness(tmp_path: Path) -> CheckHarness:
    return CheckHarness(tmp_path)


def pip(folder: Path, version: str = OWN) -> PlanInputs:
    dependencies = Dependencies(
        python="python3",
        python_version=version,
        root=folder / "environment",
        prefix=PurePosixPath("/opt/odahu/packages"),
        packages=PurePosixPath("/opt/odahu/packages"),
    )
    return prepared(folder, dependencies=dependencies)


def failed(error: str, **more: Any) -> Completed:
    report = json.dumps({"status": "failed", "error": error})
    return replace(Completed(argv=(), returncode=4, output="Traceback\nSomeError", stdout=f"{report}\n"), **more)


def test_the_environments_python_gets_what_the_image_will_have_and_no_secret(harness: CheckHarness) -> None:
    harness.environ = {
        "HTTPS_PROXY": "http://proxy:8080",
        "HTTP_PROXY": "http://me:word@proxy:8080",
        "PACKAGER_PIP_INDEX_URL": "https://word@index/",
        "AWS_SECRET_ACCESS_KEY": "word",
        "PATH": "/word",
    }
    image = base(
        env=(
            ("PATH", "/base/bin"),
            ("LD_PRELOAD", "/x.so"),
            ("PYTHONPATH", "/y"),
            ("PYTHONOPTIMIZE", "1"),
            ("MODEL_MODE", "fast"),
        )
    )
    ready = prepared(harness.folder, base=image)
    harness.check(replace(ready, dependencies=replace(ready.dependencies, variables=(("OMP_NUM_THREADS", "1"),))))
    [(argv, env)] = harness.calls
    assert argv[0] == f"{harness.folder}/environment/bin/python"
    assert argv[-16:] == [
        *("cli", "self-check", "--format", "json", "--for", "rest"),
        *("--host", "0.0.0.0", "--port", "5000", "--workers", "1", "--threads", "4", "--timeout", "60"),
    ]
    assert "word" not in str(env)
    model = env["MODEL_LOCATION"].removesuffix("/wine")
    scratch = f"{model.removesuffix('image/model')}tmp"
    assert model.startswith(f"{harness.folder}/check-")
    assert env == {
        "PYTHONOPTIMIZE": "1",
        "MODEL_MODE": "fast",
        "HTTPS_PROXY": "http://proxy:8080",
        "OMP_NUM_THREADS": "1",
        "ODAHU_MODEL_NAME": "wine",
        "ODAHU_MODEL_VERSION": "1.0",
        "MODEL_LOCATION": f"{model}/wine",
        "MODEL_ENTRYPOINT": "entrypoint",
        "PATH": f"{harness.folder}/environment/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/nonexistent",
        "TMPDIR": scratch,
    }


def test_pip_packages_run_on_a_python_without_packages_of_its_own(harness: CheckHarness) -> None:
    harness.check(pip(harness.folder))
    [(argv, env)] = harness.calls
    assert argv[:4] == [sys.executable, "-B", "-I", "-S"]
    assert env["ODAHU_PACKAGES"] == f"{harness.folder}/environment"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (failed("init() of the model failed: ValueError: x"), "can't serve: init() of the model failed: ValueError: x"),
        (replace(SERVES, stdout=""), "it ended its process by itself, with the exit code 0"),
        (replace(SERVES, stdout="[]", returncode=7), "with the exit code 7"),
        (replace(SERVES, stdout="", returncode=-9), "its process was ended by SIGKILL"),
        (replace(SERVES, stdout="", returncode=-11), "its process was ended by SIGSEGV"),
        (OutOfBoundsError("it had not ended after 300 s"), "it had not ended after 300 s of loading"),
    ],
)
@pytest.mark.parametrize("mode", ["auto", "always"])
def test_what_can_not_serve(
    harness: CheckHarness, answer: Completed | Exception, said: str, mode: CheckMode, caplog: pytest.LogCaptureFixture
) -> None:
    harness.answer = answer
    with pytest.raises(ModelCheckError) as error:
        harness.check(mode=mode)
    assert said in error.value.message
    assert "--no-check" in error.value.hint
    if isinstance(answer, Exception):
        assert "its last words" in caplog.text


def test_the_models_own_traceback_is_in_the_log(harness: CheckHarness, caplog: pytest.LogCaptureFixture) -> None:
    harness.answer = failed("no", output=f'File "{harness.folder}/environment/lib/x.py", line 1')
    with pytest.raises(ModelCheckError):
        harness.check()
    assert 'File "/opt/conda/envs/wine/lib/x.py", line 1' in caplog.text


def stored(folder: Path, size: int = 1) -> PlanInputs:
    ready = prepared(folder)
    layer = StoredLayer(
        name="environment",
        descriptor=Descriptor(media_type="application/vnd.oci.image.layer.v1.tar", digest=BASE_DIGEST, size=size),
        diff_id=BASE_DIGEST,
        repository=ready.base.reference,
    )
    return replace(ready, dependencies=replace(ready.dependencies, root=None, stored=layer))


def of_the_base(folder: Path) -> PlanInputs:
    return prepared(folder, dependencies=Dependencies(python="/opt/conda/envs/x/bin/python", conda_file="x"))


@pytest.mark.parametrize(
    ("changes", "make", "said"),
    [
        ({}, of_the_base, "the base's own conda makes its environment"),
        ({"python_runs": 1}, prepared, "its Python doesn't run here: GLIBC_2.99 not found"),
        ({"python_runs": ToolMissingError("Exec format error")}, prepared, "doesn't run here: Exec format error"),
        ({}, lambda folder: pip(folder, "3.6"), "the base image's Python 3.6 is not on this machine"),
        ({"answer": failed("ImportError: libgomp.so.1: cannot open shared object file: No")}, prepared, "libgomp.so.1"),
        (
            {"answer": failed("ImportError: /x: version `GLIBC_2.38' not found")},
            prepared,
            "version `GLIBC_2.38' not found",
        ),
        ({"answer": failed("ModuleNotFoundError: No module named 'torch'")}, pip, "don't bring the module 'torch'"),
    ],
)
def test_what_can_not_be_told_is_the_outcome_or_an_error_where_asked_for(
    harness: CheckHarness,
    changes: dict[str, Any],
    make: Callable[[Path], PlanInputs],
    said: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    for name, value in changes.items():
        setattr(harness, name, value)
    outcome = harness.check(make(harness.folder))
    assert outcome.startswith("skipped: ")
    assert said in outcome
    assert f"the model is not checked: {outcome.removeprefix('skipped: ')}" in caplog.text
    with pytest.raises(ModelCheckError) as error:
        harness.check(make(harness.folder), mode="always")
    assert said in error.value.message
    assert "can't be checked here" in error.value.message


def test_a_missing_module_of_a_conda_environment_is_the_models_fault(harness: CheckHarness) -> None:
    harness.answer = failed("ModuleNotFoundError: No module named 'torch'")
    with pytest.raises(ModelCheckError, match="No module named 'torch'"):
        harness.check()


def test_another_platform(harness: CheckHarness, caplog: pytest.LogCaptureFixture) -> None:
    harness.settings = {"platform": "linux-aarch64" if platform.machine() == "x86_64" else "linux-64"}
    harness.check()
    assert "its image is for linux-" in caplog.text
    assert harness.calls == []


def test_nothing_is_run_where_nobody_wants_it(harness: CheckHarness) -> None:
    assert harness.check(mode="never") == "skipped: left out (check: never)"
    assert harness.check(stored(harness.folder), mode="never") == "skipped: left out (check: never)"
    assert harness.calls == []


@pytest.mark.parametrize("setting", ["auto", "always", "never"])
@pytest.mark.parametrize("argument", ["auto", "always", "never"])
def test_the_setting_comes_before_the_argument(setting: CheckMode, argument: CheckMode) -> None:
    if (setting, argument) == ("never", "always"):
        with pytest.raises(ModelCheckError, match="`check: always`, and PACKAGER_CHECK leaves it out"):
            choose_mode(setting, argument)
    else:
        assert choose_mode(setting, argument) == (argument if setting == "auto" else setting)


@dataclass
class Fetching:
    """Gives an environment in the place of the registry's, or the error that it answers."""

    fails: Exception | None = None
    times: int = 0

    def __call__(self, _layer: object, _prefix: object, _access: object, folder: Path) -> Path:
        self.times += 1
        if self.fails:
            raise self.fails
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/python").write_text("python")
        return folder


@pytest.fixture
def fetching(monkeypatch: pytest.MonkeyPatch) -> Fetching:
    made = Fetching()
    monkeypatch.setattr(unpack, "fetch_files", made)
    return made


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_a_known_environment_is_fetched_once_and_then_on_this_machine(
    harness: CheckHarness, fetching: Fetching, mode: CheckMode
) -> None:
    harness.answer = failed("No module named 'torch'")
    for _ in range(2):
        with pytest.raises(ModelCheckError, match="No module named 'torch'"):
            harness.check(stored(harness.folder), mode=mode)
    harness.answer = SERVES
    assert harness.check(stored(harness.folder), mode=mode) == "passed"
    assert fetching.times == 1
    assert {argv[0].startswith(str(harness.folder / "cache")) for argv, _ in harness.calls} == {True}


def test_a_known_environment_where_none_is_kept(harness: CheckHarness, fetching: Fetching) -> None:
    harness.limit = 0
    assert [harness.check(stored(harness.folder)) for _ in range(2)] == ["passed", "passed"]
    assert fetching.times == 2
    assert not (harness.folder / "cache").exists()


def test_a_large_environment_is_fetched_only_where_the_check_is_asked_for(
    harness: CheckHarness, fetching: Fetching
) -> None:
    harness.settings = {"check_fetch_max_bytes": 900_000_000}
    ready = stored(harness.folder, size=1_234_000_000)
    assert harness.check(ready) == (
        "skipped: its environment is kept in the registry and has 1,234 MB packed, more than "
        "PACKAGER_CHECK_FETCH_MAX_BYTES (900 MB)"
    )
    assert fetching.times == 0
    assert harness.check(ready, mode="always") == "passed"
    assert harness.check(ready) == "passed"  # it lies on this machine now
    assert fetching.times == 1


def test_an_environment_that_can_not_be_fetched(harness: CheckHarness, fetching: Fetching) -> None:
    fetching.fails = RegistryUnreachableError("the registry r.io can't be reached")
    outcome = harness.check(stored(harness.folder))
    assert outcome == "skipped: its environment can't be fetched: the registry r.io can't be reached"
    with pytest.raises(RegistryUnreachableError):
        harness.check(stored(harness.folder), mode="always")


def test_nothing_is_fetched_that_can_not_be_run(
    harness: CheckHarness, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    of_pip = replace(stored(harness.folder).dependencies, packages=PurePosixPath("/packages"), python_version="3.6")
    assert "Python 3.6 is not on this machine" in harness.check(replace(prepared(harness.folder), dependencies=of_pip))
    harness.settings = {"platform": "linux-aarch64" if platform.machine() == "x86_64" else "linux-64"}
    assert "its image is for linux-" in harness.check(stored(harness.folder))
    assert fetching.times == 0


def test_a_model_that_does_not_fit_into_memory(harness: CheckHarness, caplog: pytest.LogCaptureFixture) -> None:
    harness.check(prepared(harness.folder, sizes={"weights": 1 << 60}))
    assert "its files have 1,152,921,504,607 MB, and there are" in caplog.text
    assert harness.calls == []


def test_memory_is_what_the_container_may_take(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  9 kB\nMemAvailable:   2048 kB\n")
    assert available_memory(tmp_path) == 2 << 20
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert available_memory(tmp_path) == 2 << 20
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1048576\n")
    assert available_memory(tmp_path) == 1 << 20


def test_no_room_for_a_copy(
    harness: CheckHarness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_words: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_check, "stage", full)
    harness.check()
    assert "there is no room for its files" in caplog.text


def test_what_can_not_be_forbidden_is_in_the_log(
    harness: CheckHarness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(confinement, "_has_name", lambda _uid: True)
    harness.check()
    assert "the check" not in caplog.text
    monkeypatch.setattr(confinement, "_make_ruleset", lambda _folders: None)
    harness.uid = 0
    harness.check()
    assert (
        "the check can't stop the model from writing outside its own folders: this machine has no Landlock"
        in caplog.text
    )
    assert "the check runs the model as this machine's user" in caplog.text


def test_a_model_that_can_not_write_is_advised_where_it_can(harness: CheckHarness) -> None:
    harness.answer = failed(
        "init() of the model failed: PermissionError: [Errno 13] Permission denied: '/opt/odahu/model/x'"
    )
    with pytest.raises(ModelCheckError) as error:
        harness.check()
    assert "let the model write to the temporary folder" in error.value.hint


def test_nothing_can_be_added_to_a_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "folder/deep").mkdir(parents=True)
    before = {path: path.stat().st_mode for path in (tmp_path, *tmp_path.rglob("*"))}
    with watch_changes([tmp_path], read_only=[tmp_path]):
        assert all(path.stat().st_mode & 0o222 == 0 for path in before)
        (tmp_path / "folder/deep").chmod(0o755)
        (tmp_path / "folder/deep/file").write_text("x")
    assert {path: path.stat().st_mode for path in (tmp_path, *tmp_path.rglob("*"))} == before


def test_a_model_that_changes_its_files(harness: CheckHarness) -> None:
    harness.during = lambda: (harness.folder / "artifact/wine/entrypoint.py").write_text("eval")
    with pytest.raises(ModelCheckError, match=r"changes files of its image when it starts: wine/entrypoint\.py"):
        harness.check()


def test_what_is_new_goes_and_what_is_changed_is_told(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a").write_text("a")
    with watch_changes([tmp_path]):
        (tmp_path / "new/deep").mkdir(parents=True)
        (tmp_path / "new/deep/file").write_text("x")
        (tmp_path / "old/link").symlink_to("a")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "old"]
    with pytest.raises(ModelCheckError, match="old/a"), watch_changes([tmp_path]):
        (tmp_path / "old/a").unlink()
    with pytest.raises(ModelCheckError, match=r"starts: old$"), watch_changes([tmp_path]):
        (tmp_path / "old").chmod(0o700)
    with pytest.raises(ZeroDivisionError), watch_changes([tmp_path]):
        (tmp_path / "more").write_text("x")
        raise ZeroDivisionError
    assert not (tmp_path / "more").exists()


def test_a_copy_has_links_and_modes(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "tool").write_text("#!/bin/sh")
    (model / "tool").chmod(0o755)
    (model / "link").symlink_to("tool")
    for linked in (True, False):
        target = tmp_path / str(linked)
        stage(model, {}, target, linked=linked)
        assert (target / "link").readlink().name == "tool"
        assert (target / "tool").stat().st_mode & 0o777 == 0o555
        assert (target / "tool").samefile(model / "tool") == linked
