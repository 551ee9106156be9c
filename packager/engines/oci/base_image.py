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

_MOST_BYTES = 4 << 20  # of a document
_CHUNK = 1 << 20


class Base:
    """A base image that was found.

    Attributes:
        image: Its documents.
        layers: What gives its layers.
        origin: The repository it lies in; None for a layout.
    """

    def __init__(self, image: RemoteImage, layers: LayerSource, origin: Reference | None) -> None:
        """Keep them."""
        self.image = image
        self.layers = layers
        self.origin = origin


@contextmanager
def open_base(reference: Reference, access: RegistryAccess, architecture: str) -> Iterator[Base]:
    """Give the base image of an architecture (`amd64`), from its registry, a mirror of that, or a layout.

    Raises:
        ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: It can't be had.
        BuildError: The layout can't be read.
    """
    if reference.layout:
        layout = _open_layout(reference.layout)
        yield Base(layout.image(reference, architecture), layout, None)
        return
    with find_image(reference, access, architecture) as (repository, image):
        yield Base(image, repository, repository.reference)


class _Layout:
    """An OCI layout: a folder, or a tar of one."""

    def __init__(self, name: str) -> None:
        self._name = name
        transport, _, path = name.partition(":")
        self._path = Path(path)
        self._packed = transport == "oci-archive"

    def image(self, reference: Reference, architecture: str) -> RemoteImage:
        try:
            descriptor = self._choose(self._json("index.json", self._read("index.json")), reference.tag)
            document = self._document(descriptor)
            for _ in range(2):  # an index may name an index, as `docker buildx` writes it
                if "manifests" in document:
                    descriptor = self._of_platform(document, architecture)
                    document = self._document(descriptor)
            config = Descriptor.from_dict(document["config"])
            layers = tuple(Descriptor.from_dict(layer) for layer in document["layers"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._broken("has an index or a manifest of a kind that we can't read") from error
        return RemoteImage(
            digest=descriptor.digest,
            media_type=str(document.get("mediaType") or OCI_MANIFEST),
            config=self._document(config),
            layers=layers,
        )

    @contextmanager
    def layer(self, blob: Descriptor) -> Iterator[LayerStream]:
        """Give a layer's bytes, checked at the end."""
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
                f"{self._name} has {len(found)} images that fit; it holds: {names or 'none'}",
                hint="name one, as oci:DIR:NAME or oci-archive:FILE:NAME",
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
            raise self._broken(f"has something else as {descriptor.digest}")
        return self._json(descriptor.digest, data)

    def _json(self, name: str, data: bytes) -> dict[str, Any]:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._broken(f"has no JSON as {name}") from error
        if not isinstance(document, dict):
            raise self._broken(f"has no document as {name}")
        return document

    def _read(self, path: str) -> bytes:
        with self._open(path) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise self._broken(f"has a document of more than {_MOST_BYTES} bytes: {path}")
        return data

    @contextmanager
    def _open(self, path: str) -> Iterator[IO[bytes]]:
        with ExitStack() as stack:
            try:
                if self._packed:
                    # Opened for each: threads can't share a tarfile, and its list of a few files is read at once.
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
        return BuildError(f"the base image {self._name} {problem}", hint="name an OCI layout that is whole")


def _member(archive: tarfile.TarFile, path: str) -> tarfile.TarInfo:
    try:
        return archive.getmember(path)
    except KeyError:
        return archive.getmember(f"./{path}")  # as `tar -C layout .` writes it


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
            f"the base image {name} can't be opened: {reason}", hint="name a folder or file that is an OCI layout"
        ) from error
    return _Layout(name)


_MOST_LINKS = 40  # as the kernel's own limit (path_resolution(7))


def folder_entries(folders: Iterable[BaseFolder]) -> list[LayerEntry]:
    """Return the base's folders as layers have them."""
    return [
        LayerEntry(path=folder.path, kind=Kind.FOLDER, mode=folder.mode, uid=folder.uid, gid=folder.gid)
        for folder in folders
        if not folder.target
    ]


def follow_links(plan: ImagePlan) -> ImagePlan:
    """Return the plan with each file where the base's symbolic links lead."""
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
    """Follow the links that are known; a circle of them is left to whoever unpacks it."""
    done: list[str] = []
    waiting = list(reversed(path.parts[1:]))
    followed = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del done[-1:]
            continue
        target = links.get("/".join([*done, part]))
        if target is None or followed == _MOST_LINKS:
            done.append(part)
            continue
        followed += 1
        if target.startswith("/"):
            done = []
        waiting += [word for word in reversed(target.split("/")) if word not in {"", "."}]
    return PurePosixPath("/", *done)
