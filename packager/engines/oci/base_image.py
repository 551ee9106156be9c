"""The base image: its documents and layers, in a registry or an OCI layout, and its folders.

The layout's format: github.com/opencontainers/image-spec, image-layout.md.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from packager.errors import BuildError, ImageNotFoundError
from packager.image.layers.entries import LayerEntry
from packager.image.plan import Layer
from packager.models.image import OCI_MANIFEST, REF_NAME, Descriptor, RemoteImage, blob_path, digest_of
from packager.registry.blobs import LayerStream
from packager.registry.client import find_image
from packager.sources.file_list import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packager.image.plan import BaseFolder, ImagePlan
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.registry.blobs import LayerSource

_MAX_BYTES = 4 << 20  # of a document
_CHUNK = 1 << 20


class OpenedBase:
    """A base image whose documents were read.

    Attributes:
        image: Its documents.
        layers: The source of its layers.
        origin: Its repository; None for a layout.
    """

    def __init__(self, image: RemoteImage, layers: LayerSource, origin: Reference | None) -> None:
        """Store the attributes."""
        self.image = image
        self.layers = layers
        self.origin = origin


@contextmanager
def open_base(reference: Reference, access: RegistryAccess, architecture: str) -> Iterator[OpenedBase]:
    """Open the base image of an architecture (`amd64`) in its registry, a mirror or a layout.

    Raises:
        ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: It can't be read.
        BuildError: The layout can't be read.
    """
    if reference.layout:
        layout = _open_layout(reference.layout)
        yield OpenedBase(layout.image(reference, architecture), layout, None)
        return
    with find_image(reference, access, architecture) as (repository, image):
        yield OpenedBase(image, repository, repository.reference)


class _Layout:
    """An OCI layout: a folder, or a tar archive of one."""

    def __init__(self, name: str) -> None:
        self._name = name
        transport, _, path = name.partition(":")
        self._path = Path(path)
        self._packed = transport == "oci-archive"

    def image(self, reference: Reference, architecture: str) -> RemoteImage:
        try:
            descriptor = self._choose(self._json("index.json", self._read("index.json")), reference.tag)
            document = self._document(descriptor)
            for _ in range(2):  # nested indexes, as written by `docker buildx`
                if "manifests" in document:
                    descriptor = self._of_platform(document, architecture)
                    document = self._document(descriptor)
            config = Descriptor.from_dict(document["config"])
            layers = tuple(Descriptor.from_dict(layer) for layer in document["layers"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._broken("has an index or a manifest of an unsupported kind") from error
        return RemoteImage(
            digest=descriptor.digest,
            media_type=str(document.get("mediaType") or OCI_MANIFEST),
            config=self._document(config),
            layers=layers,
        )

    @contextmanager
    def layer(self, blob: Descriptor) -> Iterator[LayerStream]:
        """Open a layer's bytes; their digest is verified at the end."""
        with self._open(blob_path(blob.digest)) as file:
            stream = LayerStream(iter(lambda: file.read(_CHUNK), b""))
            yield stream
            if stream.digest() != blob.digest:
                raise self._broken(f"has a layer that isn't {blob.digest}")

    def _choose(self, index: dict[str, Any], tag: str | None) -> Descriptor:
        entries = index.get("manifests") or []
        named = [entry for entry in entries if (entry.get("annotations") or {}).get(REF_NAME) == tag]
        found = named if tag else entries
        if len(found) != 1:
            names = ", ".join(str((entry.get("annotations") or {}).get(REF_NAME)) for entry in entries)
            raise ImageNotFoundError(
                f"{self._name} has {len(found)} matching images; it contains: {names or 'no images'}",
                hint="select one with oci:DIR:NAME or oci-archive:FILE:NAME",
            )
        return Descriptor.from_dict(found[0])

    def _of_platform(self, document: dict[str, Any], architecture: str) -> Descriptor:
        for entry in document["manifests"]:
            platform = entry.get("platform") or {}
            if platform.get("architecture", architecture) == architecture and platform.get("os", "linux") == "linux":
                return Descriptor.from_dict(entry)
        raise ImageNotFoundError(
            f"{self._name} has no image for linux/{architecture}", hint="check dockerfileBaseImage and the platform"
        )

    def _document(self, descriptor: Descriptor) -> dict[str, Any]:
        data = self._read(blob_path(descriptor.digest))
        if digest_of(data) != descriptor.digest:
            raise self._broken(f"has a damaged blob {descriptor.digest}")
        return self._json(descriptor.digest, data)

    def _json(self, name: str, data: bytes) -> dict[str, Any]:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._broken(f"has invalid JSON in {name}") from error
        if not isinstance(document, dict):
            raise self._broken(f"has no JSON object in {name}")
        return document

    def _read(self, path: str) -> bytes:
        with self._open(path) as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise self._broken(f"has a document of more than {_MAX_BYTES} bytes: {path}")
        return data

    @contextmanager
    def _open(self, path: str) -> Iterator[IO[bytes]]:
        with ExitStack() as stack:
            try:
                if self._packed:
                    # Opened each time: threads can't share a tarfile, and its few headers are read quickly.
                    archive = stack.enter_context(tarfile.open(self._path))
                    file = archive.extractfile(_member(archive, path))
                else:
                    file = stack.enter_context((self._path / path).open("rb"))
            except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
                raise self._broken(f"has no {path}") from error
            if file is None:
                raise self._broken(f"has no file {path}")
            yield file

    def _broken(self, problem: str) -> BuildError:
        return BuildError(f"the base image {self._name} {problem}", hint="use a complete OCI layout")


