"""The oci engine: assembles images from blobs, without a Dockerfile, a root file system or privileges.

Layers are streamed from their files to the destination; blobs that exist there are not sent. The manifest is written
last, so a tag keeps its old image until then. RUN steps are not supported.
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
    convert_write_errors,
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

    from packager.engines.oci.base_image import OpenedBase
    from packager.engines.oci.destinations import Sink
    from packager.engines.oci.image import AddedLayer, Document, ImageFormat
    from packager.image.plan import BaseImage, ImagePlan
    from packager.models.image import Descriptor
    from packager.models.reference import Destination, Reference
    from packager.registry.access import RegistryAccess
    from packager.settings import Settings
    from packager.system.process import Runner

_MAX_LAYERS = 127  # docker's limit (moby's layer package)
log = logging.getLogger(__name__)


class OciEngine:
    """An `Engine` without external programs; needs the network only."""

    name = "oci"
    reads_context = False
    checks_model = False

    def __init__(self, settings: Settings, run: Runner, environ: Mapping[str, str]) -> None:  # noqa: ARG002
        """Use the settings; no command is run."""
        self._settings = settings
        check_cache_repository("PACKAGER_CACHE_REPO", settings.cache_repo)
        self._architecture = ARCHITECTURES[settings.platform]

    def repositories(self, destination: Destination) -> tuple[Reference, ...]:
        """Return the repositories of the image and the environment cache."""
        if destination.transport != "docker":
            return ()
        kept = self.environment_repository(destination)
        return (destination.reference, kept) if kept else (destination.reference,)

    def environment_repository(self, destination: Destination) -> Reference | None:
        """Return the cache repository if the destination is a registry."""
        if destination.transport != "docker" or not self._settings.environment_cache:
            return None
        return cache_repository(destination.reference, self._settings.cache_repo)

    def inspect_base(self, reference: Reference, access: RegistryAccess) -> BaseImage:
        """Find the base image in its registry or layout, and read its digest, glibc and Python.

        Raises:
            ImageNotFoundError, RegistryAuthError, RegistryUnreachableError, RegistryError: It can't be read.
            BuildError: It is for another platform, its layout is damaged, or it has ONBUILD commands.
            DiskFullError: The disk is full.
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
        """Write the layers, then the config, then the manifest; the context folder is not used.

        Raises:
            BuildError: The plan has a RUN step, a file can't be read, or the base image is unsuitable.
            ArtifactError: A file in the model's zip is damaged.
            ImageNotFoundError: The base image was removed meanwhile.
            RegistryAuthError, RegistryUnreachableError, RegistryError: The push failed; no tag was changed.
            DiskFullError: A local destination's disk is full.
        """
        for step in plan.run_steps:
            raise BuildError(
                f"the oci engine can't run commands, but the image needs `{step.name}`",
                hint="use --engine buildah or kaniko, or set dockerfileAddCondaInstallation to true",
            )
        docker_archive = destination.transport == "docker-archive"
        if docker_archive and self._settings.layer_compression == "zstd":
            raise BuildError(
                "docker archives don't support zstd layers",
                hint="set PACKAGER_LAYER_COMPRESSION=auto for this output",
            )
        if destination.transport == "docker":
            with closing(Uploads(destination.reference, access)) as uploads:
                sink = RegistrySink(uploads)
                fingerprints = LayerFingerprints(repository=self.environment_repository(destination), access=access)
                manifest, layers = self._assemble(plan, access, sink, self._settings.image_format, fingerprints)
            stored = (_stored(layer, destination.reference) for layer in layers)
            return BuiltImage(destination=destination, digest=manifest.descriptor.digest, layers=tuple(stored))
        with _layout_for(destination, plan) as layout:
            # Readers of OCI layouts ignore docker's documents.
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
    ) -> tuple[Document, list[AddedLayer]]:
        reference = plan.base.reference
        if plan.base.digest and not reference.layout:
            reference = replace(reference, digest=plan.base.digest)
        with ExitStack() as stack:
            base = stack.enter_context(open_base(reference, access, self._architecture))
            _check_count(plan, base)
            workers = stack.enter_context(Workers())
            for blob in {layer.digest: layer for layer in base.image.layers}.values():
                workers.start(partial(_copy_base_layer, blob, base, sink, workers))
            blobs = plan_blobs(
                follow_links(plan),
                self._settings.layer_compression,
                media_types=image_format,
                base_folders=folder_entries(plan.base.folders),
            )
            uploader = LayerUploader(plan, blobs, sink, workers, access, fingerprints)
            uploads = [workers.start(upload) for upload in uploader.uploads()]
            workers.wait()
            layers = [future.result() for future in uploads]
            config = make_config(plan, base.image, layers, image_format)
            manifest = make_manifest(plan, base.image, layers, config, image_format)
            sink.finish(config, manifest)
        return manifest, layers


def _check_count(plan: ImagePlan, base: OpenedBase) -> None:
    """Reject an image with more layers than container runtimes support, before anything is sent."""
    layers = len(base.image.layers) + len(plan.steps)
    if layers > _MAX_LAYERS:
        raise BuildError(
            f"the image would have {layers} layers, {len(base.image.layers)} of them the base image's; the limit is "
            f"{_MAX_LAYERS}",
            hint="use a base image with fewer layers, or pack the model into fewer large files",
        )


def _stored(layer: AddedLayer, repository: Reference) -> StoredLayer:
    return StoredLayer(name=layer.name, descriptor=layer.descriptor, diff_id=layer.diff_id, repository=repository)


def _copy_base_layer(blob: Descriptor, base: OpenedBase, sink: Sink, workers: Workers) -> None:
    if sink.has(blob.digest):
        log.debug("base layer %s: unchanged", blob.digest)
    elif sink.copy(workers.stoppable(RemoteBlob(source=base.layers, known=blob)), blob.digest, base.origin):
        log.info("base layer %s: copied, %d bytes", blob.digest, blob.size)
    else:
        log.debug("base layer %s: mounted from %s", blob.digest, base.origin)


def _refuse_local_storage(reference: Reference) -> None:
    if reference.in_local_storage:
        raise ImageNotFoundError(
            f"the base image {reference} is in a local storage, which the oci engine can't read",
            hint="push it to a registry, or use a layout in dockerfileBaseImage (oci:DIR or oci-archive:FILE), "
            "or use --engine buildah",
        )


@contextmanager
def _layout_for(destination: Destination, plan: ImagePlan) -> Iterator[LayoutSink]:
    """Yield a staging layout to fill; at the end of the block it is published at a local destination."""
    path = destination.path
    if path is None:
        raise BuildError(f"{destination} has no path")
    if destination.transport == "oci":
        check_layout_target(path)
    with convert_write_errors(path), staging_beside(path) as staging:
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
