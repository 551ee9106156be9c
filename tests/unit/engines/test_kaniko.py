"""plan -> Kaniko's arguments, with a runner that starts nothing: on a machine, Kaniko would replace its root."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from packager.engines import Engine, cache_repository
from packager.engines.kaniko import KanikoEngine, check_destinations, own_paths, read_mounts
from packager.engines.kaniko_command import KanikoBuild, build_args, read_line, scrubbed
from packager.errors import BuildError, BuildStepError, ImageNotFoundError, RegistryAuthError, UsageError
from packager.image.plan import BaseImage, Content, ImageConfig, ImagePlan, Layer
from packager.models.reference import Destination, Reference
from packager.registry.access import RegistryAccess
from packager.registry.credentials import Credential
from packager.settings import Settings
from packager.system.process import Completed
from tests.unit.memory_registry import keychain_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DIGEST = "sha256:" + "a" * 64
ACCESS = RegistryAccess(
    insecure_hosts=frozenset({"plain.io:5000", "127.0.0.1:5000", "localhost:5001"}),
)
PLAN = ImagePlan(
    base=BaseImage(reference=Reference.parse("r.io/base:1"), digest=DIGEST), steps=(), config=ImageConfig()
)
TO = Destination(reference=Reference.parse("r.io/models/wine:1"))


@dataclass
class FakeKaniko:
    """Ends as it's told to; writes the digest file before that, as Kaniko does when a push fails."""

    returncode: int = 0
    output: str = ""
    digest: str | None = DIGEST
    commands: list[list[str]] = field(default_factory=list)
    envs: list[Mapping[str, str]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

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
        assert cwd is None
        assert not capture
        self.commands.append(list(argv))
        self.envs.append(env)
        self.logins.append(Path(env["DOCKER_CONFIG"], "config.json").read_text())
        if self.digest is not None:
            Path(argv[list(argv).index("--digest-file") + 1]).write_text(self.digest)
        for line in self.output.splitlines():
            on_line(line)
        return Completed(argv=tuple(argv), returncode=self.returncode, output=self.output)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "context"
    folder.mkdir(parents=True)
    return folder


def engine(run: FakeKaniko, tmp_path: Path, *, in_job_image: bool = True, **settings: Any) -> KanikoEngine:
    mark = tmp_path / "mark"
    if in_job_image:
        mark.touch()
    made = Settings(cache_dir=tmp_path / "cache", **settings)
    return KanikoEngine(made, run, {"PATH": "/usr/bin", "A_SECRET": "s3cret"}, mark=mark)


def kaniko_build(base: str = "r.io/base:1", to: str = "r.io/models/wine:1") -> KanikoBuild:
    return KanikoBuild(
        base=Reference.parse(base),
        context=Path("/job/context"),
        destination=Reference.parse(to),
        digest_file=Path("/job/digest"),
    )


def words(*, base: str = "r.io/base:1", to: str = "r.io/models/wine:1", **settings: Any) -> list[str]:
    return build_args(kaniko_build(base, to), Settings(cache_dir=Path("/cache"), **settings), ACCESS)


def values(argv: list[str], option: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == option]


def test_it_is_an_engine(tmp_path: Path) -> None:
    made: Engine = engine(FakeKaniko(), tmp_path)
    assert made.name == "kaniko"


def test_build_args_for_a_plan() -> None:
    assert words() == [
        "--context", "dir:///job/context", "--dockerfile", "/job/context/Dockerfile",
        "--destination", "r.io/models/wine:1", "--digest-file", "/job/digest", "--custom-platform", "linux/amd64",
        "--cache=true", "--cache-repo", "r.io/models/wine/cache", "--cache-ttl", "336h",
        "--cache-copy-layers=true", "--cache-run-layers=true", "--compressed-caching=false",
        "--snapshot-mode", "full", "--skip-unused-stages=true", "--cleanup",
        "--ignore-path", "/job", "--ignore-path", "/cache",
        "--push-retry", "3", "--image-fs-extract-retry", "3", "--image-download-retry", "3", "--log-format", "json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "to", "cache", "plain"),
    [
        ("r.io/base:1", "r.io/wine:1", None, []),
        ("127.0.0.1:5000/base:1", "r.io/wine:1", None, ["127.0.0.1:5000"]),
        ("127.0.0.1:5000/base:1", "127.0.0.1:5000/wine:1", None, ["127.0.0.1:5000"]),
        ("plain.io:5000/base:1", "localhost:5001/wine:1", None, ["localhost:5001", "plain.io:5000"]),
        ("r.io/base:1", "r.io/wine:1", "plain.io:5000/cache", ["plain.io:5000"]),
        ("plain.io/base:1", "r.io/wine:1", None, []),
    ],
)
def test_plain_http_is_for_the_hosts_that_may(base: str, to: str, cache: str | None, plain: list[str]) -> None:
    argv = words(base=base, to=to, kaniko_cache_repo=cache)
    assert values(argv, "--insecure-registry") == plain
    assert not {"--insecure", "--insecure-pull", "--skip-tls-verify"} & set(argv)


def test_settings_change_the_words() -> None:
    assert "--force" not in words()
    assert words(kaniko_force=True)[0] == "--force"
    assert values(words(platform="linux-aarch64"), "--custom-platform") == ["linux/arm64"]
    assert values(words(kaniko_cache_ttl="6h"), "--cache-ttl") == ["6h"]
    without = words(kaniko_cache=False)
    assert "--cache=false" in without
    assert "--cache-repo" not in without


@pytest.mark.parametrize(
    ("to", "setting", "expected"),
    [
        ("r.io/team/wine:1", None, "r.io/team/wine/cache"),
        ("ann/wine:1", None, "docker.io/ann/wine-cache"),
        ("r.io/team/wine:1", "c.io/layers", "c.io/layers"),
    ],
)
def test_the_cache_repository(to: str, setting: str | None, expected: str) -> None:
    assert cache_repository(Reference.parse(to), setting).repository == expected


@pytest.mark.parametrize("name", ["https://r.io/cache", "r.io/Cache", "r.io/cache:1", f"r.io/cache@{DIGEST}"])
def test_a_cache_repository_that_is_none_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="PACKAGER_KANIKO_CACHE_REPO"):
        engine(FakeKaniko(), tmp_path, kaniko_cache_repo=name)


