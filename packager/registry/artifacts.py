"""Small documents kept in a registry for later runs, each under a tag, with the blobs that they speak of.

A note is an OCI manifest (github.com/opencontainers/image-spec, manifest.md, "Guidelines for Artifact Usage"): its
config is the document, its layers keep the blobs from the registry's garbage collection.
"""

from __future__ import annotations

import json
import logging
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from packager.errors import ImageNotFoundError, RegistryError
from packager.models.image import OCI_MANIFEST, Descriptor, digest_of
from packager.registry.client import Repository
from packager.registry.remote_blob import RemoteBlob
from packager.registry.uploads import BytesBlob, Uploads

if TYPE_CHECKING:
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess

log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds of further attempts


@dataclass(frozen=True, kw_only=True)
class RegistryArtifact:
    """A document, and the blobs that lie beside it."""

    document: dict[str, Any]
    blobs: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ArtifactStore:
    """The notes in one repository.

    Attributes:
        repository: Where they lie; its tag doesn't matter.
        access: How its registry is reached.
        kind: The media type of the documents.
    """

    repository: Reference
    access: RegistryAccess
    kind: str

    def read(self, tag: str) -> RegistryArtifact | None:
        """Return a note whose blobs are all there, or None.

        One that was written without blobs has its own document as its blob.

        Raises:
            RegistryError: It can't be read, or is no artifact.
        """
        reference = replace(self.repository, tag=tag, digest=None)
        try:
            with closing(Repository(reference, _impatient(self.access))) as repository:
                _, manifest = repository.manifest(tag)
                config = Descriptor.from_dict(manifest["config"])
                blobs = tuple(Descriptor.from_dict(layer) for layer in manifest["layers"])
                if config.media_type != self.kind:
                    raise RegistryError(f"{reference} is no note of ours")
                document = repository.document(config)
                for blob in blobs:
                    if repository.size(blob.digest) != blob.size:
                        log.info("%s speaks of a blob that is no longer there", reference)
                        return None
        except ImageNotFoundError:
            return None
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RegistryError(f"{reference} is not what a note should be: {type(error).__name__}") from error
        return RegistryArtifact(document=document, blobs=blobs)

    def write(self, tag: str, artifact: RegistryArtifact, *, source: Reference) -> None:
        """Keep a artifact, and its blobs, which lie in the repository `source` of the same registry or another.

        Where the registry doesn't take a blob over from there by itself, it's copied.

        Raises:
            RegistryError: It can't be kept, or a blob can't be taken over.
        """
        data = json.dumps(artifact.document, sort_keys=True).encode()
        config = Descriptor(media_type=self.kind, digest=digest_of(data), size=len(data))
        with closing(Uploads(self.repository, _impatient(self.access))) as uploads:
            for blob in artifact.blobs:
                if not uploads.has(blob.digest) and not uploads.mount(blob.digest, source):
                    with closing(Repository(source, self.access)) as repository:
                        uploads.send(RemoteBlob(source=repository, known=blob))
            if not uploads.has(config.digest):
                uploads.send(BytesBlob(data=data, known=config))
            manifest = {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": config.to_dict(),
                "layers": [blob.to_dict() for blob in artifact.blobs or (config,)],  # there should be one (manifest.md)
            }
            uploads.put_manifest(tag, json.dumps(manifest, sort_keys=True).encode(), OCI_MANIFEST)


def _impatient(access: RegistryAccess) -> RegistryAccess:
    """Return how a registry is reached that may be given up soon: a note only saves time."""
    return replace(access, trust=replace(access.trust, retry_seconds=min(access.trust.retry_seconds, _PATIENCE)))
