"""What uv is told, and what its words mean, without starting it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from packager.environment import ImageTarget
from packager.environment.pip import make_pip_environment
from packager.environment.requirements import Requirements
from packager.environment.uv import Uv, python_platform
from packager.errors import (
    ChannelError,
    DependenciesError,
    DiskFullError,
    InstallError,
    PackagerError,
    SolveError,
)
from packager.logs.progress import SilentReporter
from packager.settings import Settings
from packager.system.process import Completed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TARGET = ImageTarget(platform="linux-64", glibc="2.36")


class FakeRun:
    """Remembers the command, and the files it names as they are while it runs."""

    def __init__(self, returncode: int = 0, output: str = "") -> None:
        self.returncode, self.output = returncode, output
        self.argv: list[str] = []
        self.env: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.modes: set[int] = set()

    def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,  # noqa: ARG002
        on_line: Callable[[str], None] | None = None,  # noqa: ARG002
        capture: bool = False,  # noqa: ARG002
    ) -> Completed:
        self.argv, self.env = list(argv), dict(env)
        for path in (Path(word) for word in argv if word.endswith((".txt", "uv.toml"))):
            self.files[path.name] = path.read_text(encoding="utf-8")
            self.modes.add(path.stat().st_mode & 0o777)
        return Completed(argv=tuple(argv), returncode=self.returncode, output=self.output)


def uv(tmp_path: Path, run: FakeRun, settings: Settings, **environ: str) -> Uv:
    return Uv(
        run=run, settings=settings, target=TARGET, workspace=tmp_path, folder=tmp_path, file="reqs.txt", environ=environ
    )


def test_secrets_are_in_private_files_only(tmp_path: Path) -> None:
    run = FakeRun()
    settings = Settings.from_env(
        {
            "PACKAGER_PIP_INDEX_URL": "https://u:index-s3cret@index/simple",
            "PACKAGER_PIP_EXTRA_INDEX_URLS": "https://u:extra-s3cret@extra/simple",
            "PACKAGER_PIP_FIND_LINKS": "wheels https://u:links-s3cret@page/",
            "PACKAGER_CACHE_DIR": "/cache",
        }
    )
    requirements = Requirements(
        lines=("x @ https://u:line-s3cret@host/x.whl",),
        constraints=("y<2",),
        extra_index_urls=("https://first/simple",),
        find_links=("/artifact/wheels",),
        switches=frozenset({"--pre", "--no-index"}),
        formats=("--no-binary lxml",),
    )
    uv(tmp_path, run, settings).install(requirements, "--python", "/staging/bin/python")
    assert not any("-s3cret" in word for word in run.argv)
    assert not any("-s3cret" in value for value in run.env.values())
    assert run.env["UV_CACHE_DIR"] == "/cache/uv"
    assert run.files == {
        "requirements.txt": "--no-binary lxml\nx @ https://u:line-s3cret@host/x.whl\n",
        "constraints.txt": "y<2\n",
        "uv.toml": (
            f'find-links = ["/artifact/wheels", "{tmp_path}/wheels", "https://u:links-s3cret@page/"]\n'
            '[[index]]\nurl = "https://first/simple"\n'
            '[[index]]\nurl = "https://u:extra-s3cret@extra/simple"\n'
            '[[index]]\nurl = "https://u:index-s3cret@index/simple"\ndefault = true\n'
        ),
    }
    assert run.modes == {0o600}
    assert {"--config-file", "--no-index", "--prerelease"} <= set(run.argv)
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_needed_is_passed_on(tmp_path: Path) -> None:
    run = FakeRun()
    environ = {
        "PATH": "/bin",
        "SSL_CERT_FILE": "/ca",
        "https_proxy": "http://proxy",
        "AWS_SECRET_ACCESS_KEY": "aws-secret",
        "UV_INDEX": "https://elsewhere",
        "PYTHONPATH": "/x",
    }
    uv(tmp_path, run, Settings(), **environ).install(Requirements(lines=("six",)))
    assert run.env["PATH"] == "/bin"
    assert run.env["SSL_CERT_FILE"] == "/ca"
    assert run.env["https_proxy"] == "http://proxy"
    assert not {"AWS_SECRET_ACCESS_KEY", "UV_INDEX", "PYTHONPATH", "UV_DEFAULT_INDEX"} & set(run.env)
    assert run.files["uv.toml"] == "find-links = []\n"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("", "https://mirror/simple"),
        ("https://company/simple", "https://company/simple"),
    ],
)
def test_the_setting_is_for_files_that_name_no_index(tmp_path: Path, own: str, expected: str) -> None:
    run = FakeRun()
    settings = Settings.from_env({"PACKAGER_PIP_INDEX_URL": "https://mirror/simple"})
    uv(tmp_path, run, settings).install(Requirements(lines=("six",), index_url=own))
    assert run.files["uv.toml"].endswith(f'[[index]]\nurl = "{expected}"\ndefault = true\n')


@pytest.mark.parametrize(
    ("platform", "glibc", "expected"),
    [
        ("linux-64", "2.36", "x86_64-manylinux_2_36"),
        ("linux-aarch64", "2.31", "aarch64-manylinux_2_31"),
        ("linux-64", "2.17", "x86_64-manylinux_2_17"),
        ("linux-64", "2.27", "x86_64-manylinux_2_17"),
        ("linux-64", "2.29", "x86_64-manylinux_2_28"),
        ("linux-64", "2.43", "x86_64-manylinux_2_40"),
    ],
)
def test_the_platform_is_the_images(platform: str, glibc: str, expected: str) -> None:
    assert python_platform(ImageTarget(platform=platform, glibc=glibc)) == expected


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("error: Couldn't parse requirement in `x` at position 0\n  cause: six ===== 1", DependenciesError),
        ("  \u00d7 No solution found when resolving dependencies:\n  ╰─▶ Because x was not found", SolveError),
        ("error: Failed to fetch: `https://u:s3cret@host/simple/x/`\n  Caused by: refused", ChannelError),
        ("No solution found\nhint: An index URL (https://x) returned a 401 Unauthorized error.", ChannelError),
        ("\u00d7 Failed to build `x`\n error: no space: No space left on device (os error 28)", DiskFullError),
        ("\u00d7 No solution found\n x==1 has no usable wheels", InstallError),
        ("\u00d7 Failed to build `x==1`\n  ╰─▶ setup.py failed", InstallError),
    ],
)
def test_uvs_words(tmp_path: Path, output: str, error: type[PackagerError]) -> None:
    run = FakeRun(returncode=1, output=output)
    with pytest.raises(PackagerError) as caught:
        uv(tmp_path, run, Settings()).install(Requirements(lines=("x",)))
    assert type(caught.value) is error
    assert output.splitlines()[-1].strip() in caught.value.message
    assert "s3cret" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Couldn't parse requirement in `{}/uv/requirements.txt` at position 12\n cause", "in `reqs.txt`\n cause"),
        ("Unexpected '-': {}/uv/requirements.txt:2:1", "Unexpected '-': reqs.txt:2:1"),
        ("from {}/uv/constraints.txt", "from reqs.txt"),
        ("file://{}/model/x.whl is damaged", "file://model/x.whl is damaged"),
    ],
)
def test_uvs_words_name_the_users_file(tmp_path: Path, output: str, expected: str) -> None:
    run = FakeRun(returncode=2, output=f"error: {output.format(tmp_path)}")
    with pytest.raises(PackagerError) as caught:
        uv(tmp_path, run, Settings()).install(Requirements(lines=("x",)))
    assert expected in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_a_full_disk_has_a_hint(tmp_path: Path) -> None:
    run = FakeRun(returncode=1, output="No space left on device")
    with pytest.raises(DiskFullError) as caught:
        uv(tmp_path, run, Settings()).install(Requirements(lines=("x",)))
    assert "PACKAGER_WORK_DIR" in caught.value.hint


@pytest.mark.parametrize(
    ("python", "text", "problem"),
    [
        (
            "3.11",
            "--no-binary numpy,lxml\nlxml\n",
            "'--no-binary numpy' requires a source build, but only wheels are supported",
        ),
        ("3.11", "--only-binary a --no-binary :all:\n", "'--no-binary :all:' requires a source build"),
        ("3.7", "six\n", "the base image has Python 3.7, but the serving runtime needs 3.8 or later"),
        ("3.11", None, "requirements.txt is missing"),
    ],
)
def test_what_cant_be_installed_for_the_bases_python_is_refused_before_uv_runs(
    tmp_path: Path, python: str, text: str | None, problem: str
) -> None:
    path, run = tmp_path / "requirements.txt", FakeRun()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DependenciesError) as caught:
        make_pip_environment(
            path,
            artifact_root=tmp_path,
            workspace=tmp_path,
            target=ImageTarget(platform="linux-64", glibc="2.36", python=python),
            settings=Settings(cache_dir=tmp_path / "cache"),
            run=run,
            reporter=SilentReporter(),
        )
    assert problem in caught.value.message
    assert caught.value.hint
    assert run.argv == []


def test_a_base_without_python(tmp_path: Path) -> None:
    with pytest.raises(DependenciesError) as caught:
        make_pip_environment(
            tmp_path / "requirements.txt",
            artifact_root=tmp_path,
            workspace=tmp_path,
            target=TARGET,
            settings=Settings(),
            run=FakeRun(),
            reporter=SilentReporter(),
        )
    assert "PACKAGER_BASE_PYTHON" in caught.value.hint
