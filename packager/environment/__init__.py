"""The model's dependencies, installed into a folder before the image is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Installed dependencies, ready to become a layer.

    Attributes:
        root: The staging folder; its content goes below `prefix` in the image.
        prefix: The folder in the image; every path written into the files starts with it.
        python: The interpreter's absolute path in the image.
        python_version: `3.11`.
        site_packages: The folder of the Python packages in the image; goes on `sys.path` with the base image's Python.
        lock: The exact packages, as text for the image; equal inputs give equal text.
        lock_digest: `sha256:…` of the lock, the platform and the prefix.
        variables: Environment variables that the model's conda file sets.
    """

    root: Path
    prefix: PurePosixPath
    python: PurePosixPath
    python_version: str
    site_packages: PurePosixPath
    lock: str
    lock_digest: str
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageTarget:
    """The platform that the environment is installed for: the image's, not this machine's.

    Attributes:
        platform: The conda subdir, `linux-64` or `linux-aarch64`.
        glibc: `2.36`.
        python: The base image's Python, `3.11`, for pip environments; None without one.
    """

    platform: str
    glibc: str
    python: str | None = None
