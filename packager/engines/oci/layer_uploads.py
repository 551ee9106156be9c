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

from packager.engines.oci.image import AddedLayer
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
LARGE = 32 << 20  # bytes; smaller layers are read twice faster than a fingerprint is looked up
_SAMPLED = 1 << 20  # bytes; for smaller files only the size counts, as an environment has ten thousand
_SAMPLE = 64 << 10  # bytes, at the start, in the middle and at the end of a file


@dataclass(frozen=True, kw_only=True)
class LayerFingerprints:
    """The fingerprints of large layers in the cache repository; without it, every layer may exist.

    Attributes:
        repository: The cache repository, or None.
        access: The access to its registry.
    """

    repository: Reference | None
    access: RegistryAccess
    _unreachable: Event = field(default_factory=Event, init=False, repr=False, compare=False)

    def of(self, blob: LayerBlob) -> LayerFingerprint:
        """Return the fingerprint of one layer."""
        noted = self.repository is not None and sum(entry.size for entry in blob.entries) >= LARGE
        artifacts = (
            ArtifactStore(repository=self.repository, access=self.access, kind=KIND)
            if noted and self.repository
            else None
        )
        return LayerFingerprint(blob=blob, artifacts=artifacts, unreachable=self._unreachable)


@dataclass(frozen=True, kw_only=True)
class LayerFingerprint:
    """The fingerprint of one layer.

    Attributes:
        blob: The layer.
        artifacts: The store of fingerprints, or None.
        unreachable: Set when the registry is unreachable; shared by all layers of a run.
    """

    blob: LayerBlob
    artifacts: ArtifactStore | None
    unreachable: Event

    def may_exist(self) -> bool:
        """Return whether the destination may have the layer, so that looking for it is worthwhile."""
        if self.artifacts is None or self.unreachable.is_set():
            return True
        try:
            return self.artifacts.read(self._tag) is not None
        except OSError as error:  # reading the whole layer gives a better error
            log.debug("the layer %s has no fingerprint: %s", self.blob.name, error)
        except RegistryError as error:
            if isinstance(error, RegistryUnreachableError):
                self.unreachable.set()
            log.info("cannot read the layer fingerprints in %s: %s", self.artifacts.repository, error.message)
        return True

    def store(self, descriptor: Descriptor) -> None:
        """Store the fingerprint of a layer that was sent; errors are logged only."""
        if self.artifacts is None or self.unreachable.is_set():
            return
        try:
            artifact = RegistryArtifact(document={"digest": descriptor.digest})
            self.artifacts.write(self._tag, artifact, source=self.artifacts.repository)
        except (OSError, RegistryError) as error:
            log.info("cannot store the fingerprint of layer %s: %s", self.blob.name, error)

    @cached_property
    def _tag(self) -> str:
        return f"layer-{fingerprint(self.blob)}"


def fingerprint(blob: LayerBlob) -> str:
    """Return hex digits that are equal for equal layers, and rarely for others."""
    rows = [
        [entry.path, entry.kind.value, entry.mode, entry.size, entry.target, _sample(entry)] for entry in blob.entries
    ]
    parts = [blob.media_type, blob.timestamp, rows]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


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
    """A `BlobSource` for a layer's blob."""

    blob: LayerBlob

    def stream(self) -> Iterator[bytes]:
        """Yield the bytes.

        Raises:
            BuildError: They differ from an earlier stream.
        """
        known, given = self.blob.info, 0
        for chunk in self.blob.stream():
            given += len(chunk)
            if known is not None and given > known.size:
                raise self._changed()
            yield chunk
        if known is not None and self.blob.info != known:
            raise self._changed()

    def _changed(self) -> BuildError:
        return BuildError(
            f"a file of the layer {self.blob.name} was changed while it was read",
            hint="don't write to the model's folder during the packaging",
        )

    def descriptor(self) -> Descriptor | None:
        """Return the blob's descriptor, or None before all of it was read."""
        info = self.blob.info
        if info is None:
            return None
        return Descriptor(media_type=self.blob.media_type, digest=info.digest, size=info.size)


class LayerUploader:
    """Uploads the layers of a plan to a destination."""

    def __init__(  # noqa: PLR0913, PLR0917  (the layers, the destination and the transfer)
        self,
        plan: ImagePlan,
        blobs: Iterable[LayerBlob],
        sink: Sink,
        workers: Workers,
        access: RegistryAccess,
        fingerprints: LayerFingerprints | None = None,
    ) -> None:
        """Use a plan and the blobs of its new layers; nothing is uploaded yet.

        Without fingerprints the destination is new, so layers are sent without looking for them.
        """
        self._plan = plan
        self._fingerprints = fingerprints
        self._sink = sink
        self._workers = workers
        self._access = access
        self._blobs = iter(blobs)

    def uploads(self) -> Iterator[Callable[[], AddedLayer]]:
        """Yield the work for each layer, the lowest first."""
        for step in self._plan.steps:
            if isinstance(step, StoredLayer):
                yield partial(self._reuse, step)
            else:
                yield partial(self._upload, next(self._blobs))

    def _upload(self, blob: LayerBlob) -> AddedLayer:
        source = PlanBlob(blob=blob)
        stoppable = self._workers.stoppable(source)
        fingerprint = self._fingerprints.of(blob) if self._fingerprints is not None else None
        if fingerprint is not None and fingerprint.may_exist():
            for _chunk in stoppable.stream():  # looking for it requires its digest
                pass
            known = source.descriptor()
            if known is not None and blob.info is not None and self._sink.has(known.digest):
                log.info("layer %s: unchanged", blob.name)
                return AddedLayer(name=blob.name, descriptor=known, diff_id=blob.info.diff_id)
        known = self._sink.send(stoppable)
        if blob.info is None:
            raise BuildError(f"the layer {blob.name} ended early")
        log.info("layer %s: %d bytes sent", blob.name, known.size)
        if fingerprint is not None:
            fingerprint.store(known)
        return AddedLayer(name=blob.name, descriptor=known, diff_id=blob.info.diff_id)

    def _reuse(self, step: StoredLayer) -> AddedLayer:
        digest = step.descriptor.digest
        if self._sink.has(digest):
            log.info("layer %s: unchanged", step.name)
        else:
            with closing(Repository(step.repository, self._access)) as repository:
                blob = self._workers.stoppable(RemoteBlob(source=repository, known=step.descriptor))
                try:
                    copied = self._sink.copy(blob, digest, step.repository)
                except ImageNotFoundError as error:
                    raise RegistryError(
                        f"the layer {step.name} was removed from {step.repository.repository} during this run",
                        hint="run it again to create the layer again",
                    ) from error
            log.info("layer %s: %s", step.name, "copied" if copied else "mounted in the registry")
        return AddedLayer(name=step.name, descriptor=step.descriptor, diff_id=step.diff_id)
