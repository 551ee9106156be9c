"""Tables: what a conda file and its pip section mean, and which are refused."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import yaml

from packager.environment.channels import configured_credentials, source_of, without_credentials
from packager.environment.conda import read_conda_file
from packager.errors import DependenciesError, UsageError
from packager.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

FORGE = "https://conda.anaconda.org/conda-forge"
DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")


def write(folder: Path, text: str) -> Path:
    path = folder / "conda.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ("[conda-forge]", (FORGE,)),
        ("[conda-forge, bioconda]", (FORGE, "https://conda.anaconda.org/bioconda")),
        ("[defaults]", DEFAULTS),
        ("[conda-forge, defaults]", (FORGE, *DEFAULTS)),
        ("[conda-forge, defaults, nodefaults]", (FORGE,)),
        ("[conda-forge, nodefaults]", (FORGE,)),
        ("[nodefaults]", ()),
        ("[]", DEFAULTS),
        ("null", DEFAULTS),
        ("[conda-forge, conda-forge]", (FORGE,)),
        ("[conda-forge/label/dev]", (f"{FORGE}/label/dev",)),
        ("['https://host/x/']", ("https://host/x",)),
        ("['https://user:s3cret@host/x']", ("https://host/x",)),
        ("['https://host/t/tok-123/x']", ("https://host/x",)),
        ("['file:///srv/channel']", ("file:///srv/channel",)),
        ("[/srv/channel]", ("file:///srv/channel",)),
        ("[pkgs/main, pkgs/r]", DEFAULTS),
        ("[pkgs/msys2]", ("https://repo.anaconda.com/pkgs/msys2",)),
        ("[conda-forge/linux-64, conda-forge/noarch/]", (FORGE,)),
        ("['https://host/x/linux-64']", ("https://host/x",)),
        ("['https://host/t/tok-123/x/linux-64']", ("https://host/x",)),
        ("[pkgs/main/linux-64, defaults]", DEFAULTS),
    ],
)
def test_channels_become_urls(tmp_path: Path, channels: str, expected: tuple[str, ...]) -> None:
    path = write(tmp_path, f"channels: {channels}\ndependencies: [python=3.11]\n")
    assert read_conda_file(path, Settings()).channels == expected


def test_a_relative_channel_is_relative_to_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "channels: [./mine, ../other]\ndependencies: [python]\n")
    urls = ((tmp_path / "mine").as_uri(), (tmp_path.parent / "other").as_uri())
    assert read_conda_file(path, Settings()).channels == urls


def test_the_alias_and_the_default_channels_are_settings(tmp_path: Path) -> None:
    path = write(tmp_path, "channels: [a, defaults]\ndependencies: [python]\n")
    settings = Settings(conda_channel_alias="https://mirror/conda", conda_default_channels=("https://mirror/main",))
    assert read_conda_file(path, settings).channels == ("https://mirror/conda/a", "https://mirror/main")


def test_a_default_channel_is_found_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, "channels: [pkgs/main, pkgs/r]\ndependencies: [python]\n")
    settings = Settings(conda_default_channels=("https://mirror/conda/pkgs/main/",))
    assert read_conda_file(path, settings).channels == (
        "https://mirror/conda/pkgs/main",
        "https://repo.anaconda.com/pkgs/r",
    )


def test_secrets_in_channel_urls_are_kept_apart(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "channels: ['https://user:s3cret@host/x', 'https://other/t/tok-123/y']\n"
        "dependencies: [python, 'https://u:hidden@third/z::numpy']\n",
    )
    found = read_conda_file(path, Settings())
    kept = [(one.host, one.kind, one.user, one.secret.get_secret_value()) for one in found.credentials]
    assert sorted(kept) == [
        ("host", "basic", "user", "s3cret"),
        ("other", "conda", "", "tok-123"),
        ("third", "basic", "u", "hidden"),
    ]
    for secret in ("s3cret", "tok-123", "hidden"):
        assert secret not in repr(found)
        assert secret not in found.to_yaml()


@pytest.mark.parametrize(
    "spec",
    ["numpy", "numpy>=1.2,<2", "numpy 1.21.*", "numpy=1.2=py38_0", "numpy ~=1.2", "blas[build=*mkl]", "pip<=21.2.4"],
)
def test_specs_are_kept(tmp_path: Path, spec: str) -> None:
    path = write(tmp_path, yaml.safe_dump({"dependencies": ["python=3.11", spec]}))
    assert read_conda_file(path, Settings()).specs == ("python=3.11", spec)


def test_a_spec_with_a_channel_adds_the_channel_last(tmp_path: Path) -> None:
    path = write(tmp_path, "channels: [mine]\ndependencies: [python, 'conda-forge::numpy>=1']\n")
    found = read_conda_file(path, Settings())
    assert found.specs == ("python", f"{FORGE}::numpy>=1")
    assert found.channels == ("https://conda.anaconda.org/mine", FORGE)


@pytest.mark.parametrize(
    ("entry", "spec"),
    [
        ("conda-forge/linux-64::numpy", f"{FORGE}::numpy"),
        ("conda-forge::numpy[subdir=noarch]", f"{FORGE}::numpy[subdir=noarch]"),
        ("conda-forge :: numpy >=1", f"{FORGE}::numpy >=1"),
        ("pkgs/main::numpy", f"{DEFAULTS[0]}::numpy"),
        ("defaults::numpy=1.2=py38_0", "defaults::numpy=1.2=py38_0"),
    ],
)
def test_channels_of_packages_are_read_as_those_of_the_file(tmp_path: Path, entry: str, spec: str) -> None:
    path = write(tmp_path, yaml.safe_dump({"channels": ["nodefaults"], "dependencies": ["python", entry]}))
    found = read_conda_file(path, Settings())
    assert found.specs == ("python", spec)
    assert found.channels == (DEFAULTS if spec.startswith("defaults") else (spec.partition("::")[0],))


@pytest.mark.parametrize(
    ("channels", "defaults"),
    [
        ("[conda-forge, defaults]", DEFAULTS),
        ("[]", DEFAULTS),
        ("[defaults, pkgs/main]", DEFAULTS),
        ("[pkgs/main, conda-forge]", ()),
        ("[conda-forge, defaults, nodefaults]", ()),
    ],
)
def test_defaults_are_one_channel_for_the_solver(tmp_path: Path, channels: str, defaults: tuple[str, ...]) -> None:
    path = write(tmp_path, f"channels: {channels}\ndependencies: [python]\n")
    assert read_conda_file(path, Settings()).defaults == defaults


@pytest.mark.parametrize(
    "dependencies",
    [
        "[python=3.7]",
        "[python 3.6.*]",
        "['python>=3.6,<3.8']",
        "['python>=3.6', 'python<3.8']",
        "['python=3.7', 'python<4']",
        "[python=3.7.9=h7579374_0]",
        "['conda-forge::python==3.7']",
        "[Python=2.7]",
        "[python=3.7.*=*_cpython]",
    ],
)
def test_a_python_that_is_too_old_is_refused(tmp_path: Path, dependencies: str) -> None:
    with pytest.raises(DependenciesError) as caught:
        read_conda_file(write(tmp_path, f"dependencies: {dependencies}\n"), Settings())
    assert "and the serving runtime needs Python 3.8 or later" in caught.value.message
    assert "python>=3.8" in caught.value.hint
    assert caught.value.exit_code == 20


@pytest.mark.parametrize(
    "spec",
    [
        "python",
        "python>=3.6",
        "python<3.9",
        "python==3.8",
        "python=3.8.20",
        "python 3.7.*|3.9.*",
        "python!=3.7",
        "python=3.14.0rc1",
        "python>=3.13,<3.14.0a0",
        "python>=4",
        "python=3.9.7=h12debd9_1",
        "python[build=*_cpython]",
        "python-dateutil=2.7",
    ],
)
def test_a_range_with_a_newer_python_is_kept(tmp_path: Path, spec: str) -> None:
    path = write(tmp_path, yaml.safe_dump({"dependencies": [spec, "numpy"]}))
    assert read_conda_file(path, Settings()).specs[0] == spec


def test_a_full_export_is_read(tmp_path: Path) -> None:
    path = tmp_path / "conda.yaml"
    text = """\
