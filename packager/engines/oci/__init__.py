"""The oci engine: puts images together from blobs, without a Dockerfile, a root file system or any privilege.

Layers are streamed from where their files are to where the image goes; what is there already isn't sent. The manifest
is put last, so until then a tag points to what it pointed to before. RUN steps are beyond it.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from packager.engines import BuiltImage, cache_repository, check_cache_repository
from packager.engines.base_inspection import ARCHITECTURES, inspect_image
from packager.engines.local_outputs import (
    add_docker_manifest,
    check_layout_target,
    files_at,
    publish_layout,
    staging_beside,
    write_docker_archive,
    write_oci_archive,
)
from packager.engines.oci.base_image import folder_entries, follow_links, open_base
from packager.engines.oci.destinations import LayoutSink, RegistrySink
from packager.engines.oci.image import check_base, make_config, make_manifest
from packager.engines.oci.layer_uploads import LayerFingerprints, LayerUploader
from packager.engines.oci.workers import Workers
from packager.errors import BuildError, ImageNotFoundError
from packager.image.layers.blob import plan_blobs
from packager.image.plan import StoredLayer
from packager.registry.blobs import RemoteBlob
from packager.registry.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from packager.engines.oci.base_image import Base
    from packager.engines.oci.destinations import Sink
    from packager.engines.oci.image import Document, ImageFormat, LayerOnTop
    from packager.image.plan import BaseImage, ImagePlan
    from packager.models.image import Descriptor
    from packager.models.reference import Destination, Reference
    from packager.registry.access import RegistryAccess
    from packager.settings import Settings
    from packager.system.process import Runner

_MOST_LAYERS = 127  # docker's limit (moby's layer package)
log = logging.getLogger(__name__)


class OciEngine:
    """Builds by itself; needs nothing but the network. An `Engine`."""

    name = "oci"
    reads_context = False
    checks_model = False

    def __init__(self, settings: Settings, run: Runner, environ: Mapping[str, str]) -> None:  # noqa: ARG002
        """Take the settings; no command is run."""
        self._settings = settings
        check_cache_repository("PACKAGER_CACHE_REPO", settings.cache_repo)
        self._architecture = ARCHITECTURES[settings.platform]

    def repositories(self, destination: Destination) -> tuple[Reference, ...]:
        """Return where a build writes to: the image, and the environments that are kept."""
        if destination.transport != "docker":
            return ()
        kept = self.environment_repository(destination)
        return (destination.reference, kept) if kept else (destination.reference,)

    def environment_repository(self, destination: Destination) -> Reference | None:
        """Return the cache repository, with a registry as the destination."""
        if destination.transport != "docker" or not self._settings.environment_cache:
            return None
        return cache_repository(destination.reference, self._settings.cache_repo)

    def inspect_base(self, reference: Reference, access: RegistryAccess) -> BaseImage:
        """Find the base image in its registry or layout, and read its digest, glibc and Python.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: It can't be had.
            BuildError: It's for another platform, its layout is broken, or it has ONBUILD commands.
            DiskFullError: There is no space to look into it.
        """
        _refuse_local_storage(reference)
        with open_base(reference, access, self._architecture) as base:
            check_base(reference, base.image)
            return inspect_image(reference, base.image, base.layers, self._settings)

    def build(
        self,
        plan: ImagePlan,
        context: Path,  # noqa: ARG002  (the Protocol's)
        destination: Destination,
        access: RegistryAccess,
    ) -> BuiltImage:
        """Bring the layers, then the config, then the manifest; the context folder is none of ours.

        Raises:
            BuildError: The plan has a RUN step, a file can't be read, or the base doesn't fit.
            ArtifactError: A file in the model's zip isn't what the zip says.
            ImageNotFoundError: The base was removed since.
            RegistryAuthError, RegistryUnreachableError, RegistryError: The push failed; no tag was changed.
            DiskFullError: There is no space at a local destination.
        """
        for step in plan.run_steps:
            raise BuildError(
                f"the oci engine can't run commands, and the image needs `{step.name}`",
                hint="use --engine buildah or kaniko, or leave dockerfileAddCondaInstallation true",
            )
        docker_archive = destination.transport == "docker-archive"
        if docker_archive and self._settings.layer_compression == "zstd":
            raise BuildError(
                "a docker archive has no layers of zstd",
                hint="leave PACKAGER_LAYER_COMPRESSION at auto for this output",
            )
        if destination.transport == "docker":
            with closing(Uploads(destination.reference, access)) as uploads:
                sink = RegistrySink(uploads)
                fingerprints = LayerFingerprints(repository=self.environment_repository(destination), access=access)
                manifest, layers = self._assemble(plan, access, sink, self._settings.image_format, fingerprints)
            stored = (_stored(layer, destination.reference) for layer in layers)
            return BuiltImage(destination=destination, digest=manifest.descriptor.digest, layers=tuple(stored))
        with _layout_for(destination, plan) as layout:
            # An OCI layout with docker's documents in it would be none; its readers don't see them.
            docker = docker_archive and self._settings.image_format == "docker"
            manifest, _ = self._assemble(plan, access, layout, "docker" if docker else "oci")
        return BuiltImage(destination=destination, digest=manifest.descriptor.digest)

    def _assemble(
        self,
        plan: ImagePlan,
        access: RegistryAccess,
        sink: Sink,
        image_format: ImageFormat,
        fingerprints: LayerFingerprints | None = None,
    ) -> tuple[Document, list[LayerOnTop]]:
        reference = plan.base.reference
        if plan.base.digest and not reference.layout:
            reference = replace(reference, digest=plan.base.digest)
        with ExitStack() as stack:
            base = stack.enter_context(open_base(reference, access, self._architecture))
            _check_count(plan, base)
            workers = stack.enter_context(Workers())
            for blob in {layer.digest: layer for layer in base.image.layers}.values():
                workers.start(partial(_bring_base, blob, base, sink, workers))
            blobs = plan_blobs(
                follow_links(plan),
                self._settings.layer_compression,
                media_types=image_format,
                base_folders=folder_entries(plan.base.folders),
            )
            uploader = LayerUploader(plan, blobs, sink, workers, access, fingerprints)
            brought = [workers.start(carry) for carry in uploader.carries()]
            workers.wait()
            layers = [future.result() for future in brought]
            config = make_config(plan, base.image, layers, image_format)
            manifest = make_manifest(plan, base.image, layers, config, image_format)
            sink.finish(config, manifest)
        return manifest, layers


def _check_count(plan: ImagePlan, base: Base) -> None:
    """Refuse an image that no container runtime can start, before anything is sent."""
    layers = len(base.image.layers) + len(plan.steps)
    if layers > _MOST_LAYERS:
        raise BuildError(
            f"the image would have {layers} layers, {len(base.image.layers)} of them the base's; {_MOST_LAYERS} can be "
            "run",
            hint="take a base image with fewer layers, or pack the model into fewer large files",
        )


def _stored(layer: LayerOnTop, repository: Reference) -> StoredLayer:
    return StoredLayer(name=layer.name, descriptor=layer.descriptor, diff_id=layer.diff_id, repository=repository)


def _bring_base(blob: Descriptor, base: Base, sink: Sink, workers: Workers) -> None:
    if sink.has(blob.digest):
        log.debug("the base's layer %s is there", blob.digest)
    elif sink.take(workers.stoppable(RemoteBlob(source=base.layers, known=blob)), blob.digest, base.origin):
        log.info("the base's layer %s is copied: %d bytes", blob.digest, blob.size)
    else:
        log.debug("the base's layer %s is taken over from %s", blob.digest, base.origin)


def _refuse_local_storage(reference: Reference) -> None:
    if reference.in_local_storage:
        raise ImageNotFoundError(
            f"the base image {reference} names a local storage, which the oci engine doesn't have",
            hint="push it to a registry, or name a layout with oci:DIR or oci-archive:FILE in dockerfileBaseImage, "
            "or use --engine buildah",
        )


@contextmanager
def _layout_for(destination: Destination, plan: ImagePlan) -> Iterator[LayoutSink]:
    """Give a layout to fill beside a local destination; what it becomes is moved there at the end of the block."""
    path = destination.path
    if path is None:
        raise BuildError(f"{destination} names no file")
    if destination.transport == "oci":
        check_layout_target(path)
    with files_at(path), staging_beside(path) as staging:
        layout = LayoutSink(staging / "layout", destination.reference)
        yield layout
        if destination.transport == "oci":
            publish_layout(layout.folder, path)
            return
        if destination.transport == "oci-archive":
            write_oci_archive(layout.folder, staging / "archive", plan.timestamp)
            add_docker_manifest(staging / "archive", destination.reference, plan.timestamp)
        else:
            write_docker_archive(layout.folder, staging / "archive", destination.reference, plan.timestamp)
        (staging / "archive").chmod(0o644)
        (staging / "archive").replace(path)
