"""What surrounds rattler, without starting it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from packager.environment import conda_solver
from packager.errors import DiskFullError, InstallError

if TYPE_CHECKING:
    pass


def test_a_full_disk_and_a_damaged_package_have_hints() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskFullError) as caught, conda_solver.convert_rattler_errors(()):
        raise RuntimeError(f"failed to link: {full}")
    assert "PACKAGER_WORK_DIR" in caught.value.hint
    with pytest.raises(InstallError) as failed, conda_solver.convert_rattler_errors(()):
        raise RuntimeError("failed to link")
    assert "PACKAGER_CACHE_DIR" in failed.value.hint
