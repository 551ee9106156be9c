"""What a user has beside a model: an environment with a small conda channel, and `make build-local`'s base images."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.integration.packaging import CONDA_FORGE, ROOT
from tests.integration.test_environment import CACHE, make_channel

if TYPE_CHECKING:
    from pathlib import Path


def plain_channel() -> Path:
    """A small channel with this machine's own Python; it is made once and kept."""
    return make_channel(CACHE / "plain-channel")


def user_environ(storage: dict[str, str], channel: Path | None = None) -> dict[str, str]:
    """An environment with the tests' own storage, and a small channel in conda-forge's place."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PACKAGER_", "STRICT"))}
    return {
        **inherited,
        **storage,
        "PACKAGER_CACHE_DIR": str(CACHE / "cache"),
        "PACKAGER_CONDA_MIRRORS": f"{CONDA_FORGE}=file://{channel or plain_channel()}",
        "PYTHONPATH": str(ROOT),
    }


def make_base(kind: str, storage: dict[str, str]) -> str:
    """Make a base image, `base` or `python`, in the tests' storage; returns its name."""
    environ = {**os.environ, **storage}
    done = subprocess.run(["local/base_image.sh", kind], cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode().splitlines()[-1]
