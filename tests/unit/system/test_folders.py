from __future__ import annotations

import shutil
import stat
from typing import TYPE_CHECKING

from packager.system.folders import remove_folder

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_read_only_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, folder = shutil.rmtree, tmp_path / "a"

    def as_another_user(path: Path, *, ignore_errors: bool) -> None:  # root may remove everything
        folders = (folder, folder / "in", folder / "in" / "side")
        if all(one.stat().st_mode & 0o700 == 0o700 for one in folders):
            real(path, ignore_errors=ignore_errors)

    (folder / "in" / "side").mkdir(parents=True)
    (folder / "in" / "out").symlink_to(tmp_path)
    for path in (folder / "in" / "side", folder / "in", folder):
        path.chmod(0o500)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(shutil, "rmtree", as_another_user)
    remove_folder(folder)
    assert not list(tmp_path.iterdir())
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_folder_that_can_not_be_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    remove_folder(tmp_path)
    assert str(tmp_path) in caplog.text
