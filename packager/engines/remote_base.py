"""Looking into a base image in its registry, for engines that have no local storage."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import tarfile
import tempfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.engines.base_inspection import RootSkeleton
from packager.engines.rootfs import DEFAULT_PATH, find_glibc, find_python
from packager.errors import BuildError, DiskFullError
from packager.image.plan import BaseFolder, BaseImage
from packager.registry.client import find_image
from packager.system.signals import private_folder

if TYPE_CHECKING:
    from packager.models.image import RemoteImage
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.registry.blobs import LayerSource
    from packager.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BaseImageInfo:
    """What a base's layers tell: see `BaseImage`."""

    glibc: str | None = None
    python: str | None = None
    folders: tuple[BaseFolder, ...] = ()


ARCHITECTURES = {"linux-64": "amd64", "linux-aarch64": "arm64"}
_PYTHON_VERSION = re.compile(r"(3\.\d+)(?:\.\d+.*)?")
_FACTS_FOLDER = "base-images"


def inspect_remote_base(reference: Reference, access: RegistryAccess, settings: Settings) -> BaseImage:
    """Find the base image in its registry, and read its digest, glibc and Python.

    The layers are streamed when these aren't known from an earlier run; nothing but a few files of them is kept.

    Raises:
        ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: It can't be had.
        BuildError: It's for another platform.
        DiskFullError: There is no space for what is looked at.
    """
    architecture = ARCHITECTURES[settings.platform]
    with find_image(reference, access, architecture) as (repository, image):
        return inspect_image(reference, image, repository, settings)


def inspect_image(reference: Reference, image: RemoteImage, repository: LayerSource, settings: Settings) -> BaseImage:
    """Read what must be known of a base image that was found.

    Raises:
        BuildError: It's for another platform.
        DiskFullError: There is no space for what is looked at.
    """
    architecture = ARCHITECTURES[settings.platform]
    found = str(image.config.get("architecture") or architecture)
    if found != architecture:
        raise BuildError(
            f"the base image {reference} is for {found}, not for {settings.platform}",
            hint="name a base image for that platform, or set PACKAGER_PLATFORM",
        )
    config = image.config.get("config") or {}
    env = tuple((name, value) for name, _, value in (entry.partition("=") for entry in config.get("Env") or ()))
    facts = _facts(reference, image, repository, dict(env), settings)
    return BaseImage(
        reference=reference,
        digest=reference.digest or image.digest,
        glibc=facts.glibc,
        python=facts.python,
        env=env,
        user=str(config.get("User") or ""),
        folders=facts.folders,
    )


def _facts(
    reference: Reference, image: RemoteImage, repository: LayerSource, env: dict[str, str], settings: Settings
) -> BaseImageInfo:
    kept = settings.cache_dir / _FACTS_FOLDER / f"{image.digest.replace(':', '-')}.json"
    if facts := _read_facts(kept):
        return facts
    # What the official Python images say of themselves; then the first layer with a C library is enough.
    named = _PYTHON_VERSION.fullmatch(env.get("PYTHON_VERSION", ""))
    python = named[1] if named else None
    try:
        with private_folder("packager-base-", settings.work_dir) as folder:
            facts = _look(image, repository, folder, env.get("PATH") or DEFAULT_PATH, python)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"no space left to look into the base image {reference}") from error
        log.warning("the base image %s can't be looked into: %s", reference, error)
        return BaseImageInfo(python=python)
    _write_facts(kept, facts)
    return facts


def _look(image: RemoteImage, repository: LayerSource, root: Path, path: str, python: str | None) -> BaseImageInfo:
    skeleton = RootSkeleton(root)
    for blob in image.layers:
        if blob.media_type.endswith("zstd"):
            raise tarfile.ReadError("a layer of it is packed with zstd")
        with repository.layer(blob) as layer:
            skeleton.add(layer)
        if python and (glibc := find_glibc(root)):
            return BaseImageInfo(glibc=glibc, python=python, folders=skeleton.folders())
    return BaseImageInfo(glibc=find_glibc(root), python=python or find_python(root, path), folders=skeleton.folders())


def _read_facts(file: Path) -> BaseImageInfo | None:
    try:
        facts = json.loads(file.read_bytes())
        folders = tuple(BaseFolder(**folder) for folder in facts["folders"])
        return BaseImageInfo(glibc=facts["glibc"], python=facts["python"], folders=folders)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_facts(file: Path, facts: BaseImageInfo) -> None:
    """Keep the facts for the next run, where the cache folder can be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".facts-")
        try:
            with os.fdopen(handle, "w") as stream:
                json.dump(asdict(facts), stream)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        log.debug("the facts of a base image can't be kept at %s: %s", file, error)