def test_the_environment_holds_no_secrets() -> None:
    environ = {
        "PATH": "/bin", "https_proxy": "http://p", "NO_PROXY": "x", "SSL_CERT_FILE": "/ca", "KANIKO_DIR": "/elsewhere",
        "AWS_SECRET_ACCESS_KEY": "s", "DOCKER_AUTH_CONFIG": "s", "DOCKER_CONFIG": "/other",
        "PACKAGER_PIP_INDEX_URL": "s",
    }  # fmt: skip
    environment = scrubbed(environ, Path("/job/auth/config.json"))
    made = {name: value for name, value in environment.items() if not name.startswith("FF_KANIKO_")}
    assert made == {
        "PATH": "/bin", "https_proxy": "http://p", "NO_PROXY": "x", "SSL_CERT_FILE": "/ca", "HOME": "/root",
        "USER": "root", "DOCKER_CONFIG": "/job/auth",
    }  # fmt: skip


def test_a_push(tmp_path: Path, context: Path) -> None:
    run = FakeKaniko()
    built = engine(run, tmp_path).build(PLAN, context, TO, ACCESS)
    assert (built.destination, built.digest) == (TO, DIGEST)
    (argv,) = run.commands
    assert Path(argv[0]).name == "executor"
    digest_file = Path(values(argv, "--digest-file")[0])
    assert digest_file.parent.parent == context.parent  # where Kaniko is told to leave everything alone
    assert values(argv, "--ignore-path")[0] == str(context.parent)
    assert "A_SECRET" not in run.envs[0]
    assert list(context.parent.iterdir()) == [context]


def test_the_logins_are_in_a_file_while_kaniko_runs(tmp_path: Path, context: Path) -> None:
    run = FakeKaniko()
    access = replace(ACCESS, keychain=keychain_of(Credential(host="r.io", username="<token>", identity_token="t0ken")))
    engine(run, tmp_path).build(PLAN, context, TO, access)
    assert "t0ken" in run.logins[0]
    assert list(context.parent.iterdir()) == [context]


def test_the_executor_that_is_set_is_run(tmp_path: Path, context: Path) -> None:
    run = FakeKaniko()
    engine(run, tmp_path, kaniko_executor=Path("/opt/kaniko")).build(PLAN, context, TO, ACCESS)
    assert run.commands[0][0] == "/opt/kaniko"


def test_outside_the_job_image_it_is_never_started(tmp_path: Path, context: Path) -> None:
    run = FakeKaniko()
    with pytest.raises(UsageError, match="replaces the root file system"):
        engine(run, tmp_path, in_job_image=False).build(PLAN, context, TO, ACCESS)
    assert run.commands == []
    engine(run, tmp_path, in_job_image=False, kaniko_force=True).build(PLAN, context, TO, ACCESS)
    assert run.commands[0][1] == "--force"


