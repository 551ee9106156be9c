from __future__ import annotations

import getpass
import os
import pwd
from pathlib import Path

import pytest

from packager.runtime.odahu_runtime import process
from packager.runtime.odahu_runtime.process import complete_environment

NOT_WRITABLE = "/proc/self"  # by any user


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only temporary folder that there is."""
    monkeypatch.setattr(process, "TEMPORARY_FOLDERS", (NOT_WRITABLE, str(tmp_path)))
    return tmp_path


@pytest.fixture
def no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("no_name")
@pytest.mark.parametrize("home", [None, "", "relative", "/nonexistent"])
def test_missing_or_unusable_variables_are_set(temporary: Path, home: str | None) -> None:
    environ = {} if home is None else {"HOME": home, "TMPDIR": home, "XDG_CACHE_HOME": NOT_WRITABLE}
    assert complete_environment(environ) == ""
    folder = f"{temporary}/home-{os.geteuid()}"
    assert environ == {
        "TMPDIR": str(temporary),
        "HOME": folder,
        "XDG_CACHE_HOME": f"{folder}/.cache",
        "USER": "user",
        "LOGNAME": "user",
    }
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    again: dict[str, str] = {}
    complete_environment(again)
    assert again == environ


def test_usable_variables_are_kept(temporary: Path, tmp_path: Path) -> None:
    before = {"TMPDIR": str(tmp_path / "t"), "HOME": str(tmp_path / "h"), "XDG_CACHE_HOME": str(tmp_path / "new/c")}
    for name in ("t", "h"):
        (tmp_path / name).mkdir()
    environ = {**before, "LOGNAME": "ann"}
    assert complete_environment(environ) == ""
    assert environ == {**before, "LOGNAME": "ann", "USER": "ann"}
    assert sorted(path.name for path in temporary.iterdir()) == ["h", "new", "t"]


@pytest.mark.usefixtures("temporary")
def test_user_name_comes_from_passwd() -> None:
    environ: dict[str, str] = {}
    complete_environment(environ)
    assert environ["USER"] == environ["LOGNAME"] == pwd.getpwuid(os.getuid()).pw_name


def test_home_in_a_shared_folder_is_private(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (temporary / f"home-{os.geteuid()}").symlink_to(tmp_path / "theirs")
    environ: dict[str, str] = {}
    complete_environment(environ)
    assert Path(environ["HOME"]).parent == temporary
    assert not Path(environ["HOME"]).is_symlink()
    assert list((tmp_path / "theirs").iterdir()) == []


def test_memory_as_the_last_resort_is_a_warning(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MEMORY_FOLDER", str(temporary))
    environ: dict[str, str] = {}
    assert (
        "kept in memory (/dev/shm), as /tmp can't be written; mount a writable volume at /tmp"
        in complete_environment(environ)
    )
    assert environ["TMPDIR"] == str(temporary)


@pytest.mark.parametrize("home", ["", "/opt/home"])
def test_nothing_writable_is_a_warning(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TEMPORARY_FOLDERS", (NOT_WRITABLE,))
    monkeypatch.setattr(process, "_is_writable", lambda _folder: False)
    environ = {"HOME": home}
    assert complete_environment(environ).startswith("No folder can be written, not even /tmp or /dev/shm")
    assert environ["HOME"] == (home or "/")
    assert "TMPDIR" not in environ
    monkeypatch.setattr(os, "environ", environ)
    assert getpass.getuser() == environ["USER"]
