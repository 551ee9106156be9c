from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from packager.errors import BuildError, DiskFullError
from packager.image.context import write_context
from packager.image.plan import LAYER_TIME
from packager.image.planner import make_plan
from tests.unit.builders import prepared, request


def stage(work: Path) -> Path:
    """Make what the plan of the builders names: an environment and a model."""
    (work / "environment/bin").mkdir(parents=True)
    (work / "environment/bin/python").write_text("#!")
    (work / "environment/bin/python").chmod(0o4711)
    (work / "environment/bin/python3").symlink_to("python")
    (work / "artifact/wine").mkdir(parents=True)
    (work / "artifact/wine/model.bin").write_bytes(b"\0" * 1000)
    (work / "artifact/wine/model.bin").chmod(0o600)
    (work / "artifact/wine/empty").mkdir()
    (work / "artifact/wine/Ünï $x\n").write_text("odd")
    return work


def fingerprint(folder: Path) -> list[tuple[str, int, int, str]]:
    """List everything below a folder: name, mode, time, content."""
    rows = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes().hex() if path.is_file() else ""
        rows.append((str(path.relative_to(folder)), status.st_mode, int(status.st_mtime), content))
    return rows


def write(work: Path, folder: Path, ours: Path) -> list[tuple[str, int, int, str]]:
    write_context(make_plan(request(), prepared(work)), folder, ours=ours)
    return fingerprint(folder)


def test_the_same_plan_gives_the_same_bytes_wherever_and_however_it_is_written(tmp_path: Path) -> None:
    first = write(stage(tmp_path / "a"), tmp_path / "a/context", tmp_path / "a")
    mask = os.umask(0o077)
    try:
        second = write(stage(tmp_path / "b"), tmp_path / "c/d/context", tmp_path / "nothing")
    finally:
        os.umask(mask)
    assert first == second
    assert len(first) == 13


def test_modes_and_times_are_normalised(tmp_path: Path) -> None:
    rows = {name: (mode, time) for name, mode, time, _ in write(stage(tmp_path), tmp_path / "context", tmp_path)}
    time = int(LAYER_TIME.timestamp())
    assert rows["0-environment/bin/python"] == (stat.S_IFREG | 0o755, time)
    assert rows["2-model/wine/model.bin"] == (stat.S_IFREG | 0o644, time)
    assert rows["2-model/wine/empty"] == (stat.S_IFDIR | 0o755, time)
    assert rows["0-environment/bin/python3"][1] == time
    assert {moment for _, moment in rows.values()} == {time}


def test_our_own_files_are_linked_and_a_users_are_copied_untouched(tmp_path: Path) -> None:
    work = stage(tmp_path / "work")
    model = work / "artifact/wine/model.bin"
    write(work, tmp_path / "linked", work)
    assert model.stat().st_ino == (tmp_path / "linked/2-model/wine/model.bin").stat().st_ino
    user = stage(tmp_path / "user")
    before = fingerprint(user)
    write(user, tmp_path / "copied", work)
    assert fingerprint(user) == before


def test_the_bytes_are_counted(tmp_path: Path) -> None:
    amounts: list[int] = []
    plan = make_plan(request(), prepared(stage(tmp_path)))
    write_context(plan, tmp_path / "context", ours=tmp_path, advance=amounts.append)
    assert sum(amounts) == 1000 + 3 + 2


def test_a_special_file_is_refused(tmp_path: Path) -> None:
    work = stage(tmp_path)
    os.mkfifo(work / "artifact/wine/pipe")
    with pytest.raises(BuildError, match="pipe is neither a file nor a folder"):
        write(work, tmp_path / "context", tmp_path)


def test_a_full_disk_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    work = stage(tmp_path)
    monkeypatch.setattr("packager.image.context.os.link", full)
    with pytest.raises(DiskFullError, match="no space left for the build context") as caught:
        write(work, tmp_path / "context", tmp_path)
    assert caught.value.exit_code == 50
    assert "PACKAGER_WORK_DIR" in caught.value.hint


def test_another_disk_is_copied_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("packager.image.context.os.link", elsewhere)
    write(stage(tmp_path), tmp_path / "context", tmp_path)
    copied = (tmp_path / "context/2-model/wine/model.bin").read_bytes()
    assert hashlib.sha256(copied).digest() == hashlib.sha256(b"\0" * 1000).digest()
