"""Small JSON documents kept in a registry for later runs, each under a tag, with the blobs that they name.

An artifact is an OCI manifest (github.com/opencontainers/image-spec, manifest.md, "Guidelines for Artifact Usage"): its
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
from packager.registry.blobs import BytesBlob, RemoteBlob
from packager.registry.client import Repository
from packager.registry.uploads import Uploads

if TYPE_CHECKING:
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class RegistryArtifact:
    """A document, and the blobs that it names."""

    document: dict[str, Any]
    blobs: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ArtifactStore:
    """The artifacts in one repository.

    Attributes:
        repository: The repository; its tag doesn't matter.
        access: How its registry is reached.
        kind: The media type of the documents.
    """

    repository: Reference
    access: RegistryAccess
    kind: str

    def read(self, tag: str) -> RegistryArtifact | None:
        """Return an artifact whose blobs all exist, or None.

        One that was written without blobs has its own document as its blob.

        Raises:
            RegistryError: It can't be read, or has another format.
        """
        reference = replace(self.repository, tag=tag, digest=None)
        try:
            with closing(Repository(reference, _few_retries(self.access))) as repository:
                _, manifest = repository.manifest(tag)
                config = Descriptor.from_dict(manifest["config"])
                blobs = tuple(Descriptor.from_dict(layer) for layer in manifest["layers"])
                if config.media_type != self.kind:
                    raise RegistryError(f"{reference} is not an artifact of type {self.kind}")
                document = repository.document(config)
                for blob in blobs:
                    if repository.size(blob.digest) != blob.size:
                        log.info("%s names a blob that no longer exists", reference)
                        return None
        except ImageNotFoundError:
            return None
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RegistryError(f"{reference} is not a valid artifact: {type(error).__name__}") from error
        return RegistryArtifact(document=document, blobs=blobs)

    def write(self, tag: str, artifact: RegistryArtifact, *, source: Reference) -> None:
        """Store an artifact and its blobs, which are in the repository `source` of the same registry or another.

        A blob that can't be mounted from there is copied.

        Raises:
            RegistryError: It can't be stored.
        """
        data = json.dumps(artifact.document, sort_keys=True).encode()
        config = Descriptor(media_type=self.kind, digest=digest_of(data), size=len(data))
        with closing(Uploads(self.repository, _few_retries(self.access))) as uploads:
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
                "layers": [blob.to_dict() for blob in artifact.blobs or (config,)],  # at least one (manifest.md)
            }
            uploads.put_manifest(tag, json.dumps(manifest, sort_keys=True).encode(), OCI_MANIFEST)


def _few_retries(access: RegistryAccess) -> RegistryAccess:
    """Return the access with a short retry limit: an artifact only saves time."""
    return replace(access, trust=replace(access.trust, retry_seconds=min(access.trust.retry_seconds, _RETRY_SECONDS)))
