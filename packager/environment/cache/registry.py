"""The cache of environments in a registry: an unchanged environment is not solved, linked or uploaded again.

The cache key covers everything that determines an environment's bytes: the model's dependency file and the files that
it may include, the platform, the path in the image, the settings, and the packager's version. An entry holds the
layer's descriptor and the lock.
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
_SCHEMA_VERSION = 1  # of the entry's document
# pip options with a file as value; anywhere in a line, as a YAML list may be on one line.
_OPTION = re.compile(r"(?<![\w.-])-(?:r|c|e|f|-req|-con|-edit|-find)")
_PLACES = ("/", "file:", ".whl", ".tar", ".zip")
_URL = re.compile(r"(?!file:)\b[\w+]+://[^\s,'\"\]}]+", re.IGNORECASE)
_LAYERS = frozenset(
    {f"application/vnd.oci.image.layer.v1.tar{form}" for form in ("", "+gzip", "+zstd")}
    | {f"application/vnd.docker.image.rootfs.diff.tar{form}" for form in ("", ".gzip")}
)
_VERSION = re.compile(r"3\.\d{1,3}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SKEW = timedelta(days=1)  # allowed difference of two machines' clocks
_NOT_READ = ("#", "prefix:")  # comments, and the path written by `conda env export`


@dataclass(frozen=True, kw_only=True)
class CacheInputs:
    """The inputs of an environment.

    Attributes:
        kind: `conda` or `pip`.
        file: The dependency file.
        artifact_root: The model's files, which the dependency file may refer to.
        prefix: The environment's folder in the image, or its parent.
        target: The platform, the glibc version and the Python version, and further inputs as text.
    """

    kind: str
    file: Path
    artifact_root: Path
    prefix: PurePosixPath
    target: tuple[str, ...]

    def key(self, settings: Settings) -> str:
        """Return the cache key: 64 hex digits, different for any different input.

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
    """Return the settings that affect an environment; never a secret, not even hashed, as registries show keys."""
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
    """Return whether a dependency file may refer to other files; True when in doubt."""
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
    """The cache of environments in one repository."""

    repository: Reference
    access: RegistryAccess
    max_age: timedelta
    _unreachable: Event = field(default_factory=Event, init=False, repr=False, compare=False)

    def find(self, key: str, *, now: datetime | None = None) -> Dependencies | None:
        """Return the cached dependencies of a key, or None if they are missing, invalid or too old."""
        try:
            artifact = self._artifacts().read(f"environment-{key}")
        except RegistryError as error:
            if isinstance(error, RegistryUnreachableError):
                self._unreachable.set()
            log.warning("cannot read the environment cache %s; installing: %s", self._name(), error.message)
            return None
        if artifact is None:
            return None
        try:
            found = self._read(key, artifact)
            age = _age(artifact.document["solvedAt"], now or datetime.now(timezone.utc))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            log.warning("ignoring an invalid entry of the environment cache %s: %s", self._name(), error)
            return None
        if age >= self.max_age:
            log.info("the cached lock is %s old: solving again", _format_age(age))
            return None
        log.info("unchanged dependencies: using the environment in %s, solved %s ago", self._name(), _format_age(age))
        return found

    def save(self, key: str, dependencies: Dependencies, layer: StoredLayer) -> None:
        """Cache an environment whose layer was delivered; errors are logged only.

        Does nothing if the registry was unreachable in `find`.
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
            log.warning("cannot cache the environment for the next run: %s", error.message)

    def _read(self, key: str, artifact: RegistryArtifact) -> Dependencies:
        document = artifact.document
        if document["schemaVersion"] != _SCHEMA_VERSION or document["key"] != key:
            raise ValueError("it has another schema version or key")
        (descriptor,) = artifact.blobs
        if not descriptor.size or descriptor.media_type not in _LAYERS:
            raise ValueError("invalid layer descriptor")
        packages, python = document["packages"], str(document["python"])
        if not (python.startswith("/") or python == "python3") or not _VERSION.fullmatch(document["pythonVersion"]):
            raise ValueError("invalid Python")
        for name, value in document["variables"]:
            if not _VARIABLE.fullmatch(name) or "\0" in value:
                raise ValueError("invalid environment variable")
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


def _format_age(age: timedelta) -> str:
    hours = int(age.total_seconds() // 3600)
    if hours < 1:
        return f"{int(age.total_seconds() // 60)} min"
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"  # noqa: PLR2004