name: wine
channels:
  - conda-forge
  - defaults
dependencies:
  - _libgcc_mutex=0.1=main
  - python=3.9.7=h12debd9_1
  - numpy=1.21.2=py39h20f2e39_0
  - pip:
      - flask==2.0
      - |
        six
        click  # two lines
prefix: /home/ann/envs/wine
"""
    for data in (text.encode(), text.replace("\n", "\r\n").encode("utf-8-sig"), text.encode("utf-16")):
        path.write_bytes(data)
        found = read_conda_file(path, Settings())
        assert found.channels == (FORGE, *DEFAULTS)
        assert found.specs == ("_libgcc_mutex=0.1=main", "python=3.9.7=h12debd9_1", "numpy=1.21.2=py39h20f2e39_0")
        assert found.pip_requirements == ("flask==2.0", "six", "click")


def test_python_is_added_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "dependencies: [numpy]\n")
    with caplog.at_level(logging.INFO):
        found = read_conda_file(path, Settings(default_python="3.12"))
    assert found.specs == ("numpy", "python=3.12")
    assert "asks for no Python: taking 3.12" in caplog.text
    assert yaml.safe_load(found.to_yaml())["dependencies"] == ["numpy"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("", "model"), ("name: wine", "wine"), ("name: my model (2)", "my-model-2"), ("name: 1.0", "1.0")],
)
def test_names(tmp_path: Path, name: str, expected: str) -> None:
    assert read_conda_file(write(tmp_path, f"{name}\ndependencies: [python]\n"), Settings()).name == expected


@pytest.mark.parametrize("name", ["..", ".", "a/b", "'***'", '"a\\0b"', "''", "x" * 101])
def test_names_that_are_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DependenciesError, match="can't name a folder"):
        read_conda_file(write(tmp_path, f"name: {name}\ndependencies: [python]\n"), Settings())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "can't be read as YAML"),
        ("- python\n", "no `dependencies`"),
        ("name: x\n", "no `dependencies`"),
        ("dependencies: python\n", "`dependencies` is not a list"),
        ("channels: conda-forge\ndependencies: [python]\n", "`channels` is not a list"),
        ("channels: [1]\ndependencies: [python]\n", "channels: 1 is not a text"),
        ("channels: ['ftp://host/x']\ndependencies: [python]\n", "'ftp://host/x' is not a conda channel"),
        (
            "channels: ['https://conda.anaconda.org/t/${TOKEN}/acme']\ndependencies: [python]\n",
            "names an environment variable, and none is passed on",
        ),
        (
            "channels: ['https://$USER:$WORD@host/x']\ndependencies: [python]\n",
            "names an environment variable, and none is passed on",
        ),
        ("channels: [local]\ndependencies: [python]\n", "'local' is a folder of the machine that built the packages"),
        ("channels: [<unknown>]\ndependencies: [python]\n", "'<unknown>' is not a conda channel"),
        ("channels: [conda-forge/osx-64]\ndependencies: [python]\n", "is for osx-64, and the image is for linux-64"),
        ("dependencies: [python, conda-forge/win-64::six]\n", "is for win-64, and the image is for linux-64"),
        ("dependencies: [python, 'conda-forge::six[subdir=osx-64]']\n", "is for osx-64, and the image is for linux-64"),
        ("dependencies: [python, flask=2.0=pypi_0]\n", "'flask=2.0=pypi_0' is a package that pip installed"),
        ("@EXPLICIT\nhttps://host/linux-64/six-1-0.conda\n", "lists package files of one platform"),
        ("# platform: win-64\nsix=1=py_0\nca-certificates=2021.7=h06\n", "lists builds of one platform"),
        ("six==1.17\nflask\n", "no `dependencies`"),
        ("dependencies: [3]\n", "3 is neither a package nor a pip list"),
        ("dependencies: [{conda: [x]}]\n", "is neither a package nor a pip list"),
        ("dependencies: [{pip: flask}]\n", "`pip` is not a list"),
        ("dependencies: [{pip: [1]}]\n", "pip: 1 is not a text"),
        ("dependencies: ['numpy >=1,,2']\n", "'numpy >=1,,2' can't be understood"),
        ("dependencies: ['-r other.txt']\n", "'-r other.txt'"),
        ("dependencies: ['https://u:s3cret@host/x-1-0.conda']\n", "'https://host/x-1-0.conda' is not a package"),
        ("dependencies: ['numpy[channel=foo]']\n", "is not a package's name"),
        ("variables: [x]\ndependencies: [python]\n", "`variables` is not a mapping"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(DependenciesError) as caught:
        read_conda_file(write(tmp_path, text), Settings())
    assert problem in caught.value.message
    assert caught.value.message.startswith("conda.yaml: ")
    assert "s3cret" not in caught.value.message


BOMB = "a: &a [x]\n" + "".join(f"a{n}: &a{n} [*a, *a]\n" for n in range(5)) + "dependencies: [python]\n"
DEEP = "dependencies: " + "[" * 100_000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "anchors and aliases are not allowed"),
        (DEEP, "nested too deeply"),
        ("dependencies: [python]\n#" + "x" * (1 << 20), "is larger than 1,048,576 bytes"),
        (f"dependencies: [0x{'f' * 10_000}]\n", "a number is too long"),
        (f"dependencies: [1{':1' * 10_000}]\n", "a number is too long"),
        ("dependencies: [2020-99-99]\n", "can't be read as YAML"),
        (f"dependencies: [{'{a: [1]}, ' * 2000}]\n", "is neither a package"),
        (f"dependencies: ['numpy >=1,,{'2' * 100_000}']\n", "can't be understood"),
        (f"dependencies: [[{'1, ' * 2000}]]\n", "is neither a package"),
        (f"dependencies: [python]\nchannels: ['*{'x' * 100_000}']\n", "is not a conda channel"),
        (f"dependencies: ['python 3.7.*{'|3.7.*' * 10_000}']\n", "needs Python 3.8"),
        (f"dependencies: [!{'x' * 100_000} y]\n", "can't be read as YAML"),
        (f"dependencies: [python]\nname: [{'1, ' * 2000}]\n", "can't name a folder"),
    ],
)
def test_files_that_are_too_much_are_refused_in_few_words(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(DependenciesError) as caught:
        read_conda_file(write(tmp_path, text), Settings())
    assert problem in caught.value.message
    assert len(caught.value.message) < 1000
    assert caught.value.hint


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").symlink_to("/dev/zero")
    with pytest.raises(DependenciesError, match="it is not a file"):
        read_conda_file(tmp_path / "conda.yaml", Settings())


def test_variables(tmp_path: Path) -> None:
    path = write(tmp_path, "dependencies: [python]\nvariables: {A: x y, _b2: 1, C: null, D: true, E: ''}\n")
    expected = (("A", "x y"), ("_b2", "1"), ("D", "True"), ("E", ""))
    assert read_conda_file(path, Settings()).variables == expected


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ("'A B': 1", "'A B' is no variable's name"),
        ("'': 1", "'' is no variable's name"),
        ("1A: 1", "'1A' is no variable's name"),
        ('"A\\n": 1', "is no variable's name"),
        ("1: x", "1 is no variable's name"),
        ('A: "x\\ny"', "'A' is not one line"),
        ('A: "x\\0"', "'A' is not one line"),
        ("A: [1]", "'A' is not a text"),
        ("A: {b: 1}", "'A' is not a text"),
    ],
)
def test_variables_that_are_refused(tmp_path: Path, variables: str, problem: str) -> None:
    with pytest.raises(DependenciesError) as caught:
        read_conda_file(write(tmp_path, f"dependencies: [python]\nvariables: {{{variables}}}\n"), Settings())
    assert problem in caught.value.message
    assert caught.value.hint


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DependenciesError, match=r"nothing\.yaml: is missing"):
        read_conda_file(tmp_path / "nothing.yaml", Settings())


def test_the_yaml_for_another_conda_names_no_file_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "pkg.whl").touch()
    path = write(tmp_path, "dependencies: [python, {pip: ['pkg @ ./pkg.whl']}]\n")
    with pytest.raises(DependenciesError, match="a file of the model archive"):
        read_conda_file(path, Settings()).to_yaml()


def test_the_yaml_for_another_conda(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "name: wine\nchannels: [conda-forge]\n"
        "dependencies: [python=3.11, {pip: ['--extra-index-url https://u:s3cret@more/simple', six]}]\n",
    )
    assert yaml.safe_load(read_conda_file(path, Settings()).to_yaml()) == {
        "name": "wine",
        "channels": [FORGE, "nodefaults"],
        "dependencies": ["python=3.11", {"pip": ["--extra-index-url https://more/simple", "six"]}],
    }


@pytest.mark.parametrize(
    ("mirrors", "expected"),
    [
        ({}, FORGE),
        ({FORGE: "file:///srv/forge"}, "file:///srv/forge"),
        ({"conda-forge": "https://mirror/forge/"}, "https://mirror/forge"),
        ({"https://conda.anaconda.org": "https://mirror"}, "https://mirror/conda-forge"),
        ({"https://conda.anaconda.org": "https://a", FORGE: "https://b"}, "https://b"),
        ({f"{FORGE}-not": "https://mirror"}, FORGE),
        ({FORGE: "https://u:p@mirror/x"}, "https://mirror/x"),
    ],
)
def test_mirrors(mirrors: dict[str, str], expected: str) -> None:
    source, credential = source_of(FORGE, Settings.model_validate({"conda_mirrors": mirrors}))
    assert source.asked == expected
    assert source.public == FORGE
    assert (credential is not None) == ("u:p@" in str(mirrors))


@pytest.mark.parametrize("named", ["pkgs/main", "https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/"])
def test_mirrors_of_anacondas_own_channels(tmp_path: Path, named: str) -> None:
    path = write(tmp_path, "channels: [pkgs/main]\ndependencies: [python]\n")
    settings = Settings.model_validate({"conda_mirrors": {named: "https://mirror/a"}})
    (url,) = read_conda_file(path, settings).channels
    assert source_of(url, settings)[0].asked == f"https://mirror/a{'' if named.endswith('main') else '/pkgs/main'}"


def test_a_channel_in_a_folder_keeps_its_name_only() -> None:
    source, _ = source_of("file:///srv/some/where/mine", Settings())
    assert source.public == "file:///mine"


def test_configured_credentials() -> None:
    settings = Settings.from_env({"PACKAGER_CONDA_CREDENTIALS": "a=u:p:q,b=tok conda.anaconda.org=tok2"})
    entries = {one.host: one.as_auth_entry() for one in configured_credentials(settings)}
    assert entries == {
        "a": {"BasicHTTP": {"username": "u", "password": "p:q"}},
        "b": {"BearerToken": "tok"},
        "conda.anaconda.org": {"CondaToken": "tok2"},
    }
    with pytest.raises(UsageError, match="entry 1"):
        configured_credentials(Settings.from_env({"PACKAGER_CONDA_CREDENTIALS": "nonsense"}))


def test_credentials_are_taken_out_of_text() -> None:
    text = "GET https://u:p@q@host/x and https://host/t/tok/y failed, as 'https://host/t/tok'"
    assert (
        without_credentials(text) == "GET https://host/x and https://host/t/*****/y failed, as 'https://host/t/*****'"
    )


def test_channel_with_a_user_and_a_token_in_its_url_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "conda.yaml"
    file.write_text("channels: ['https://u:p4ss@host/t/tk-12345/x']\ndependencies: [python]\n")
    with pytest.raises(DependenciesError, match="both a user and a token") as error:
        read_conda_file(file, Settings())
    assert "p4ss" not in error.value.message
    assert "tk-12345" not in error.value.message
