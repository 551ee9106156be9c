"""Real environments: a channel made here, rattler, uv, PyPI, and the result run at its place in a chroot."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from packager.environment import Environment, ImageTarget
from packager.environment.conda import make_conda_environment
from packager.environment.pip import make_pip_environment
from packager.errors import ChannelError, DependenciesError, DiskFullError, InstallError, Interrupted, SolveError
from packager.logs.progress import SilentReporter
from packager.settings import Settings
from packager.system.process import Completed, Runner, run_command
from packager.system.signals import raise_on_stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHANNEL = Path(__file__).parents[2] / "local" / "channel.py"
CACHE = Path(os.environ.get("PACKAGER_TEST_CACHE", f"{tempfile.gettempdir()}/packager-test-cache-{os.getuid()}"))
TARGET = ImageTarget(platform="linux-64", glibc=os.confstr("CS_GNU_LIBC_VERSION").split()[1])  # type: ignore[union-attr]
ENVS = PurePosixPath("/opt/conda/envs")
# The loader finds libraries beside a program through /proc, which every container has.
ENTER = 'mkdir -p "$0/proc" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"'
needs_chroot = pytest.mark.needs("root")


def make_channel(folder: Path, *arguments: str) -> Path:
    subprocess.run([sys.executable, CHANNEL, folder, *arguments], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def channel() -> Path:
    return make_channel(
        CACHE / "channel", "--stub", "needy=1.0:nowhere >=2", "--stub", "both=1.0", "--tool", "hello=1.0"
    )


@pytest.fixture(scope="session")
def python_version(channel: Path) -> str:
    (package,) = channel.glob("*/python-*.tar.bz2")
    return ".".join(package.name.split("-")[1].split(".")[:2])


def without_compiling(argv: Sequence[str], **options: Any) -> Completed:
    """Run everything but the compiler of modules, which takes most of the time and matters to few tests."""
    if "compileall" in argv:
        return Completed(argv=tuple(argv), returncode=0, output="")
    return run_command(argv, **options)


class Maker:
    """Makes environments of a folder's files, each in a workspace of its own."""

    def __init__(self, folder: Path, python_version: str) -> None:
        self.folder = folder
        self.python_version = python_version
        self.run: Runner = without_compiling
        self.artifact = folder / "artifact"
        self.artifact.mkdir()
        self.count = 0

    def workspace(self) -> Path:
        self.count += 1
        workspace = self.folder / ("w" * self.count)
        workspace.mkdir()
        return workspace

    def common(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {
            "artifact_root": self.artifact,
            "workspace": self.workspace(),
            "settings": Settings.model_validate(
                {"cache_dir": CACHE / "cache", "default_python": self.python_version, **settings}
            ),
            "run": self.run,
            "reporter": SilentReporter(),
            "environ": os.environ,
        }

    def conda(
        self, text: str, *, envs: PurePosixPath = ENVS, target: ImageTarget = TARGET, **settings: object
    ) -> Environment:
        path = self.artifact / "conda.yaml"
        path.write_text(text, encoding="utf-8")
        return make_conda_environment(path, envs_location=envs, target=target, **self.common(settings))

    def pip(self, text: str, *, python: str | None, **settings: object) -> Environment:
        path = self.artifact / "requirements.txt"
        path.write_text(text, encoding="utf-8")
        target = ImageTarget(platform=TARGET.platform, glibc=TARGET.glibc, python=python)
        return make_pip_environment(path, target=target, **self.common(settings))


@pytest.fixture
def maker(tmp_path: Path, python_version: str) -> Maker:
    return Maker(tmp_path, python_version)


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Every path with its mode and its content or target."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_symlink():
            value = str(path.readlink())
        else:
            value = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(root))] = (stat.S_IMODE(mode), value)
    return found


def assert_nowhere(root: Path, *texts: str) -> None:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            for text in texts:
                assert text.encode() not in data, f"{text} is in {path}"


