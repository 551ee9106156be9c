"""An image's config and manifest, from a plan, the base image's config and the layers' descriptors. Pure.

Formats: github.com/opencontainers/image-spec (config.md, manifest.md), and docker's image manifest version 2, schema 2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from packager.errors import BuildError
from packager.models.image import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    digest_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from packager.image.plan import ImageConfig, ImagePlan
    from packager.models.image import RemoteImage
    from packager.models.reference import Reference

ImageFormat = Literal["oci", "docker"]

_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOR_OCI = {_OCI_LAYER: _DOCKER_LAYER, f"{_OCI_LAYER}+gzip": f"{_DOCKER_LAYER}.gzip"}
_OCI_FOR_DOCKER = {docker: oci for oci, docker in _DOCKER_FOR_OCI.items()}
# The fields of OCI's config; docker's others (Healthcheck, OnBuild, Shell) are omitted, as by Buildah in OCI images.
_OCI_FIELDS = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Memory",
    "MemorySwap",
    "CpuShares",
]


@dataclass(frozen=True, kw_only=True)
class AddedLayer:
    """A layer added to the base image.

    Attributes:
        name: The layer's name in the plan.
        descriptor: The compressed bytes.
        diff_id: `sha256:…` of the uncompressed tar.
    """

    name: str
    descriptor: Descriptor
    diff_id: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """A config or a manifest: its bytes and its descriptor."""

    data: bytes
    descriptor: Descriptor

    @classmethod
    def of(cls, content: dict[str, Any], media_type: str) -> Document:
        """Write the JSON; equal content gives equal bytes."""
        data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
        return cls(data=data, descriptor=Descriptor(media_type=media_type, digest=digest_of(data), size=len(data)))


def check_base(reference: Reference, base: RemoteImage) -> None:
    """Refuse a base that no image can be put together on.

    Raises:
        BuildError: Its config doesn't fit its layers, or has ONBUILD commands.
    """
    if wrong := _misshapen(base.config):
        raise BuildError(f"the base image {reference} has an invalid config: {wrong}", hint="build or push it again")
    below = (base.config.get("rootfs") or {}).get("diff_ids") or []
    if len(below) != len(base.layers):
        raise BuildError(
            f"the base image {reference} has {len(base.layers)} layers and a config for {len(below)}",
            hint="build or push the base image again",
        )
    for trigger in (base.config.get("config") or {}).get("OnBuild") or []:
        raise BuildError(
            f"the base image {reference} has a command for images that are built on it, which the oci engine can't "
            f"run: ONBUILD {str(trigger)[:200]}",
            hint="use --engine buildah or kaniko, or a base image without it",
        )


def _misshapen(config: dict[str, Any]) -> str:
    """Return the name of an invalid part of a config (config.md), or an empty string."""
    rootfs, inner = config.get("rootfs") or {}, config.get("config") or {}
    for name, value in (("rootfs", rootfs), ("config", inner)):
        if not isinstance(value, dict):
            return name
    for name in ("Labels", "ExposedPorts", "Volumes"):
        if not isinstance(inner.get(name) or {}, dict):
            return f"config.{name}"
    texts = {f"config.{name}": inner.get(name) for name in ("Env", "OnBuild")} | {"diff_ids": rootfs.get("diff_ids")}
    for name, value in texts.items():
        if not isinstance(value or [], list) or not all(isinstance(each, str) for each in value or []):
            return name
    history = config.get("history") or []
    return "" if isinstance(history, list) and all(isinstance(each, dict) for each in history) else "history"


def make_config(
    plan: ImagePlan, base: RemoteImage, layers: Sequence[AddedLayer], image_format: ImageFormat
) -> Document:
    """Return the image's config: the base image's, changed as the plan's Dockerfile would do.

    Raises:
        BuildError: See `check_base`.
    """
    check_base(plan.base.reference, base)
    created = plan.timestamp.strftime("%Y-%m-%dT%H:%M:%SZ")
    document = dict(base.config)
    below = list((document.get("rootfs") or {}).get("diff_ids") or [])
    document["created"] = created
    document["config"] = _container_config(dict(document.get("config") or {}), plan.config, image_format)
    document["rootfs"] = {"type": "layers", "diff_ids": [*below, *(layer.diff_id for layer in layers)]}
    document["history"] = [*_history_below(document.get("history") or [], len(below)), *_history(layers, created)]
    for left_out in ("container", "container_config", "docker_version", "id", "parent"):
        document.pop(left_out, None)  # docker's data about the build container
    return Document.of(document, OCI_CONFIG if image_format == "oci" else DOCKER_CONFIG)


def make_manifest(
    plan: ImagePlan, base: RemoteImage, layers: Sequence[AddedLayer], config: Document, image_format: ImageFormat
) -> Document:
    """Return the image's manifest.

    Raises:
        BuildError: The image format doesn't support the type of a layer.
    """
    media_type = OCI_MANIFEST if image_format == "oci" else DOCKER_MANIFEST
    descriptors = [*base.layers, *(layer.descriptor for layer in layers)]
    content: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config.descriptor.to_dict(),
        "layers": [
            {**descriptor.to_dict(), "mediaType": _layer_type(descriptor, image_format)} for descriptor in descriptors
        ],
    }
    if image_format == "oci":
        content["annotations"] = {
            name: value for name, value in plan.config.labels if name.startswith("org.opencontainers.image.base.")
        }
    return Document.of(content, media_type)


def _layer_type(descriptor: Descriptor, image_format: ImageFormat) -> str:
    given = descriptor.media_type
    if image_format == "oci":
        return _OCI_FOR_DOCKER.get(given, given)
    known = _DOCKER_FOR_OCI.get(given, given)
    if known not in _OCI_FOR_DOCKER:
        raise BuildError(
            f"docker's image format doesn't support layers of type {given}", hint="set PACKAGER_IMAGE_FORMAT=oci"
        )
    return known


def _container_config(config: dict[str, Any], wanted: ImageConfig, image_format: ImageFormat) -> dict[str, Any]:
    if image_format == "oci":
        config = {name: config[name] for name in _OCI_FIELDS if name in config}
    env = dict(entry.partition("=")[::2] for entry in config.get("Env") or [])
    env.update(wanted.env)  # existing names keep their position
    config["Env"] = [f"{name}={value}" for name, value in env.items()]
    config["Entrypoint"] = list(wanted.entrypoint)
    config["Cmd"] = list(wanted.cmd)
    if labels := {**(config.get("Labels") or {}), **dict(wanted.labels)}:
        config["Labels"] = labels
    if wanted.exposed_port:
        config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), f"{wanted.exposed_port}/tcp": {}}
    if wanted.working_dir:
        config["WorkingDir"] = wanted.working_dir
    if wanted.user:
        config["User"] = wanted.user
    return {name: value for name, value in config.items() if value not in (None, [], {})}


def _history_below(history: list[dict[str, Any]], layers: int) -> list[dict[str, Any]]:
    """Return the base image's history, filled up to one entry per layer: Buildah rejects images with fewer."""
    known = sum(1 for entry in history if not entry.get("empty_layer"))
    return [*history, *({"created_by": "base image"} for _ in range(layers - known))]


def _history(layers: Sequence[AddedLayer], created: str) -> list[dict[str, Any]]:
    entries = [{"created": created, "created_by": f"packager: {layer.name}"} for layer in layers]
    return [*entries, {"created": created, "created_by": "packager: config", "empty_layer": True}]
