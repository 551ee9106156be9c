"""Pushing an image out of an OCI layout, request by request: github.com/opencontainers/image-spec, image-layout.md."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packager.models.image import Descriptor, blob_path
from packager.registry.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess

_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FileBlob:
    """A blob in a file."""

    path: Path
    known: Descriptor

    def stream(self) -> Iterator[bytes]:
        """Give the bytes."""
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def descriptor(self) -> Descriptor:
        """Return what they are."""
        return self.known


def push_layout(layout: Path, reference: Reference, access: RegistryAccess) -> str:
    """Upload the one image of a layout that we made, and return its digest.

    Raises:
        RegistryAuthError, RegistryUnreachableError, RegistryError: It couldn't be pushed; the tag is as it was.
    """
    entry = Descriptor.from_dict(json.loads((layout / "index.json").read_bytes())["manifests"][0])
    data = (layout / blob_path(entry.digest)).read_bytes()
    manifest = json.loads(data)
    with closing(Uploads(reference, access)) as uploads:
        for document in (*manifest["layers"], manifest["config"]):
            blob = Descriptor.from_dict(document)
            if not uploads.has(blob.digest):
                uploads.send(FileBlob(path=layout / blob_path(blob.digest), known=blob))
        return uploads.put_manifest(reference.tag or entry.digest, data, entry.media_type)
