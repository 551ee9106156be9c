"""A cache folder that can't be used is the user's setting, not a bug; it shows before anything is downloaded."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from packager.environment import ImageTarget
from packager.environment.cache.local import check_cache
from packager.environment.conda import make_conda_environment
from packager.environment.pip import make_pip_environment
from packager.errors import DiskFullError, UsageError
from packager.logs.progress import SilentReporter
from packager.settings import Settings

if TYPE_CHECKING:
    from packager.system.process import Completed

TARGET = ImageTarget(platform="linux-64", glibc="2.36", python="3.11")


def never_run(*_: object, **__: object) -> Completed:
    raise AssertionError("nothing may be started")


def make(kind: str, folder: Path, cache: Path) -> None:
    settings, reporter = Settings(cache_dir=cache), SilentReporter()
    file = folder / "deps"
    if kind == "pip":
        file.write_text("six\n", encoding="utf-8")
        make_pip_environment(
            file,
            artifact_root=folder,
            workspace=folder,
            target=TARGET,
            settings=settings,
            run=never_run,
            reporter=reporter,
        )
    else:
        file.write_text("dependencies: [python]\n", encoding="utf-8")
        make_conda_environment(
            file,
            artifact_root=folder,
            envs_location=PurePosixPath("/envs"),
            workspace=folder,
            target=TARGET,
            settings=settings,
            run=never_run,
            reporter=reporter,
        )


@pytest.mark.parametrize("kind", ["conda", "pip"])
@pytest.mark.parametrize("cache", ["/proc/x", "/dev/null/x"])
def test_a_cache_folder_that_can_not_be_made(tmp_path: Path, kind: str, cache: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(kind, tmp_path, Path(cache))
    assert f"the cache folder {cache} can't be used: " in caught.value.message
    assert "PACKAGER_CACHE_DIR" in caught.value.hint


@pytest.mark.parametrize("kind", ["conda", "pip"])
def test_a_cache_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests' root may write everywhere
    with pytest.raises(UsageError, match="is not writable"):
        make(kind, tmp_path, tmp_path / "cache")


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    real = Path.mkdir
    monkeypatch.setattr(
        Path, "mkdir", lambda path, **options: full() if "cache" in path.parts else real(path, **options)
    )
    with pytest.raises(DiskFullError):
        make("pip", tmp_path, tmp_path / "cache")


def test_a_cache_folder_is_made(tmp_path: Path) -> None:
    check_cache(Settings(cache_dir=tmp_path / "a" / "b"), "conda", "uv")
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"conda", "uv"}
