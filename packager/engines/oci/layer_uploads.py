"""Bringing a plan's own layers: what is where the image goes already is found out first, and not sent."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from packager.engines.oci.image import LayerOnTop
from packager.errors import BuildError, ImageNotFoundError, RegistryError
from packager.image.plan import StoredLayer
from packager.models.image import Descriptor
from packager.registry.blobs import RemoteBlob
from packager.registry.client import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from packager.engines.oci.destinations import Sink
    from packager.engines.oci.layer_fingerprints import LayerFingerprints
    from packager.engines.oci.workers import Workers
    from packager.image.layers.blob import LayerBlob
    from packager.image.plan import ImagePlan
    from packager.registry.access import RegistryAccess

log = logging.getLogger(__name__)


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
