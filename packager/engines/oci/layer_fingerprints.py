"""Which large layers the registry may have already: whether to look before they are sent.

A layer's digest is known when all of it was read, so whoever wants to ask for it first reads it twice. A fingerprint
costs next to nothing: with it a run leaves a note of each large layer in the cache repository. A later run that finds
the note looks first, and one that finds none sends at once. A note decides nothing else: a wrong one costs time only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from packager.errors import RegistryError, RegistryUnreachableError
from packager.registry.artifacts import ArtifactStore, RegistryArtifact
from packager.sources.file_list import Kind
from packager.sources.zip_member import ZipMember

if TYPE_CHECKING:
    from packager.image.layers.blob import LayerBlob
    from packager.image.layers.entries import LayerEntry
    from packager.models.image import Descriptor
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess

log = logging.getLogger(__name__)

KIND = "application/vnd.odahu.packager.layer.v1+json"
LARGE = 32 << 20  # bytes; what is smaller is read twice in less time than a note takes
_SAMPLED = 1 << 20  # bytes; of a smaller file its size has to do, an environment has ten thousand of them
_SAMPLE = 64 << 10  # bytes, at the start, in the middle and at the end of a file


@dataclass(frozen=True, kw_only=True)
class LayerFingerprints:
    """The notes of large layers; without a repository, every layer may be there.

    Attributes:
        repository: Where the notes are kept; None where nothing is.
        access: How its registry is reached.
    """

    repository: Reference | None
    access: RegistryAccess
    _given_up: Event = field(default_factory=Event, init=False, repr=False, compare=False)

    def of(self, blob: LayerBlob) -> LayerFingerprint:
        """Return the hint of one layer."""
        noted = self.repository is not None and sum(entry.size for entry in blob.entries) >= LARGE
        artifacts = (
            ArtifactStore(repository=self.repository, access=self.access, kind=KIND)
            if noted and self.repository
            else None
        )
        return LayerFingerprint(blob=blob, artifacts=artifacts, given_up=self._given_up)


@dataclass(frozen=True, kw_only=True)
class LayerFingerprint:
    """What is known of one layer without reading all of it.

    Attributes:
        blob: The layer.
        artifacts: Where its note is kept; None where none is.
        given_up: Set when nobody answers there; shared by all layers of a run.
    """

    blob: LayerBlob
    artifacts: ArtifactStore | None
    given_up: Event

    def may_be_there(self) -> bool:
        """Tell whether to look for the layer before it is sent."""
        if self.artifacts is None or self.given_up.is_set():
            return True
        try:
            return self.artifacts.read(self._tag) is not None
        except OSError as error:  # what reads all of the layer says it better
            log.debug("the layer %s has no fingerprint: %s", self.blob.name, error)
        except RegistryError as error:
            if isinstance(error, RegistryUnreachableError):
                self.given_up.set()
            log.info("the notes in %s can't be read: %s", self.artifacts.repository, error.message)
        return True

    def remember(self, descriptor: Descriptor) -> None:
        """Leave a note of the layer, which was sent; what goes wrong is said, and no failure."""
        if self.artifacts is None or self.given_up.is_set():
            return
        try:
            artifact = RegistryArtifact(document={"digest": descriptor.digest})
            self.artifacts.write(self._tag, artifact, source=self.artifacts.repository)
        except (OSError, RegistryError) as error:
            log.info("no note of the layer %s can be kept: %s", self.blob.name, error)

    @cached_property
    def _tag(self) -> str:
        return f"layer-{fingerprint(self.blob)}"


def fingerprint(blob: LayerBlob) -> str:
    """Return hex digits that are equal for equal layers, and for hardly any others."""
    rows = [
        [entry.path, entry.kind.value, entry.mode, entry.size, entry.target, _sample(entry)] for entry in blob.entries
    ]
    facts = [blob.media_type, blob.timestamp, rows]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _sample(entry: LayerEntry) -> str:
    if entry.kind is not Kind.FILE:
        return ""
    if isinstance(entry.source, ZipMember):
        return f"crc32:{entry.source.crc}"
    if isinstance(entry.source, Path) and entry.size >= _SAMPLED:
        digest = hashlib.sha256()
        with entry.source.open("rb") as file:
            for start in (0, max(0, entry.size // 2 - _SAMPLE // 2), max(0, entry.size - _SAMPLE)):
                file.seek(start, os.SEEK_SET)
                digest.update(file.read(_SAMPLE))
        return digest.hexdigest()
    return hashlib.sha256(entry.source).hexdigest() if isinstance(entry.source, bytes) else ""
