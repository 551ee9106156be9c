"""Uploading a plan's layers, without those that the destination already has.

A layer's digest is known only after all of it was read, so looking for a layer before sending it means reading it
twice. A fingerprint costs almost nothing: a run stores one for each large layer in the cache repository. A later run
that finds the fingerprint looks for the layer first; one that finds none sends the layer at once. Fingerprints decide
nothing else: a wrong one costs time only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from packager.engines.oci.image import LayerOnTop
from packager.errors import BuildError, ImageNotFoundError, RegistryError, RegistryUnreachableError
from packager.image.plan import StoredLayer
from packager.models.image import Descriptor
from packager.registry.artifacts import ArtifactStore, RegistryArtifact
from packager.registry.blobs import RemoteBlob
from packager.registry.client import Repository
from packager.sources.file_list import Kind
from packager.sources.zip_member import ZipMember

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from packager.engines.oci.destinations import Sink
    from packager.engines.oci.workers import Workers
    from packager.image.layers.blob import LayerBlob
    from packager.image.layers.entries import LayerEntry
    from packager.image.plan import ImagePlan
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


@dataclass(frozen=True, kw_only=True)
class PlanBlob:
    """A layer's blob as the uploads take it."""

    blob: LayerBlob

    def stream(self) -> Iterator[bytes]:
        """Give the bytes.

        Raises:
            BuildError: They aren't those that were read before.
        """
        known, given = self.blob.facts, 0
        for chunk in self.blob.stream():
            given += len(chunk)
            if known is not None and given > known.size:
                raise self._changed()
            yield chunk
        if known is not None and self.blob.facts != known:
            raise self._changed()

    def _changed(self) -> BuildError:
        return BuildError(
            f"a file of the layer {self.blob.name} was changed while it was read",
            hint="let nothing write into the model's folder while it's packaged",
        )

    def descriptor(self) -> Descriptor | None:
        """Return what they are, once they were read."""
        facts = self.blob.facts
        if facts is None:
            return None
        return Descriptor(media_type=self.blob.media_type, digest=facts.digest, size=facts.size)


class LayerUploader:
    """Brings the layers of one plan to one place."""

    def __init__(  # noqa: PLR0913, PLR0917  (what layers are, and where and how they are brought)
        self,
        plan: ImagePlan,
        blobs: Iterable[LayerBlob],
        sink: Sink,
        workers: Workers,
        access: RegistryAccess,
        fingerprints: LayerFingerprints | None = None,
    ) -> None:
        """Take the plan and the blobs of the layers in it that are to be made; nothing is brought yet.

        Without fingerprints nothing is looked for before it is sent: the place is a new one.
        """
        self._plan = plan
        self._hints = fingerprints
        self._sink = sink
        self._workers = workers
        self._access = access
        self._blobs = iter(blobs)

    def carries(self) -> Iterator[Callable[[], LayerOnTop]]:
        """Give a piece of work for each layer, the lowest first."""
        for step in self._plan.steps:
            if isinstance(step, StoredLayer):
                yield partial(self._take_over, step)
            else:
                yield partial(self._carry, next(self._blobs))

    def _carry(self, blob: LayerBlob) -> LayerOnTop:
        source = PlanBlob(blob=blob)
        stoppable = self._workers.stoppable(source)
        hint = self._hints.of(blob) if self._hints is not None else None
        if hint is not None and hint.may_be_there():
            for _chunk in stoppable.stream():  # what it is must be known before it can be asked for
                pass
            known = source.descriptor()
            if known is not None and blob.facts is not None and self._sink.has(known.digest):
                log.info("layer %s: unchanged", blob.name)
                return LayerOnTop(name=blob.name, descriptor=known, diff_id=blob.facts.diff_id)
        known = self._sink.send(stoppable)
        if blob.facts is None:
            raise BuildError(f"the layer {blob.name} ended before all of it was read")
        log.info("layer %s: %d bytes sent", blob.name, known.size)
        if hint is not None:
            hint.remember(known)
        return LayerOnTop(name=blob.name, descriptor=known, diff_id=blob.facts.diff_id)

    def _take_over(self, step: StoredLayer) -> LayerOnTop:
        digest = step.descriptor.digest
        if self._sink.has(digest):
            log.info("layer %s: unchanged", step.name)
        else:
            with closing(Repository(step.repository, self._access)) as repository:
                blob = self._workers.stoppable(RemoteBlob(source=repository, known=step.descriptor))
                try:
                    copied = self._sink.take(blob, digest, step.repository)
                except ImageNotFoundError as error:
                    raise RegistryError(
                        f"the layer {step.name} was removed from {step.repository.repository} during this run",
                        hint="run it again: the layer is then made anew",
                    ) from error
            log.info("layer %s: %s", step.name, "copied" if copied else "taken over in the registry")
        return LayerOnTop(name=step.name, descriptor=step.descriptor, diff_id=step.diff_id)