def test_a_failed_push_gives_no_digest_although_there_is_a_file(tmp_path: Path, context: Path) -> None:
    verdict = "error pushing image: failed to push to destination r.io/models/wine:1: HEAD https://r.io/v2/: "
    run = FakeKaniko(returncode=1, output=f"{verdict}unexpected status code 401 Unauthorized")
    with pytest.raises(RegistryAuthError):
        engine(run, tmp_path).build(PLAN, context, TO, ACCESS)
    assert list(context.parent.iterdir()) == [context]


@pytest.mark.parametrize("digest", [None, "", "sha256:abc", "latest\n"])
def test_a_digest_that_is_none(tmp_path: Path, context: Path, digest: str | None) -> None:
    with pytest.raises(BuildError, match="no digest"):
        engine(FakeKaniko(digest=digest), tmp_path).build(PLAN, context, TO, ACCESS)


@pytest.mark.parametrize("output", ["oci:/x", "oci-archive:/x.tar"])
def test_local_destinations_are_another_engines(tmp_path: Path, context: Path, output: str) -> None:
    run = FakeKaniko()
    with pytest.raises(BuildError, match="pushes to registries") as caught:
        engine(run, tmp_path).build(PLAN, context, Destination.parse(output, TO.reference), ACCESS)
    assert "--engine buildah" in caught.value.hint
    assert run.commands == []


def test_a_base_of_the_local_storage_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError, match="doesn't have") as caught:
        engine(FakeKaniko(), tmp_path).inspect_base(Reference.parse("localhost/base:1"), ACCESS)
    assert "--engine buildah" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ('{"level":"info","msg":"Pushed r.io/a@sha256:b","time":"x"}', logging.INFO, "Pushed r.io/a@sha256:b"),
        ('{"level":"warning","msg":"\\u001b[33mslow\\u001b[0m"}', logging.WARNING, "slow"),
        ('{"level":"fatal","msg":"no"}', logging.ERROR, "no"),
        ("\x1b[1mCollecting\x1b[0m numpy", logging.INFO, "Collecting numpy"),
        ('{"rows": 3}', logging.INFO, '{"rows": 3}'),
        ("[1, 2]", logging.INFO, "[1, 2]"),
    ],
)
def test_lines(line: str, level: int, message: str) -> None:
    assert read_line(line) == (level, message)


def test_a_failed_step_shows_its_own_lines_without_the_log_around_them(tmp_path: Path, context: Path) -> None:
    lines = [
        json.dumps({"level": "info", "msg": "Running: [/bin/sh -c exit 42]", "time": "x"}),
        "conda: no such thing",
        (
            "error building image: error building stage: failed to execute command: waiting for process to exit: "
            "exit status 42"
        ),
    ]
    run = FakeKaniko(returncode=42, output="\n".join(lines))
    with pytest.raises(BuildStepError, match="exit code 42") as caught:
        engine(run, tmp_path).build(PLAN, context, TO, ACCESS)
    assert "`RUN /bin/sh -c exit 42`" in caught.value.message
    assert "conda: no such thing" in caught.value.message
    assert '"level"' not in caught.value.message


MOUNTINFO = (
    "20 1 0:5 / / rw - overlay overlay rw\n"
    "21 20 0:6 / /proc rw - proc proc rw\n"
    r"22 20 0:7 / /mnt/two\040words rw - ext4 /dev/sda rw" + "\n"
)


def test_mount_points() -> None:
    assert read_mounts(MOUNTINFO) == [PurePosixPath("/proc"), PurePosixPath("/mnt/two words")]


@pytest.mark.parametrize(
    ("destination", "left_alone"),
    [
        ("/opt/conda/envs/wine", None),
        ("/kaniko/envs", "/kaniko"),
        ("/kaniko-like/envs", None),
        ("/var/run/x", "/var/run"),
        ("/mnt/two words/x", "/mnt/two words"),
        ("/cache/x", "/cache"),
        ("/job/x", "/job"),
    ],
)
def test_nothing_can_go_where_kaniko_leaves_everything_alone(destination: str, left_alone: str | None) -> None:
    layer = Layer(name="environment", contents=(Content(source=b"x", destination=PurePosixPath(destination)),))
    paths = [*own_paths(Path("/job/context"), Settings(cache_dir=Path("/cache"))), *read_mounts(MOUNTINFO)]
    plan = replace(PLAN, steps=(layer,))
    if left_alone is None:
        check_destinations(plan, paths)
        return
    with pytest.raises(BuildError, match=f"Kaniko leaves {left_alone} as it is"):
        check_destinations(plan, paths)
