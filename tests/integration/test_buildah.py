"""The Buildah engine with the real Buildah and real registries."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from packager.engines.buildah import BuildahEngine
from packager.engines.buildah_storage import CACHE_IMAGE_PREFIX
from packager.errors import (
    BuildError,
    BuildStepError,
    DiskFullError,
    ImageNotFoundError,
    OutOfMemoryError,
    RegistryAuthError,
    RegistryError,
    RegistryUnreachableError,
)
from packager.image.plan import BaseImage, ImageConfig, ImagePlan, RunStep
from packager.models.reference import Destination, Reference
from packager.registry.access import RegistryAccess, Trust, find_insecure_hosts
from packager.registry.keychain import Keychain
from packager.settings import Settings
from packager.system.process import run_command
from tests.integration.conftest import container_storage
from tests.integration.oci import assert_loads_under_its_name
from tests.integration.proc import children_of
from tests.integration.registry import PASSWORD, free_port, serve_registry
from tests.integration.test_process import wait_for, with_argument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.engines import BuiltImage
    from packager.models.connection import Connection
    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "skopeo", "docker-registry", "htpasswd")

CREATED = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
as_root = pytest.mark.needs("root")


@dataclass
class BuildahHarness:
    """An engine with a context to build, and a look at what it leaves behind."""

    folder: Path
    environ: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def engine(self) -> BuildahEngine:
        folders = {"work_dir": self.folder / "work", "cache_dir": self.folder / "cache"}
        settings = Settings(**{**folders, "check": False, **self.settings})  # there is no model in these images
        return BuildahEngine(settings, partial(run_command, grace=5), self.environ, checks_model=False)

    @contextmanager
    def access(self, *hosts: str, push: Connection | None = None) -> Iterator[RegistryAccess]:
        trust = Trust(retry_seconds=1)
        insecure_hosts = find_insecure_hosts([Reference.parse(f"{host}/any") for host in hosts], trust)
        yield RegistryAccess(keychain=Keychain.open(push, None), trust=trust, insecure_hosts=insecure_hosts)

    def build(
        self, text: str, to: Destination, connection: Connection | None = None, *, base: str = "localhost/tiny-base:1"
    ) -> BuiltImage:
        context = self.folder / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(text)
        for name in ("env", "model"):
            if not (context / name).exists():
                (context / name).write_text(name)
        plan = ImagePlan(
            base=BaseImage(reference=Reference.parse(base)),
            steps=(RunStep(name="run", argv=("true",)),) if "RUN" in text else (),
            config=ImageConfig(),
            timestamp=CREATED,
        )
        with self.access(to.reference.host, push=connection) as access:
            return self.engine.build(plan, context, to, access)

    def buildah(self, *words: str) -> Any:
        done = subprocess.run(["buildah", *words, "--json"], env=self.environ, check=True, capture_output=True)
        return json.loads(done.stdout or "null") or []

    def kept(self) -> list[str]:
        names = [name for image in self.buildah("images") for name in image["names"] or []]
        return [name for name in names if name.startswith(CACHE_IMAGE_PREFIX)]


@pytest.fixture
def harness(tmp_path: Path, storage: dict[str, str], tiny_base: str) -> Iterator[BuildahHarness]:
    assert tiny_base
    (tmp_path / "work").mkdir()
    made = BuildahHarness(tmp_path, storage)
    yield made
    assert made.buildah("containers") == []
    assert list((tmp_path / "work").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "auth-"))] == []


def to_registry(registry: Registry, name: str) -> Destination:
    return Destination(reference=Reference.parse(f"{registry.host}/{name}"))


def test_an_image_is_pushed_and_its_digest_is_the_registrys(
    harness: BuildahHarness, password_registry: Registry
) -> None:
    text = 'FROM localhost/tiny-base:1\nCOPY env /env\nRUN ["sh", "-c", "echo x > /x"]\nCOPY model /model\nLABEL a=b\n'
    to = to_registry(password_registry, "team/wine:1")
    built = harness.build(text, to, password_registry.connection("team"))
    assert built.destination == to
    assert built.digest == password_registry.digest("team/wine", "1")
    manifest = password_registry.manifest("team/wine", "1")
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["annotations"]["org.opencontainers.image.base.name"] == "localhost/tiny-base:1"
    config = json.loads(password_registry.blob("team/wine", manifest["config"]["digest"]))
    assert config["created"] == "2024-01-02T03:04:05Z"
    assert config["config"]["Labels"] == {"a": "b"}
    assert len(manifest["layers"]) == 4


def test_the_next_build_reuses_layers_and_only_the_newest_image_is_kept(
    harness: BuildahHarness, registry: Registry
) -> None:
    text = "FROM localhost/tiny-base:1\nCOPY env /env\nCOPY model /model\nLABEL a=b\n"
    harness.build(text, to_registry(registry, "reuse/wine:1"))
    kept = set(harness.kept())
    count = len(harness.buildah("images", "--all"))
    (harness.folder / "context" / "model").write_text("another model")
    harness.build(text, to_registry(registry, "reuse/wine:2"))
    first, second = (registry.manifest("reuse/wine", tag)["layers"] for tag in ("1", "2"))
    assert first[:-1] == second[:-1]
    assert first[-1] != second[-1]
    assert len(harness.kept()) == len(kept)
    assert set(harness.kept()) != kept
    assert len(harness.buildah("images", "--all")) == count


def test_a_build_is_the_same_with_and_without_cached_layers(
    harness: BuildahHarness, registry: Registry, tmp_path: Path
) -> None:
    text = "FROM localhost/tiny-base:1\nCOPY env /env\nCOPY model /model\nLABEL c=d\n"
    one = harness.build(text, to_registry(registry, "same/wine:1"))
    archive = Destination(
        reference=to_registry(registry, "same/wine:2").reference, transport="oci-archive", path=tmp_path / "a.tar"
    )
    assert harness.build(text, archive).digest == one.digest
    for name in harness.kept():
        subprocess.run(["buildah", "rmi", name], env=harness.environ, check=True, capture_output=True)
    assert harness.build(text, to_registry(registry, "same/wine:3")).digest == one.digest


def test_a_wrong_password_leaves_nothing_under_the_tag(
    harness: BuildahHarness, password_registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(RegistryAuthError) as caught:
        harness.build(
            "FROM localhost/tiny-base:1\nCOPY env /env\n",
            to_registry(password_registry, "refused/wine:1"),
            password_registry.connection(password=PASSWORD + "!"),
        )
    assert password_registry.host in caught.value.message
    assert password_registry.digest("refused/wine", "1") is None
    assert PASSWORD not in caplog.text
    assert "$ buildah" in caplog.text


def test_a_registry_that_is_down(harness: BuildahHarness) -> None:
    to = Destination(reference=Reference.parse(f"127.0.0.1:{free_port()}/a/b:1"))
    with pytest.raises(RegistryUnreachableError, match="connection refused"):
        harness.build("FROM localhost/tiny-base:1\nCOPY env /env\n", to)


@as_root
def test_a_registry_without_space(harness: BuildahHarness, tmp_path: Path) -> None:
    (harness.folder / "context").mkdir(exist_ok=True)
    (harness.folder / "context" / "env").write_bytes(os.urandom(3_000_000))
    with small_disk(tmp_path / "disk", "2m") as disk, serve_registry(tmp_path / "full", storage=disk) as full:
        with pytest.raises(RegistryError, match="500") as caught:
            harness.build("FROM localhost/tiny-base:1\nCOPY env /env\n", to_registry(full, "a/b:1"))
        assert type(caught.value) is RegistryError
        assert "out of space" in caught.value.hint
        assert full.digest("a/b", "1") is None


@as_root
def test_a_full_disk_at_the_output(harness: BuildahHarness, tmp_path: Path) -> None:
    (harness.folder / "context").mkdir(exist_ok=True)
    (harness.folder / "context" / "env").write_bytes(os.urandom(3_000_000))
    with small_disk(tmp_path / "disk", "2m") as disk:
        to = Destination(reference=Reference.parse("r.io/a:1"), transport="oci-archive", path=disk / "image.tar")
        with pytest.raises(DiskFullError):
            harness.build("FROM localhost/tiny-base:1\nCOPY env /env\n", to)
        assert list(disk.iterdir()) == []


@as_root
def test_a_full_storage(harness: BuildahHarness, tmp_path: Path, registry: Registry) -> None:
    push(harness, registry, "full/base:1")
    (harness.folder / "context").mkdir(exist_ok=True)
    (harness.folder / "context" / "env").write_bytes(os.urandom(12_000_000))
    name = f"{registry.host}/full/base:1"
    with small_disk(tmp_path / "disk", "9m") as disk, container_storage(disk, driver="overlay") as environ:
        (disk / "work").mkdir()
        small = BuildahHarness(disk, environ | {"TMPDIR": str(tmp_path)})
        with small.access(registry.host) as access:
            small.engine.inspect_base(Reference.parse(name), access)
        (disk / "context").symlink_to(harness.folder / "context")
        with pytest.raises(DiskFullError):
            small.build(f"FROM {name}\nCOPY env /env\n", to_registry(registry, "full/out:1"), base=name)
        assert small.buildah("containers") == []


@as_root
@pytest.mark.parametrize(("disk_size", "layer_size"), [("6m", 12_000_000), ("30m", 40_000_000)])
def test_a_full_work_folder(
    harness: BuildahHarness, tmp_path: Path, registry: Registry, disk_size: str, layer_size: int
) -> None:
    (harness.folder / "context").mkdir(exist_ok=True)
    (harness.folder / "context" / "env").write_bytes(os.urandom(layer_size))
    with small_disk(tmp_path / "disk", disk_size) as disk:
        (disk / "work").mkdir()
        (disk / "context").symlink_to(harness.folder / "context")
        small = BuildahHarness(disk, harness.environ)
        with pytest.raises(DiskFullError) as caught:
            small.build("FROM localhost/tiny-base:1\nCOPY env /env\n", to_registry(registry, "full/work:1"))
        assert str(disk / "work") in caught.value.message
        assert list((disk / "work").iterdir()) == []


@pytest.mark.parametrize("step", ["echo reason; exit 42", "echo reason >&2; exit 42"])
def test_a_run_step_that_fails_is_named_with_its_code(harness: BuildahHarness, registry: Registry, step: str) -> None:
    with pytest.raises(BuildStepError) as caught:
        harness.build(f'FROM localhost/tiny-base:1\nRUN ["sh", "-c", "{step}"]\n', to_registry(registry, "step/a:1"))
    assert "exit code 42" in caught.value.message
    assert "\nreason\n" in caught.value.message
    assert registry.digest("step/a", "1") is None


def test_a_run_step_that_is_killed(harness: BuildahHarness, registry: Registry) -> None:
    with pytest.raises(OutOfMemoryError):
        harness.build('FROM localhost/tiny-base:1\nRUN ["sh", "-c", "kill -9 $$"]\n', to_registry(registry, "step/a:1"))


def test_a_base_that_is_nowhere(harness: BuildahHarness, registry: Registry, password_registry: Registry) -> None:
    with harness.access(registry.host, password_registry.host) as access:
        for name in ("localhost/nowhere:1", f"{registry.host}/no/where:1", f"{registry.host}/a@sha256:{'0' * 64}"):
            with pytest.raises(ImageNotFoundError, match="has no image"):
                harness.engine.inspect_base(Reference.parse(name), access)
        with pytest.raises(RegistryAuthError):
            harness.engine.inspect_base(Reference.parse(f"{password_registry.host}/a/b:1"), access)
    with pytest.raises(ImageNotFoundError):
        harness.build("FROM localhost/nowhere:1\n", to_registry(registry, "a:1"), base="localhost/nowhere:1")


def push(
    harness: BuildahHarness, registry: Registry, name: str, text: str = "FROM localhost/tiny-base:1\nLABEL x=y\n"
) -> str:
    return harness.build(text, to_registry(registry, name)).digest


def test_a_local_base_is_looked_into(harness: BuildahHarness) -> None:
    with harness.access() as access:
        base = harness.engine.inspect_base(Reference.parse("localhost/tiny-base:1"), access)
    assert base.glibc == platform.libc_ver()[1]
    assert base.python == "3.11"
    assert base.digest
    assert base.digest.startswith("sha256:")


def test_a_base_in_a_registry_is_pulled_and_pinned(
    harness: BuildahHarness, password_registry: Registry, tmp_path: Path
) -> None:
    login = password_registry.connection()
    to = to_registry(password_registry, "bases/tiny:1")
    digest = harness.build("FROM localhost/tiny-base:1\nLABEL one=1\n", to, login).digest
    with container_storage(tmp_path, driver="vfs") as environ:
        other = BuildahHarness(tmp_path, environ)
        with other.access(to.reference.host, push=login) as access:
            base = other.engine.inspect_base(to.reference, access)
            assert (base.digest, base.glibc, base.python) == (digest, platform.libc_ver()[1], "3.11")
            moved = harness.build("FROM localhost/tiny-base:1\nLABEL two=2\n", to, login).digest
            assert moved != digest
            pinned = f"FROM {base.reference.with_digest(str(base.digest))}\nLABEL three=3\n"
            out = Destination(reference=to.reference, transport="oci", path=tmp_path / "out")
            other.build(pinned, out, login, base=str(base.reference))
            labels = skopeo("inspect", "--config", f"oci:{tmp_path / 'out'}:{to.reference}")["config"]["Labels"]
            assert labels == {"one": "1", "three": "3"}
            assert other.engine.inspect_base(to.reference, access).digest == moved


def test_the_local_copy_serves_when_the_registry_is_down(
    harness: BuildahHarness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_registry(tmp_path / "short") as short, harness.access(short.host) as access:
        reference = to_registry(short, "a/b:1").reference
        push(harness, short, "a/b:1")
        before = harness.engine.inspect_base(reference, access)
        insecure_hosts = access.insecure_hosts
    with harness.access() as access:
        assert harness.engine.inspect_base(reference, replace(access, insecure_hosts=insecure_hosts)) == before
    assert "can't be reached" in caplog.text


def test_a_base_for_another_platform_is_refused(harness: BuildahHarness) -> None:
    harness.settings["platform"] = "linux-aarch64" if platform.machine() == "x86_64" else "linux-64"
    with harness.access() as access, pytest.raises(BuildError, match="is for"):
        harness.engine.inspect_base(Reference.parse("localhost/tiny-base:1"), access)


def skopeo(*words: str) -> Any:
    return json.loads(subprocess.run(["skopeo", *words], check=True, capture_output=True).stdout)


@pytest.mark.parametrize("transport", ["oci", "oci-archive"])
def test_a_local_output_is_a_whole_image(harness: BuildahHarness, tmp_path: Path, transport: Any) -> None:
    path = tmp_path / "deep" / "a:b" / "out"
    to = Destination(reference=Reference.parse("r.io/wine:1.0"), transport=transport, path=path)
    built = harness.build("FROM localhost/tiny-base:1\nCOPY env /env\n", to)
    plain = path.rename(tmp_path / "plain")  # skopeo can't name a path with a colon
    assert skopeo("inspect", f"{transport}:{plain}:r.io/wine:1.0")["Digest"] == built.digest
    assert plain.stat().st_mode & 0o777 == (0o755 if transport == "oci" else 0o644)
    if transport == "oci-archive":
        assert_loads_under_its_name(harness.environ, plain, "r.io/wine:1.0", "docker-archive", "oci-archive")
    assert list((tmp_path / "deep" / "a:b").iterdir()) == []


def test_a_layout_is_extended(harness: BuildahHarness, tmp_path: Path) -> None:
    digests = {}
    for tag, label in (("1", "a"), ("2", "b"), ("1", "c")):
        to = Destination(reference=Reference.parse(f"r.io/wine:{tag}"), transport="oci", path=tmp_path / "out")
        digests[tag] = harness.build(f"FROM localhost/tiny-base:1\nLABEL l={label}\n", to).digest
    for tag, digest in digests.items():
        assert skopeo("inspect", f"oci:{tmp_path / 'out'}:r.io/wine:{tag}")["Digest"] == digest


def test_a_failed_push_leaves_an_old_archive_alone(harness: BuildahHarness, tmp_path: Path) -> None:
    (tmp_path / "old.tar").write_text("old")
    to = Destination(reference=Reference.parse("r.io/wine:1"), transport="oci-archive", path=tmp_path / "old.tar")
    with pytest.raises(BuildStepError):
        harness.build('FROM localhost/tiny-base:1\nRUN ["sh", "-c", "exit 1"]\n', to)
    assert (tmp_path / "old.tar").read_text() == "old"


INTERRUPTED = """
    import logging, os, sys
    from datetime import datetime, timezone
    from functools import partial
    from pathlib import Path
    from packager.engines.buildah import BuildahEngine
    from packager.errors import Interrupted
    from packager.launcher import supervise
    from packager.models.reference import Destination, Reference
    from packager.image.plan import BaseImage, ImageConfig, ImagePlan, RunStep
    from packager.system.process import run_command
    from packager.system.signals import raise_on_stop
    from packager.registry.access import RegistryAccess
    from packager.settings import Settings

    def work(private):
        raise_on_stop()
        logging.basicConfig(level="DEBUG", format="%(message)s", stream=sys.stdout)
        folder = Path({folder!r})
        os.mkdir(private)
        engine = BuildahEngine(Settings(work_dir=private, cache_dir=folder / "cache"),
                               partial(run_command, grace=5), os.environ)
        plan = ImagePlan(base=BaseImage(reference=Reference.parse("localhost/tiny-base:1")),
                         steps=(RunStep(name="run", argv=("true",)),), config=ImageConfig(),
                         timestamp=datetime(2024, 1, 1, tzinfo=timezone.utc))
        try:
            engine.build(plan, folder / "context", Destination(reference=Reference.parse("r.io/a:1")),
                         RegistryAccess())
        except Interrupted as error:
            os._exit(error.as_error().exit_code)

    sys.exit(supervise(work, []))
