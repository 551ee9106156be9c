"""Environments of earlier runs, kept in a cache repository: an unchanged one is neither solved, linked nor sent again.

What decides an environment's bytes makes its key: the model's dependency file and what it may include, the platform,
the place in the image, the settings, our version. Under the key lies the layer's descriptor with the lock of its solve.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import PurePosixPath
from threading import Event
from typing import TYPE_CHECKING, Any

from packager import __version__
from packager.environment.channels import without_credentials
from packager.environment.text import decode
from packager.errors import RegistryError, RegistryUnreachableError
from packager.image.plan import StoredLayer
from packager.image.planner import ENVIRONMENT_LAYER, Dependencies
from packager.models.image import checked_digest
from packager.registry.artifacts import ArtifactStore, RegistryArtifact

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.settings import Settings

log = logging.getLogger(__name__)

KIND = "application/vnd.odahu.packager.environment.v1+json"
_SCHEMA_VERSION = 1  # of the note's document
# Of pip, whose value may be a file; anywhere in a line, as YAML may have lists in one line.
_OPTION = re.compile(r"(?<![\w.-])-(?:r|c|e|f|-req|-con|-edit|-find)")
_PLACES = ("/", "file:", ".whl", ".tar", ".zip")
_URL = re.compile(r"(?!file:)\b[\w+]+://[^\s,'\"\]}]+", re.IGNORECASE)
_LAYERS = frozenset(
    {f"application/vnd.oci.image.layer.v1.tar{form}" for form in ("", "+gzip", "+zstd")}
    | {f"application/vnd.docker.image.rootfs.diff.tar{form}" for form in ("", ".gzip")}
)
_VERSION = re.compile(r"3\.\d{1,3}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SKEW = timedelta(days=1)  # between two machines' clocks
_NOT_READ = ("#", "prefix:")  # comments, and where `conda env export` found the environment


@dataclass(frozen=True, kw_only=True)
class CacheInputs:
    """What an environment is made from.

    Attributes:
        kind: `conda` or `pip`.
        file: The dependency file.
        artifact_root: The model's files, which the dependency file may name.
        prefix: Where the environment lies in the image, or the folder that it's made in.
        target: The platform, the C library and the Python, as words.
    """

    kind: str
    file: Path
    artifact_root: Path
    prefix: PurePosixPath
    target: tuple[str, ...]

    def key(self, settings: Settings) -> str:
        """Return 64 hex digits that change when anything changes that the environment is made of.

        Raises:
            OSError: The file can't be read.
        """
        text = self.file.read_bytes()
        parts: list[Any] = [_SCHEMA_VERSION, __version__, self.kind, self.file.name, str(self.prefix), *self.target]
        parts += [hashlib.sha256(text).hexdigest(), _settings(settings)]
        if _names_files(text):
            parts += sorted(_digests(self.artifact_root))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _settings(settings: Settings) -> list[str]:
    """Return what of the settings counts; never a secret, not even hashed: the key stands in a registry."""
    secrets = [settings.pip_index_url, *settings.pip_extra_index_urls, *settings.pip_find_links]
    return [
        settings.conda_channel_alias,
        *settings.conda_default_channels,
        settings.default_python,
        *(without_credentials(secret.get_secret_value()) for secret in secrets if secret),
        str(settings.source_date_epoch),
        settings.layer_compression,
        settings.image_format,
    ]


def _names_files(text: bytes) -> bool:
    """Tell whether a line may name a file beside it; when in doubt, yes."""
    for line in decode(text, "replace").splitlines():
        word = line.strip()
        if word.startswith(_NOT_READ):
            continue
        if (
            _OPTION.search(word)
            or word.lstrip("- '\"").startswith(".")
            or any(mark in _URL.sub("", word).lower() for mark in _PLACES)
        ):
            return True
    return False


def _digests(root: Path) -> Iterable[str]:
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            yield f"{path.relative_to(root)} {digest.hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class RegistryCache:
    """The environments kept in one repository."""

    repository: Reference
    access: RegistryAccess
    max_age: timedelta
    _unreachable: Event = field(default_factory=Event, init=False, repr=False, compare=False)

    def find(self, key: str, *, now: datetime | None = None) -> Dependencies | None:
        """Return the dependencies that were kept under a key, when they are whole and young enough."""
        try:
            artifact = self._artifacts().read(f"environment-{key}")
        except RegistryError as error:
            if isinstance(error, RegistryUnreachableError):
                self._unreachable.set()
            log.warning("the environments kept in %s can't be read, and are not used: %s", self._name(), error.message)
            return None
        if artifact is None:
            return None
        try:
            found = self._read(key, artifact)
            age = _age(artifact.document["solvedAt"], now or datetime.now(timezone.utc))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            log.warning("the environment kept in %s is not what it should be, and not used: %s", self._name(), error)
            return None
        if age >= self.max_age:
            log.info("the lock of the last solve is %s old: solving anew", _words(age))
            return None
        log.info("unchanged dependencies: the environment in %s is used, solved %s ago", self._name(), _words(age))
        return found

    def save(self, key: str, dependencies: Dependencies, layer: StoredLayer) -> None:
        """Keep an environment whose layer was delivered; what goes wrong is said, and no failure.

        Where nobody answered when it was looked for, nobody is asked again.
        """
        if self._unreachable.is_set():
            return
        document = {
            "schemaVersion": _SCHEMA_VERSION,
            "key": key,
            "solvedAt": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "python": dependencies.python,
            "pythonVersion": dependencies.python_version,
            "prefix": str(dependencies.prefix),
            "packages": str(dependencies.packages) if dependencies.packages else None,
            "variables": [list(pair) for pair in dependencies.variables],
            "lock": dependencies.lock,
            "lockDigest": dependencies.lock_digest,
            "diffId": layer.diff_id,
        }
        try:
            artifact = RegistryArtifact(document=document, blobs=(layer.descriptor,))
            self._artifacts().write(f"environment-{key}", artifact, source=layer.repository)
        except RegistryError as error:
            log.warning("the environment can't be kept for the next run: %s", error.message)

    def _read(self, key: str, artifact: RegistryArtifact) -> Dependencies:
        document = artifact.document
        if document["schemaVersion"] != _SCHEMA_VERSION or document["key"] != key:
            raise ValueError("it was kept for something else")
        (descriptor,) = artifact.blobs
        if not descriptor.size or descriptor.media_type not in _LAYERS:
            raise ValueError("its layer is none")
        packages, python = document["packages"], str(document["python"])
        if not (python.startswith("/") or python == "python3") or not _VERSION.fullmatch(document["pythonVersion"]):
            raise ValueError("its Python is none")
        for name, value in document["variables"]:
            if not _VARIABLE.fullmatch(name) or "\0" in value:
                raise ValueError("one of its variables is none")
        return Dependencies(
            python=python,
            python_version=str(document["pythonVersion"]),
            stored=StoredLayer(
                name=ENVIRONMENT_LAYER,
                descriptor=descriptor,
                diff_id=checked_digest(document["diffId"]),
                repository=self.repository,
            ),
            prefix=PurePosixPath(document["prefix"]),
            packages=PurePosixPath(packages) if packages else None,
            variables=tuple((str(name), str(value)) for name, value in document["variables"]),
            lock=str(document["lock"]),
            lock_digest=str(document["lockDigest"]),
        )

    def _artifacts(self) -> ArtifactStore:
        return ArtifactStore(repository=self.repository, access=self.access, kind=KIND)

    def _name(self) -> str:
        return self.repository.repository


def _age(solved: str, now: datetime) -> timedelta:
    age = now - datetime.fromisoformat(solved)
    if age < -_SKEW:
        raise ValueError("it was solved in the future")
    return max(age, timedelta())


def _words(age: timedelta) -> str:
    hours = int(age.total_seconds() // 3600)
    if hours < 1:
        return f"{int(age.total_seconds() // 60)} min"
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"  # noqa: PLR2004