def in_chroot(environment: Environment, root: Path, *argv: str) -> str:
    """Run a command in a root that has glibc and a shell, and the environment at its place, nothing else."""
    place = root / environment.prefix.relative_to("/")
    if not place.exists():
        place.parent.mkdir(parents=True)
        shutil.copytree(environment.root, place, symlinks=True)
        for program in ("/bin/sh", "/usr/bin/env"):
            answer = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
            extra = ["libm.so.6", "libresolv.so.2", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"]
            files = [word for line in answer.splitlines() for word in line.split() if word.startswith("/")]
            folder = next(Path(name).parent for name in files if "libc.so" in name)
            files += [str(folder / name) for name in extra if (folder / name).exists()]
            for name in (program, *files):
                target = root / name.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(name, target)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", ENTER, root, *argv],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_chroot
def test_an_environment_runs_at_its_place(maker: Maker, channel: Path, python_version: str, tmp_path: Path) -> None:
    maker.run = run_command
    (maker.artifact / "more.txt").write_text("six==1.17.0\n", encoding="utf-8")
    environment = maker.conda(
        f"name: wine\nchannels: ['{channel}']\nvariables: {{MODE: fast}}\n"
        f"dependencies: [python={python_version}, pip, hello, {{pip: [-r more.txt, flask, gunicorn==23.0.0]}}]\n"
    )
    assert environment.prefix == ENVS / "wine"
    assert environment.python == ENVS / "wine/bin/python"
    assert environment.site_packages == ENVS / f"wine/lib/python{python_version}/site-packages"
    assert list(environment.root.rglob("six.cpython-*.pyc"))
    assert environment.variables == (("MODE", "fast"),)
    assert_nowhere(environment.root, str(tmp_path), str(CACHE))
    assert str(tmp_path) not in environment.lock
    assert str(CACHE) not in environment.lock
    for line in ("file:///channel/noarch/hello-1.0-0.tar.bz2#", "# pip: six==1.17.0 ", "# pip: gunicorn==23.0.0 "):
        assert f"\n{line}" in environment.lock

    run = functools.partial(in_chroot, environment, tmp_path / "root")
    python = str(environment.python)
    modules = "ssl, sqlite3, lzma, bz2, ctypes, zlib, hashlib, uuid, decimal, readline, multiprocessing, flask, six"
    assert run(python, "-c", f"import sys, {modules}; print(sys.prefix)") == "/opt/conda/envs/wine\n"
    assert run("/opt/conda/envs/wine/bin/hello") == "hello 1.0 in /opt/conda/envs/wine\n"
    assert run("/opt/conda/envs/wine/bin/gunicorn", "--version") == "gunicorn (version 23.0.0)\n"
    assert "pydoc" in run("/opt/conda/envs/wine/bin/pydoc3", "-h")
    paths = "import sysconfig; print(sysconfig.get_path('purelib'), sysconfig.get_path('scripts'))"
    assert run(python, "-c", paths) == f"{environment.site_packages} {environment.prefix}/bin\n"
    # Compiled for its place: no module is compiled anew, and tracebacks name the image's paths.
    where = "import six, flask.app as a; print(six.b.__code__.co_filename, a.Flask.run.__code__.co_filename)"
    assert run(python, "-v", "-c", where).split() == [
        f"{environment.site_packages}/six.py",
        f"{environment.site_packages}/flask/app.py",
    ]
    # `pip list` and its like see the packages, with records that fit.
    check = (
        "import base64, hashlib, importlib.metadata as m\n"
        "for d in m.distributions():\n"
        "    for f in d.files or ():\n"
        "        data = f.locate().read_bytes()\n"
        "        ok = not f.hash or base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')"
        " == f.hash.value\n"
        "        assert ok and f.size in (None, len(data)), f\n"
        "print(m.version('flask') and 'fine')"
    )
    assert run(python, "-c", check) == "fine\n"


def test_two_runs_give_equal_bytes(maker: Maker, channel: Path, python_version: str, tmp_path: Path) -> None:
    text = f"channels: ['{channel}']\ndependencies: [python={python_version}, hello, {{pip: [flask, gunicorn]}}]\n"
    fresh = tmp_path / "fresh-cache"
    commands: list[str] = []

    def remembering(argv: Sequence[str], **options: Any) -> Completed:
        commands.extend(argv)
        return run_command(argv, **options)

    maker.run = remembering
    first = maker.conda(text)
    commands.clear()
    second = maker.conda(text, cache_dir=fresh)
    assert "compileall" in commands
    commands.clear()
    third = maker.conda(text, cache_dir=fresh)
    assert "compileall" not in commands
    assert len({first.root, second.root, third.root}) == 3
    assert tree(first.root) == tree(second.root) == tree(third.root)
    assert (first.lock, first.lock_digest) == (second.lock, second.lock_digest) == (third.lock, third.lock_digest)

    for kept in fresh.glob("bytecode/*.tar"):
        kept.write_bytes(kept.read_bytes()[:100_000])
    assert tree(maker.conda(text, cache_dir=fresh).root) == tree(first.root)

    maker.run = without_compiling
    other = maker.conda(text, envs=PurePosixPath("/elsewhere"))
    assert other.lock_digest != first.lock_digest
    assert [line for line in other.lock.splitlines() if "pip:" not in line] == [
        line for line in first.lock.splitlines() if "pip:" not in line
    ]


def test_the_cache_is_never_linked_into_an_environment(maker: Maker, channel: Path) -> None:
    environment = maker.conda(f"channels: ['{channel}']\ndependencies: [hello, {{pip: [six]}}]\n")
    linked = [path for path in environment.root.rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    assert linked == []


@needs_chroot
def test_a_long_prefix(maker: Maker, channel: Path, tmp_path: Path) -> None:
    envs = PurePosixPath("/opt") / ("x" * 130)
    environment = maker.conda(
        f"channels: ['{channel}']\ndependencies: [hello, {{pip: [gunicorn==23.0.0]}}]\n", envs=envs
    )
    script = str(environment.prefix / "bin/gunicorn")
    assert in_chroot(environment, tmp_path / "root", script, "--version") == "gunicorn (version 23.0.0)\n"


def wheel(path: Path, name: str) -> Path:
    """Write a small wheel with a module and a console script."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "def main():\n    print('mine')\n")
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        archive.writestr(
            f"{info}/RECORD",
            f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/entry_points.txt,,\n{info}/RECORD,,\n",
        )
    return path


@needs_chroot
def test_a_wheel_and_a_source_folder_of_the_archive(maker: Maker, channel: Path, tmp_path: Path) -> None:
    wheel(maker.artifact / "mine-1.0-py3-none-any.whl", "mine")
    source = maker.artifact / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "ours"\nversion = "2.0"\n[tool.setuptools]\npy-modules = ["ours"]\n',
        encoding="utf-8",
    )
    (source / "ours.py").write_text("WORD = 'ours'\n", encoding="utf-8")
    environment = maker.conda(
        f"channels: ['{channel}']\ndependencies: [{{pip: [./mine-1.0-py3-none-any.whl, ./source]}}]\n"
    )
    assert_nowhere(environment.root, str(tmp_path))
    root = tmp_path / "root"
    assert in_chroot(environment, root, str(environment.prefix / "bin/mine")) == "mine\n"
    assert in_chroot(environment, root, str(environment.python), "-c", "import ours; print(ours.WORD)") == "ours\n"
    assert list(environment.root.rglob("direct_url.json")) == []


def test_the_first_channel_wins(maker: Maker, channel: Path, tmp_path: Path) -> None:
    first = make_channel(tmp_path / "first", "--no-python", "--stub", "both=0.5")
    environment = maker.conda(f"channels: ['{first}', '{channel}']\ndependencies: [both]\n")
    assert "file:///first/noarch/both-0.5-0" in environment.lock
    environment = maker.conda(f"channels: ['{channel}', '{first}']\ndependencies: [both]\n")
    assert "file:///channel/noarch/both-1.0-0" in environment.lock
    environment = maker.conda(f"channels: ['{channel}']\ndependencies: ['{first}::both']\n")
    assert "file:///first/noarch/both-0.5-0" in environment.lock


def test_defaults_are_one_channel(maker: Maker, channel: Path, tmp_path: Path) -> None:
    first = make_channel(tmp_path / "first", "--no-python", "--stub", "both=0.5")
    defaults = (first.as_uri(), channel.as_uri())
    for dependency in ("both", "defaults::both"):
        environment = maker.conda(
            f"channels: [defaults]\ndependencies: ['{dependency}']\n", conda_default_channels=defaults
        )
        assert "file:///channel/noarch/both-1.0-0" in environment.lock


def test_a_range_is_solved_for_a_python_that_can_serve(maker: Maker, channel: Path, tmp_path: Path) -> None:
    other = make_channel(
        tmp_path / "other", "--no-python", "--stub", "old-only=1.0:python 3.7.*", "--stub", "python=3.7.1"
    )
    defaults = (other.as_uri(), channel.as_uri())
    with pytest.raises(SolveError, match=r"constraint python >=3\.8") as caught:
        maker.conda(
            "channels: [defaults]\ndependencies: ['python>=3.6', old-only]\n",
            conda_default_channels=defaults,
        )
    assert "conda env export" not in caught.value.hint


def test_builds_of_another_platform_are_named_as_such(maker: Maker, channel: Path) -> None:
    with pytest.raises(SolveError) as caught:
        maker.conda(f"channels: ['{channel}']\ndependencies: [hello=1.0=win_7]\nprefix: C:\\envs\\wine\n")
    assert "conda env export --from-history" in caught.value.hint


def test_a_mirror_is_asked_and_not_named(maker: Maker, channel: Path) -> None:
    environment = maker.conda(
        "channels: [conda-forge]\ndependencies: ['conda-forge::hello']\n",
        conda_mirrors={"conda-forge": channel.as_uri()},
    )
    assert "\nhttps://conda.anaconda.org/conda-forge/noarch/hello-1.0-0.tar.bz2#" in environment.lock
    assert_nowhere(environment.root / "conda-meta", str(channel))


@pytest.mark.parametrize(
    ("dependencies", "words"),
    [
        ("needy", ["needy", "nowhere >=2, for which no candidates were found"]),
        ("'python=7.0'", ["No candidates were found for python 7.0.*"]),
        ("'hello>=7'", ["No candidates were found for hello >=7"]),
    ],
)
def test_what_cant_be_solved_is_explained(maker: Maker, channel: Path, dependencies: str, words: list[str]) -> None:
    with pytest.raises(SolveError) as caught:
        maker.conda(f"channels: ['{channel}']\ndependencies: [{dependencies}]\n")
    for word in words:
        assert word in caught.value.message


def test_the_solve_is_for_the_image(maker: Maker, channel: Path) -> None:
    with pytest.raises(SolveError, match="__glibc"):
        maker.conda(
            f"channels: ['{channel}']\ndependencies: [python]\n", target=ImageTarget(platform="linux-64", glibc="2.17")
        )


def test_pip_requirements_that_contradict_each_other(maker: Maker, channel: Path) -> None:
    with pytest.raises(SolveError, match=r"six==1\.16\.0"):
        maker.conda(f"channels: ['{channel}']\ndependencies: [{{pip: [six==1.17.0, six==1.16.0]}}]\n")
    with pytest.raises(SolveError, match="no-such-package-of-odahu"):
        maker.conda(f"channels: ['{channel}']\ndependencies: [{{pip: [no-such-package-of-odahu]}}]\n")


def test_a_package_that_does_not_build(maker: Maker, channel: Path) -> None:
    source = maker.artifact / "source"
    source.mkdir()
    (source / "setup.py").write_text("raise SystemExit('no luck today')\n", encoding="utf-8")
    with pytest.raises(InstallError, match="no luck today"):
        maker.conda(f"channels: ['{channel}']\ndependencies: [{{pip: [./source]}}]\n")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Channel(http.server.SimpleHTTPRequestHandler):
    """Serves a folder to those who know the password."""

    seen: list[str | None]

    def do_GET(self) -> None:
        header = self.headers.get("Authorization")
        self.seen.append(header)
        if header != "Basic " + base64.b64encode(b"bob:s3cret-word").decode():
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def private_channel(channel: Path) -> Iterator[str]:
    handler = type("Handler", (Channel,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(channel)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("place", ["settings", "url"])
def test_a_channel_with_a_password(
    maker: Maker, private_channel: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    user = "" if place == "settings" else "bob:s3cret-word@"
    credentials = "127.0.0.1=bob:s3cret-word" if place == "settings" else ""
    environment = maker.conda(
        f"channels: ['http://{user}{private_channel}/']\ndependencies: [hello]\n",
        conda_credentials=credentials,
        cache_dir=maker.folder / "cache",
    )
    assert f"http://{private_channel}/noarch/hello-1.0-0.tar.bz2#" in environment.lock
    assert_nowhere(environment.root, "s3cret-word")
    assert_nowhere(maker.folder / "cache", "s3cret-word")
    assert "s3cret-word" not in environment.lock + caplog.text
    assert not list(maker.folder.rglob("auth.json"))


@pytest.mark.parametrize("credentials", ["", "127.0.0.1=bob:wrong-word"])
def test_a_channel_that_refuses_us(maker: Maker, private_channel: str, credentials: str) -> None:
    with pytest.raises(ChannelError) as caught:
        maker.conda(
            f"channels: ['http://eve:evil-word@{private_channel}/x']\ndependencies: [hello]\n",
            conda_credentials=credentials,
            cache_dir=maker.folder / "cache",
        )
    assert private_channel in caught.value.message
    assert "401" in caught.value.message
    assert "PACKAGER_CONDA_CREDENTIALS" in caught.value.hint
    assert "evil-word" not in caught.value.message
    assert "wrong-word" not in caught.value.message


def test_channels_that_are_not_there(maker: Maker, private_channel: str, tmp_path: Path) -> None:
    port = closed_port()
    for url, words in (
        (f"http://127.0.0.1:{port}/gone", "Connection refused"),
        (f"http://{private_channel}/nothing", "404"),
        ((tmp_path / "nothing").as_uri(), "No such file"),
    ):
        with pytest.raises(ChannelError) as caught:
            maker.conda(
                f"channels: ['{url}']\ndependencies: [hello]\n",
                conda_credentials="127.0.0.1=bob:s3cret-word",
                cache_dir=maker.folder / "cache",
            )
        assert url in caught.value.message
        assert words in caught.value.message
        assert "PACKAGER_CONDA_MIRRORS" in caught.value.hint


def test_an_index_that_is_not_there(maker: Maker, channel: Path) -> None:
    with pytest.raises(ChannelError) as caught:
        maker.conda(
            f"channels: ['{channel}']\ndependencies: [{{pip: [six]}}]\n",
            pip_index_url=f"http://u:s3cret-word@127.0.0.1:{closed_port()}/simple",
        )
    assert "s3cret-word" not in caught.value.message
    assert "PACKAGER_PIP_INDEX_URL" in caught.value.hint


def test_a_damaged_package(maker: Maker, channel: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(channel, broken)
    (package,) = broken.glob("noarch/hello-*.tar.bz2")
    package.write_bytes(package.read_bytes()[:-100])
    with pytest.raises(InstallError):
        maker.conda(f"channels: ['{broken}']\ndependencies: [hello]\n", cache_dir=tmp_path / "cache")


@needs_chroot
def test_a_full_disk(channel: Path, python_version: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], check=True)
    try:
        with pytest.raises(DiskFullError):
            Maker(disk, python_version).conda(f"channels: ['{channel}']\ndependencies: [hello]\n")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_stop_ends_a_hanging_channel(maker: Maker) -> None:
    asked: list[socket.socket] = []

    def stop(silent: socket.socket) -> None:
        asked.append(silent.accept()[0])  # and never answered
        os.kill(os.getpid(), signal.SIGTERM)

    raise_on_stop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        thread = threading.Thread(target=stop, args=(silent,))
        thread.start()
        with pytest.raises(Interrupted):
            maker.conda(f"channels: ['http://127.0.0.1:{silent.getsockname()[1]}/x']\ndependencies: [python]\n")
        thread.join()
        asked[0].close()
    assert not list(maker.folder.rglob("auth.json"))


HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_pip_for_the_bases_own_python(maker: Maker, tmp_path: Path) -> None:
    maker.run = run_command
    environment = maker.pip("gunicorn==23.0.0\nmarkupsafe\n", python=HERE)
    assert environment.python == PurePosixPath("python3")
    assert environment.site_packages == environment.prefix == PurePosixPath("/opt/odahu/packages")
    script = (environment.root / "bin/gunicorn").read_text(encoding="utf-8")
    assert script.startswith("#!/usr/bin/env python3\n")
    assert_nowhere(environment.root, str(tmp_path), str(CACHE), sys.prefix)
    assert "\n# pip: gunicorn==23.0.0 " in environment.lock
    assert list(environment.root.rglob("*.pyc"))
    done = subprocess.run(
        [environment.root / "bin/gunicorn", "--version"],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(environment.root)},
    )
    assert done.stdout == "gunicorn (version 23.0.0)\n"


def test_options_on_one_line_are_all_read(maker: Maker) -> None:
    text = "--index-url https://pypi.org/simple --trusted-host pypi.org\r\nsix==1.16.0\r\n"
    assert "\n# pip: six==1.16.0 " in maker.pip(text, python=HERE).lock


@pytest.mark.parametrize("python", ["3.6", "3.7"])
def test_pip_for_a_python_that_is_too_old_installs_nothing(maker: Maker, python: str) -> None:
    with pytest.raises(DependenciesError, match=f"Python {python}, but the serving runtime needs 3.8 or later"):
        maker.pip("six\n", python=python)
    assert not list(maker.folder.rglob("packages"))


def test_pip_takes_the_wheels_of_the_bases_python(maker: Maker) -> None:
    other = "3.12" if HERE != "3.12" else "3.11"
    first, second = (maker.pip("markupsafe\n", python=other) for _ in range(2))
    assert list(first.root.rglob(f"_speedups.cpython-{other.replace('.', '')}-x86_64-linux-gnu.so"))
    assert not list(first.root.rglob("*.pyc"))
    assert tree(first.root) == tree(second.root)


def test_pip_builds_nothing(maker: Maker) -> None:
    with pytest.raises(InstallError, match="docopt") as caught:
        maker.pip("docopt==0.6.2\n", python="3.11")
    assert "dependencies: conda" in caught.value.hint


def test_pip_without_a_file(maker: Maker) -> None:
    with pytest.raises(DependenciesError, match=r"missing\.txt"):
        make_pip_environment(
            maker.artifact / "missing.txt",
            target=ImageTarget(platform="linux-64", glibc="2.36", python="3.11"),
            **maker.common({}),
        )


def test_an_empty_requirements_file(maker: Maker) -> None:
    environment = maker.pip("# nothing\n", python=HERE)
    assert list(environment.root.iterdir()) == []


def test_a_complete_channel_is_left_alone(channel: Path, tmp_path: Path) -> None:
    arguments = ["--no-python", "--tool", "a=1.0", "--stub", "b=2.0:a"]
    first = tree(make_channel(tmp_path / "one", *arguments))
    written = [path.stat().st_mtime_ns for path in sorted((tmp_path / "one").rglob("*.bz2"))]
    assert tree(make_channel(tmp_path / "one", *arguments)) == first
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "one").rglob("*.bz2"))] == written != []
    second = tree(make_channel(tmp_path / "two", *arguments))
    packages = [name for name in first if name.endswith(".bz2")]
    assert len(packages) == 2
    assert [first[name] for name in packages] == [second[name] for name in packages]
    changed = tree(make_channel(tmp_path / "one", "--no-python", "--tool", "a=1.1"))
    assert [name for name in changed if name.endswith(".bz2")] == ["noarch/a-1.1-0.tar.bz2"]
    assert channel != tmp_path


def test_a_line_that_uv_can_not_read_is_named_with_the_users_file(maker: Maker, tmp_path: Path) -> None:
    with pytest.raises(DependenciesError) as caught:
        maker.pip("six @ https://host/\n", python=f"{sys.version_info.major}.{sys.version_info.minor}")
    assert type(caught.value) is DependenciesError
    assert "`requirements.txt`" in caught.value.message
    assert "six @ https://host/" in caught.value.message
    assert str(tmp_path) not in caught.value.message