"""


@contextmanager
def interrupted(harness: BuildahHarness, mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """Give a program that builds, once both sleeps of its RUN step, which ignore SIGTERM, run."""
    step = f"trap '' TERM; sleep {mark} & sleep {mark}"
    (harness.folder / "context").mkdir(exist_ok=True)
    (harness.folder / "context" / "Dockerfile").write_text(f'FROM localhost/tiny-base:1\nRUN ["sh", "-c", "{step}"]\n')
    program = textwrap.dedent(INTERRUPTED.format(folder=str(harness.folder)))
    env = harness.environ | {"PYTHONPATH": str(Path.cwd()), "PACKAGER_WORK_DIR": str(harness.folder / "work")}
    with subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE) as ours:
        wait_for(lambda: len([pid for pid in with_argument(mark) if is_sleep(pid)]) == 2)
        assert len(harness.buildah("containers")) == 1
        yield ours


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_run_step_leaves_nothing(harness: BuildahHarness, number: int) -> None:
    mark = f"1{os.getpid()}{time.monotonic_ns() % 10**6}"
    with interrupted(harness, mark) as ours:
        ours.send_signal(number)
        output, _ = ours.communicate(timeout=60)
    assert ours.returncode == 128 + number, output.decode()
    assert with_argument(mark) == []


def test_what_a_killed_worker_left_is_removed_by_the_next(harness: BuildahHarness, registry: Registry) -> None:
    mark = f"1{os.getpid()}{time.monotonic_ns() % 10**6}"
    with interrupted(harness, mark) as ours:
        harness.build("FROM localhost/tiny-base:1\nLABEL a=meanwhile\n", to_registry(registry, "killed/a:1"))
        assert len(harness.buildah("containers")) == 1  # a living session's is left alone
        (worker,) = children_of(ours.pid)
        builds = with_argument(str(harness.folder / "context"))
        for pid in builds:
            os.kill(pid, signal.SIGSTOP)  # else it tidies up when it is asked to end
        os.kill(worker, signal.SIGKILL)
        ours.wait(30)
        wait_for(lambda: with_argument(mark) == [])
    assert list((harness.folder / "work").iterdir()) == []
    assert len(harness.buildah("containers")) == 1
    harness.build("FROM localhost/tiny-base:1\nLABEL a=next\n", to_registry(registry, "killed/a:1"))
    # The fixture sees that nothing is left.


def is_sleep(pid: int) -> bool:
    return Path("/proc", str(pid), "cmdline").read_bytes().startswith(b"sleep\0")


def test_a_build_that_is_killed_is_cleaned_up_and_others_are_left_alone(
    harness: BuildahHarness, registry: Registry
) -> None:
    context = harness.folder / "context"
    context.mkdir(exist_ok=True)
    mark = f"1{os.getpid()}{time.monotonic_ns() % 10**6}"
    other = subprocess.run(
        ["buildah", "from", "--pull=never", "localhost/tiny-base:1"],
        env=harness.environ,
        check=True,
        capture_output=True,
    ).stdout.decode()

    def kill(argv: list[str], **options: Any) -> Any:
        def on_line(line: str) -> None:
            if line == "now":
                wait_for(lambda: bool(with_argument(mark)))
                for pid in with_argument(str(context)):  # not every build on this machine
                    os.kill(pid, signal.SIGKILL)

        return run_command(argv, **{**options, "on_line": on_line if "build" in argv else None})

    bench_engine = BuildahEngine(harness.engine._settings, kill, harness.environ)  # type: ignore[arg-type]  # noqa: SLF001
    (context / "Dockerfile").write_text(
        f'FROM localhost/tiny-base:1\nRUN ["sh", "-c", "sleep {mark} & echo now; wait"]\n'
    )
    plan = ImagePlan(
        base=BaseImage(reference=Reference.parse("localhost/tiny-base:1")),
        steps=(RunStep(name="run", argv=("true",)),),
        config=ImageConfig(),
        timestamp=CREATED,
    )
    try:
        with harness.access() as access, pytest.raises(OutOfMemoryError):
            bench_engine.build(plan, context, to_registry(registry, "a/b:1"), access)
        assert with_argument(mark) == []
        assert [container["containername"] for container in harness.buildah("containers")] == [other.strip()]
    finally:
        subprocess.run(["buildah", "rm", other.strip()], env=harness.environ, check=True, capture_output=True)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
