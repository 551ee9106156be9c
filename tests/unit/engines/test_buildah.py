"""plan -> Buildah's arguments, with a runner that starts nothing."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args

import pytest

from packager.engines import Engine
from packager.engines.buildah import BuildahEngine
from packager.engines.buildah_commands import access_words, build_args, pull_words
from packager.engines.host import Isolation, Machine, choose_isolation, scrubbed
from packager.engines.layer_cache import PREFIX as CACHE_PREFIX
from packager.engines.layer_cache import UseLock, cache_name, stale_names
from packager.engines.session_record import recorded
from packager.errors import (
    BuildError,
    BuildStepError,
    DiskFullError,
    ImageNotFoundError,
    ModelCheckError,
    PackagerError,
    RegistryError,
)
from packager.image.plan import BaseImage, ImageConfig, ImagePlan, RunStep
from packager.models.reference import Destination, Reference
from packager.registry.access import RegistryAccess
from packager.registry.credentials import Credential
from packager.settings import Settings
from packager.system.process import Completed, OutOfBoundsError
from tests.unit.memory_registry import keychain_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DIGEST = "sha256:" + "a" * 64
IMAGE = "b" * 64
ACCESS = RegistryAccess(insecure_hosts=frozenset({"plain.io:5000", "127.0.0.1:5000"}))
PLAN = ImagePlan(
    base=BaseImage(reference=Reference.parse("r.io/base:1"), digest=DIGEST),
    steps=(),
    config=ImageConfig(),
    timestamp=datetime(2024, 1, 1, tzinfo=timezone.utc),
)


@dataclass
class FakeBuildah:
    """Answers as Buildah does, writes the files it is asked for, and fails at the commands it is told to."""

    architecture: str = "amd64"
    fails: dict[str, tuple[int, str]] = field(default_factory=dict)
    writes: bool = True
    storage: str = ""
    containers: dict[str, str] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    envs: list[Mapping[str, str]] = field(default_factory=list)
    work_dir: Path | None = None
    with_logins: list[str] = field(default_factory=list)

    def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        capture: bool = False,
    ) -> Completed:
        assert on_line is not None
        assert cwd is None or cwd.is_dir()
        program, flag, mark, command, *words = argv
        assert (program, flag, Path(mark).name) == ("buildah", "--default-mounts-file", "mounts.conf")
        if command != "info":
            self.commands.append([command, *words])
        self.envs.append(env)
        if self.work_dir is not None and list(self.work_dir.rglob("config.json")):
            self.with_logins.append(command)
        for option, content in (("--iidfile", f"sha256:{IMAGE}"), ("--digestfile", f"{DIGEST}\n")):
            if option in words and self.writes:
                Path(words[words.index(option) + 1]).write_text(content)
        code, output = self.fails.get(command, (0, ""))
        answers = {
            "pull": f"{IMAGE}\n",
            "inspect": self.inspected(),
            "images": "null\n",
            "containers": json.dumps([{"id": name} for name in self.containers] or None),
            "info": json.dumps({"store": {"GraphRoot": self.storage}}),
        }
        if words[:2] == ["--type", "container"]:
            answers["inspect"] = json.dumps({"DefaultMountsFilePath": self.containers[words[2]]})
        if command == "rm" and code == 0:
            self.containers.pop(words[0], None)
        stdout = answers.get(command, "") if capture and code == 0 else ""
        return Completed(argv=tuple(argv), returncode=code, output=output, stdout=stdout)

    def inspected(self) -> str:
        oci = {"architecture": self.architecture, "config": {"Env": ["PATH=/usr/bin", "A=b=c"], "User": "app"}}
        return json.dumps({"FromImageID": IMAGE, "FromImageDigest": DIGEST, "OCIv1": oci})

    def names(self) -> list[str]:
        return [command[0] for command in self.commands]


def engine(run: FakeBuildah, tmp_path: Path, **settings: Any) -> BuildahEngine:
    made = Settings(work_dir=tmp_path, cache_dir=tmp_path / "cache", **settings)
    return BuildahEngine(made, run, {"PATH": "/usr/bin", "A_SECRET": "s3cret"})


def test_it_is_an_engine(tmp_path: Path) -> None:
    made: Engine = engine(FakeBuildah(), tmp_path)
    assert made.name == "buildah"


def test_build_args_for_a_plan() -> None:
    assert build_args(PLAN, "chroot") == [
        "build", "--isolation", "chroot", "--layers", "--force-rm", "--pull=never", "--format", "oci",
        "--timestamp", "1704067200", "--identity-label=false",
        "--annotation", "org.opencontainers.image.base.name=r.io/base:1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "policy", "tls"),
    [
        ("r.io/base:1", "always", "true"),
        (f"r.io/base@{DIGEST}", "missing", "true"),
        ("plain.io:5000/base:1", "always", "false"),
        ("127.0.0.1:5000/base:1", "always", "false"),
    ],
)
def test_pull_words(name: str, policy: str, tls: str) -> None:
    assert pull_words(Reference.parse(name), ACCESS, "arm64", Path("/private/config.json")) == [
        "pull", "--policy", policy, "--platform", "linux/arm64",
        "--authfile", "/private/config.json", f"--tls-verify={tls}",
    ]  # fmt: skip


def test_a_push(tmp_path: Path) -> None:
    run = FakeBuildah()
    to = Destination(reference=Reference.parse("r.io/wine:1"))
    built = engine(run, tmp_path).build(PLAN, tmp_path / "context", to, ACCESS)
    assert built.digest == DIGEST
    assert run.names() == ["build", "tag", "push", "images"]
    build, _, push, _ = run.commands
    assert build[:-3] == build_args(PLAN, "chroot")
    assert build[-1] == str(tmp_path / "context")
    logins = Path(push[2])
    assert push[:4] == ["push", *access_words(to.reference, ACCESS, logins)]
    assert logins.name == "config.json"
    assert push[-2:] == [IMAGE, "docker://r.io/wine:1"]
    assert all("A_SECRET" not in env for env in run.envs)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_logins_are_on_the_disk_only_while_buildah_pulls_and_pushes(tmp_path: Path) -> None:
    access = replace(ACCESS, keychain=keychain_of(Credential(host="r.io", username="ann", password="s3cret")))
    run = FakeBuildah(work_dir=tmp_path)
    engine(run, tmp_path).inspect_base(Reference.parse("r.io/base:1"), access)
    engine(run, tmp_path, buildah_isolation="chroot").build(
        PLAN, tmp_path, Destination(reference=Reference.parse("r.io/wine:1")), access
    )
    assert run.with_logins == ["pull", "push"]


def test_a_failed_push_gives_no_digest_even_when_there_is_a_file(tmp_path: Path) -> None:
    run = FakeBuildah(fails={"push": (125, "Error: pushing: requested access to the resource is denied")})
    with pytest.raises(RegistryError):
        engine(run, tmp_path).build(PLAN, tmp_path, Destination(reference=Reference.parse("r.io/wine:1")), ACCESS)
    assert run.names() == ["build", "tag", "push", "containers"]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_push_that_may_pass_is_taken_over_by_ourselves(tmp_path: Path) -> None:
    run = FakeBuildah(fails={"push": (125, "Error: pushing: received unexpected HTTP status: 500 x")})
    with pytest.raises(PackagerError, match="push of oci:layout:1 failed"):  # the fake fails to write a layout as well
        engine(run, tmp_path).build(PLAN, tmp_path, Destination(reference=Reference.parse("r.io/wine:1")), ACCESS)
    assert run.names() == ["build", "tag", "push", "push", "containers"]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


CLOSED_PIPE = (
    'Error: committing container for step {0}: copying layers and metadata for container "f": initializing source '
    'containers-storage:base-working-container: storing layer "06f0" to file: io: read/write on closed pipe'
)


@pytest.mark.parametrize(
    ("free", "size", "expected", "named"),
    [
        (1_000_000, 1, DiskFullError, "no space left in"),
        (40_000_000, 50_000_000, DiskFullError, "no space left in"),  # what Buildah removed made room again
        (60_000_000, 50_000_000, BuildError, "closed pipe"),
    ],
)
def test_a_disk_that_was_full_when_a_layer_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, size: int, expected: type[PackagerError], named: str
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    with (context / "env").open("wb") as file:
        file.truncate(size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    run = FakeBuildah(fails={"build": (125, CLOSED_PIPE)})
    with pytest.raises(PackagerError, match=named) as caught:
        engine(run, tmp_path).build(PLAN, context, Destination(reference=Reference.parse("r.io/wine:1")), ACCESS)
    assert type(caught.value) is expected
    assert (str(tmp_path) in caught.value.message) == (expected is DiskFullError)


def test_a_broken_layout_is_told_before_the_build(tmp_path: Path) -> None:
    run, out = FakeBuildah(), tmp_path / "out"
    out.mkdir()
    (out / "oci-layout").write_text("{}")
    (out / "index.json").write_text("{")
    to = Destination(reference=Reference.parse("r.io/wine:1"), transport="oci", path=out)
    with pytest.raises(BuildError, match=r"index\.json"):
        engine(run, tmp_path).build(PLAN, tmp_path, to, ACCESS)
    assert run.commands == []


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder


def kill_session(storage: Path, mark: str) -> None:
    """Leave the record of a session as one that is killed does: there, and locked by nobody."""
    with recorded(storage, mark):
        (file,) = [path for path in (storage / "packager-sessions").iterdir() if path.read_text() == mark]
        content = file.read_bytes()
    file.write_bytes(content)


def test_containers_of_a_killed_session_are_removed(tmp_path: Path, storage: Path) -> None:
    kill_session(storage, "/killed/mounts.conf")
    containers = {"1": "/killed/mounts.conf", "2": "/living/mounts.conf", "3": "/another/mounts.conf"}
    run = FakeBuildah(storage=str(storage), containers=containers, fails={"mount": (1, "")})
    with recorded(storage, "/living/mounts.conf"):
        engine(run, tmp_path).inspect_base(Reference.parse("localhost/base:1"), ACCESS)
        assert set(run.containers) == {"2", "3"}
    assert list((storage / "packager-sessions").iterdir()) == []


def test_containers_of_a_killed_session_that_can_not_be_removed_are_tried_again(tmp_path: Path, storage: Path) -> None:
    kill_session(storage, "/killed/mounts.conf")
    run = FakeBuildah(storage=str(storage), containers={"1": "/killed/mounts.conf"}, fails={"rm": (1, "")})
    made, to = engine(run, tmp_path), Destination(reference=Reference.parse("r.io/wine:1"))
    made.build(PLAN, tmp_path, to, ACCESS)
    assert len(list((storage / "packager-sessions").iterdir())) == 1
    run.fails.clear()
    made.build(PLAN, tmp_path, to, ACCESS)
    assert (run.containers, list((storage / "packager-sessions").iterdir())) == ({}, [])


def test_builds_with_other_caches_keep_the_images_of_a_shared_storage(tmp_path: Path, storage: Path) -> None:
    run, to = FakeBuildah(storage=str(storage)), Destination(reference=Reference.parse("r.io/wine:1"))
    names = []

    def build_another_meanwhile(argv: Sequence[str], **options: Any) -> Completed:
        if "push" in argv:
            other = FakeBuildah(storage=str(storage))
            made = Settings(work_dir=tmp_path, cache_dir=tmp_path / "another")
            BuildahEngine(made, other, {}).build(PLAN, tmp_path, to, ACCESS)
            names.append(other.names())
        return run(argv, **options)

    made = Settings(work_dir=tmp_path, cache_dir=tmp_path / "cache")
    BuildahEngine(made, build_another_meanwhile, {}).build(PLAN, tmp_path, to, ACCESS)
    assert names == [["build", "tag", "push"]]
    assert run.names() == ["build", "tag", "push", "images"]


def test_a_failed_build_is_not_pushed(tmp_path: Path) -> None:
    run = FakeBuildah(fails={"build": (42, 'Error: building at STEP "RUN x": exit status 42')})
    with pytest.raises(BuildStepError):
        engine(run, tmp_path).build(PLAN, tmp_path, Destination(reference=Reference.parse("r.io/wine:1")), ACCESS)
    assert run.names() == ["build", "containers"]


@dataclass
class Checking(FakeBuildah):
    """A Buildah that runs the model's check in a container, with an end of the test's choice."""

    end: Completed | Exception = field(default_factory=lambda: Completed(argv=(), returncode=0, output=""))

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        seconds = options.pop("seconds", None)
        done = super().__call__(argv, **options)
        if argv[3] != "run":
            return done
        assert seconds == 300
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


RUNS = replace(
    PLAN,
    steps=(RunStep(name="conda", argv=("conda",)),),
    config=ImageConfig(entrypoint=("/envs/x/bin/python", "/opt/odahu/runtime", "rest")),
)


def checked(code: int, stdout: str = "") -> Completed:
    return Completed(argv=(), returncode=code, output="its traceback", stdout=stdout)


def test_a_model_is_checked_in_an_image_that_ran_commands(tmp_path: Path) -> None:
    run = Checking(end=checked(0, '{"status": "ok", "seconds": {}}'))
    to = Destination(reference=Reference.parse("r.io/wine:1"))
    engine(run, tmp_path, buildah_isolation="chroot").build(RUNS, tmp_path, to, ACCESS)
    assert run.names() == ["build", "from", "run", "rm", "tag", "push", "images"]
    container = run.commands[1][3]
    assert run.commands[2] == [
        "run", "--isolation", "chroot", "--user", "10001:0", container, "--",
        "/envs/x/bin/python", "/opt/odahu/runtime", "cli", "self-check", "--format", "json", "--for", "rest",
    ]  # fmt: skip
    run = Checking()
    BuildahEngine(Settings(work_dir=tmp_path, cache_dir=tmp_path / "cache"), run, {}, checks_model=False).build(
        RUNS, tmp_path, to, ACCESS
    )
    assert run.names() == ["build", "tag", "push", "images"]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (checked(4, '{"status": "failed", "error": "No module named \'torch\'"}'), "No module named 'torch'"),
        (checked(0), "with the exit code 0"),
        (checked(137), "ended by SIGKILL"),
        (OutOfBoundsError("it had not ended after 300 s"), "it had not ended after 300 s of loading"),
    ],
)
def test_a_model_that_can_not_serve_in_its_image_is_not_pushed(
    tmp_path: Path, end: Completed | Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = Checking(end=end)
    with pytest.raises(ModelCheckError, match=said):
        engine(run, tmp_path).build(RUNS, tmp_path, Destination(reference=Reference.parse("r.io/wine:1")), ACCESS)
    assert run.names() == ["build", "from", "run", "rm", "containers"]
    assert isinstance(end, Exception) or "its traceback" in caplog.text


def test_a_digest_file_that_is_none(tmp_path: Path) -> None:
    class Odd(FakeBuildah):
        def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
            done = super().__call__(argv, **options)
            if "--digestfile" in argv:
                Path(argv[list(argv).index("--digestfile") + 1]).write_text("\n")
            return done

    to = Destination(reference=Reference.parse("r.io/wine:1"))
    with pytest.raises(BuildError, match="wrote no digest"):
        engine(Odd(), tmp_path).build(PLAN, tmp_path, to, ACCESS)


def test_a_local_base_is_never_pulled(tmp_path: Path) -> None:
    run = FakeBuildah(fails={"mount": (1, "can't")})
    base = engine(run, tmp_path).inspect_base(Reference.parse("localhost/base:1"), ACCESS)
    assert base.digest == DIGEST
    assert (base.glibc, base.python) == (None, None)
    assert (base.env, base.user) == ((("PATH", "/usr/bin"), ("A", "b=c")), "app")
    assert "pull" not in run.names()
    assert run.names()[-1] == "rm"


def test_a_local_base_that_is_missing(tmp_path: Path) -> None:
    run = FakeBuildah(fails={"inspect": (125, "Error: importing settings: localhost/base:1: image not known")})
    with pytest.raises(ImageNotFoundError, match="local storage"):
        engine(run, tmp_path).inspect_base(Reference.parse("localhost/base:1"), ACCESS)


def test_a_digest_that_was_asked_for_stays(tmp_path: Path) -> None:
    asked = "sha256:" + "c" * 64  # an index; the storage tells the digest of the platform's manifest
    run = FakeBuildah(fails={"mount": (1, "")})
    assert engine(run, tmp_path).inspect_base(Reference.parse(f"r.io/base@{asked}"), ACCESS).digest == asked
    assert run.commands[0][-1] == f"r.io/base@{asked}"


def test_another_platform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is for arm64"):
        engine(FakeBuildah(architecture="arm64"), tmp_path).inspect_base(Reference.parse("r.io/base:1"), ACCESS)


def test_an_unprivileged_user_looks_from_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    run = FakeBuildah(fails={"unshare": (1, "no user namespace")})
    assert engine(run, tmp_path).inspect_base(Reference.parse("r.io/base:1"), ACCESS).glibc is None
    unshare = next(command for command in run.commands if command[0] == "unshare")
    assert unshare[1:3] == ["--mount", f"ROOT={run.commands[2][3]}"]
    assert unshare[-1] == "/usr/bin"


ROOT = Machine(is_root=True, unified_cgroups=True, in_container=False, has_runtime=True)


@pytest.mark.parametrize(
    ("asked", "change", "environ", "has_run_steps", "expected"),
    [
        ("auto", {}, {}, True, "oci"),
        ("auto", {"is_root": False}, {}, True, "rootless"),
        ("auto", {"unified_cgroups": False}, {}, True, "chroot"),
        ("auto", {"in_container": True}, {}, True, "chroot"),
        ("auto", {"has_runtime": False}, {}, True, "chroot"),
        ("auto", {"is_root": False, "in_container": True}, {}, True, "chroot"),
        ("auto", {}, {}, False, "chroot"),
        ("auto", {}, {"BUILDAH_ISOLATION": "rootless"}, False, "rootless"),
        ("oci", {"has_runtime": False}, {"BUILDAH_ISOLATION": "chroot"}, False, "oci"),
    ],
)
def test_isolation(
    asked: Isolation, change: dict[str, bool], environ: dict[str, str], *, has_run_steps: bool, expected: str
) -> None:
    machine = Machine(**{**vars(ROOT), **change})
    chosen = choose_isolation(asked, machine, environ=environ, has_run_steps=has_run_steps)
    assert chosen == expected
    assert chosen in get_args(Isolation)


def test_the_environment_holds_no_secrets() -> None:
    environ = {
        "PATH": "/bin", "HOME": "/root", "https_proxy": "http://p", "NO_PROXY": "x", "CONTAINERS_STORAGE_CONF": "/s",
        "STORAGE_DRIVER": "vfs", "AWS_SECRET_ACCESS_KEY": "s", "PACKAGER_PIP_INDEX_URL": "s", "DOCKER_AUTH_CONFIG": "s",
        "REGISTRY_AUTH_FILE": "s", "TMPDIR": "/other",
    }  # fmt: skip
    assert scrubbed(environ, temporary=Path("/private")) == {
        "PATH": "/bin", "HOME": "/root", "https_proxy": "http://p", "NO_PROXY": "x", "CONTAINERS_STORAGE_CONF": "/s",
        "STORAGE_DRIVER": "vfs", "TMPDIR": "/private",
    }  # fmt: skip


def test_the_newest_image_of_a_repository_is_kept() -> None:
    wine = [cache_name("r.io/wine", moment) for moment in (1, 3, 2)]
    beer = cache_name("r.io/beer", 1)
    assert stale_names([*wine, beer, "localhost/base:1", "r.io/wine:1"]) == sorted([wine[0], wine[2]])


def test_the_newest_ten_repositories_are_kept() -> None:
    names = [cache_name(f"r.io/{moment}", moment) for moment in range(12)]
    assert set(stale_names(names)) == set(names[:2])
    assert all(Reference.parse(name).host == "localhost" for name in names)
    assert all(name.startswith(CACHE_PREFIX) for name in names)


def test_nothing_is_removed_while_a_build_runs(tmp_path: Path) -> None:
    lock = UseLock(tmp_path / "cache")
    with lock.using(), lock.using(), UseLock(tmp_path / "cache").removing() as alone:
        assert not alone
    with lock.removing() as alone:
        assert alone


def test_without_a_place_for_the_lock_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lock = UseLock(tmp_path / "file" / "cache")
    with lock.using(), lock.removing() as alone:
        assert not alone
