"""The model's dependencies, made into a folder of files before the image is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Installed dependencies, ready to become a layer.

    Attributes:
        root: The staging folder; what lies in it belongs below `prefix` in the image.
        prefix: Where the files will lie in the image; every path written into them names it.
        python: The interpreter's absolute path in the image.
        python_version: `3.11`.
        site_packages: The folder of the Python packages in the image; put on the path when `python` is the base's.
        lock: The exact packages, as text that goes into the image; equal inputs give equal text.
        lock_digest: `sha256:…` of the lock, the platform and the prefix.
        variables: Environment variables that the model's conda file asks to be set.
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
    """The machine that the environment is made for: the image, not this machine.

    Attributes:
        platform: The conda subdir, `linux-64` or `linux-aarch64`.
        glibc: `2.36`.
        python: The base image's Python `3.11`, for pip environments; None when it has none.
    """

    platform: str
    glibc: str
    python: str | None = None