def _member(archive: tarfile.TarFile, path: str) -> tarfile.TarInfo:
    try:
        return archive.getmember(path)
    except KeyError:
        return archive.getmember(f"./{path}")  # as written by `tar -C layout .`


def _open_layout(name: str) -> _Layout:
    transport, _, text = name.partition(":")
    path = Path(text)
    try:
        if transport == "oci-archive":
            with tarfile.open(path):
                pass
        else:
            path.stat()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageNotFoundError(
            f"the base image {name} can't be opened: {reason}", hint="use a folder or archive with an OCI layout"
        ) from error
    return _Layout(name)


_MAX_LINKS = 40  # as the kernel's own limit (path_resolution(7))


def folder_entries(folders: Iterable[BaseFolder]) -> list[LayerEntry]:
    """Return the base image's folders as layer entries."""
    return [
        LayerEntry(path=folder.path, kind=Kind.FOLDER, mode=folder.mode, uid=folder.uid, gid=folder.gid)
        for folder in folders
        if not folder.target
    ]


def follow_links(plan: ImagePlan) -> ImagePlan:
    """Return the plan with destinations resolved through the base image's symbolic links.

    As a Dockerfile's COPY does: Buildah keeps mode and owner of existing folders, and follows links to folders.
    """
    links = {folder.path: folder.target for folder in plan.base.folders if folder.target}
    if not links:
        return plan
    steps = tuple(_moved(step, links) if isinstance(step, Layer) else step for step in plan.steps)
    return replace(plan, steps=steps)


def _moved(layer: Layer, links: Mapping[str, str]) -> Layer:
    contents = tuple(
        replace(content, destination=_followed(content.destination.parent, links) / content.destination.name)
        if content.is_file or not isinstance(content.source, Path)
        else replace(content, destination=_followed(content.destination, links))
        for content in layer.contents
    )
    return layer if contents == layer.contents else replace(layer, contents=contents)


def _followed(path: PurePosixPath, links: Mapping[str, str]) -> PurePosixPath:
    """Follow the known links, at most `_MAX_LINKS`."""
    done: list[str] = []
    waiting = list(reversed(path.parts[1:]))
    followed = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del done[-1:]
            continue
        target = links.get("/".join([*done, part]))
        if target is None or followed == _MAX_LINKS:
            done.append(part)
            continue
        followed += 1
        if target.startswith("/"):
            done = []
        waiting += [word for word in reversed(target.split("/")) if word not in {"", "."}]
    return PurePosixPath("/", *done)
