"""What surrounds rattler, without starting it."""

from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING

import pytest

from packager.environment import conda_solver
from packager.errors import DiskFullError, InstallError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_full_disk_and_a_damaged_package_have_hints() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskFullError) as caught, conda_solver._errors_of_rattler(()):  # noqa: SLF001
        raise RuntimeError(f"failed to link: {full}")
    assert "PACKAGER_WORK_DIR" in caught.value.hint
    with pytest.raises(InstallError) as failed, conda_solver._errors_of_rattler(()):  # noqa: SLF001
        raise RuntimeError("failed to link")
    assert "PACKAGER_CACHE_DIR" in failed.value.hint


def test_a_cancelled_linking_waits_until_nothing_is_written_any_more(tmp_path: Path) -> None:
    started = threading.Event()

    def write() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            (tmp_path / str(time.monotonic_ns())).touch()
            started.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert started.wait(60)
    conda_solver._wait_until_quiet(tmp_path)  # noqa: SLF001  (rattler's threads can't be had without a channel)
    assert not thread.is_alive()
