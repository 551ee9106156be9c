"""Where an image goes, blob by blob and the manifest last: a registry, or an OCI layout on this machine."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from packager.errors import BuildError
from packager.models.image import CONTAINERD_NAME, REF_NAME
from packager.registry.blobs import BytesBlob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.engines.oci.image import Document
    from packager.models.image import Descriptor
    from packager.models.reference import Reference
    from packager.registry.blobs import BlobSource
    from packager.registry.uploads import Uploads


class Sink(Protocol):
    """What takes an image's blobs."""

    def has(self, digest: str) -> bool:
        """Tell whether a blob is there already."""

    def take(self, blob: BlobSource, digest: str, origin: Reference | None) -> bool:
        """Bring a blob that isn't there from where it lies; False where its bytes didn't have to pass through us."""

    def send(self, blob: BlobSource) -> Descriptor:
        """Bring a blob that isn't there."""

    def finish(self, config: Document, manifest: Document) -> None:
        """Bring the config, then name the image; only now can anybody see it."""


class RegistrySink:
    """A repository of a registry. A `Sink`."""

    def __init__(self, uploads: Uploads) -> None:
        """Take the repository."""
        self._uploads = uploads
        self._reference: Reference = uploads.reference

    def has(self, digest: str) -> bool:
        """Ask the registry."""
        return self._uploads.has(digest)

    def take(self, blob: BlobSource, digest: str, origin: Reference | None) -> bool:
        """Let the registry take the blob over from another of its repositories; else copy it."""
        if origin is not None and self._uploads.mount(digest, origin):
            return False
        self.send(blob)
        return True

    def send(self, blob: BlobSource) -> Descriptor:
        """Upload the blob."""
        return self._uploads.send(blob)

    def finish(self, config: Document, manifest: Document) -> None:
        """Upload the config, then put the manifest under the tag."""
        if not self.has(config.descriptor.digest):
            self.send(BytesBlob(data=config.data, known=config.descriptor))
        name = self._reference.tag or manifest.descriptor.digest
        self._uploads.put_manifest(name, manifest.data, manifest.descriptor.media_type)


class LayoutSink:
    """A new OCI layout in a private folder. A `Sink`."""

    def __init__(self, folder: Path, reference: Reference) -> None:
        """Name the folder, which is made, and the image."""
        self.folder = folder
        self._name = reference.tagged
        self._blobs = folder / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        for made in (folder, self._blobs.parent, self._blobs):
            made.chmod(0o755)  # whatever the umask

    def has(self, digest: str) -> bool:
        """Look for the file."""
        return self._path(digest).exists()

    def take(self, blob: BlobSource, digest: str, origin: Reference | None) -> bool:  # noqa: ARG002  (the Protocol's)
        """Copy the blob."""
        self.send(blob)
        return True

    def send(self, blob: BlobSource) -> Descriptor:
        """Write the blob beside its place, and move it there when it's whole."""
        with self._new_file() as (stream, fresh):
            for chunk in blob.stream():
                stream.write(chunk)
            stream.flush()
            descriptor = blob.descriptor()
            if descriptor is None:
                raise BuildError("a layer ended before all of it was read")
            fresh.replace(self._path(descriptor.digest))
        return descriptor

    def finish(self, config: Document, manifest: Document) -> None:
        """Write the documents and the layout's index."""
        for document in (config, manifest):
            self.send(BytesBlob(data=document.data, known=document.descriptor))
        entry = {**manifest.descriptor.to_dict(), "annotations": {REF_NAME: self._name, CONTAINERD_NAME: self._name}}
        index = {"schemaVersion": 2, "manifests": [entry]}
        (self.folder / "index.json").write_text(json.dumps(index))
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        for name in ("index.json", "oci-layout"):
            (self.folder / name).chmod(0o644)

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    @contextmanager
    def _new_file(self) -> Iterator[tuple[IO[bytes], Path]]:
        """Give a file that is gone at the end of the block unless it was moved."""
        handle, name = tempfile.mkstemp(dir=self._blobs, prefix=".")
        try:
            with os.fdopen(handle, "wb") as stream:
                os.fchmod(handle, 0o644)
                yield stream, Path(name)
        finally:
            Path(name).unlink(missing_ok=True)
