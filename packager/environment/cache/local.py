"""The folder that keeps downloads and bytecode between runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from packager.errors import UsageError, is_disk_full

if TYPE_CHECKING:
    from packager.settings import Settings


def check_cache(settings: Settings, *names: str) -> None:
    """Make folders of the cache, and see that they can be written, before anything is downloaded for them.

    Raises:
        UsageError: They can't be made or written.
        OSError: The disk is full.
    """
    for folder in (settings.cache_dir / name for name in names):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_disk_full(error):
                raise
            raise _unusable(settings, error.strerror or str(error)) from error
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise _unusable(settings, f"{folder.name} in it can't be written")


def _unusable(settings: Settings, reason: str) -> UsageError:
    return UsageError(
        f"the cache folder {settings.cache_dir} can't be used: {reason}",
        hint="name a folder that can be written in PACKAGER_CACHE_DIR",
    )
