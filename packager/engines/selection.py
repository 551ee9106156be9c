"""Automatic selection of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class EngineName(str, Enum):
    """The values of the engine option."""

    auto = "auto"
    oci = "oci"
    buildah = "buildah"
    kaniko = "kaniko"


@dataclass(frozen=True, kw_only=True)
class EngineRequirements:
    """The requirements of a packaging on its engine.

    Attributes:
        run_steps: Whether the image has RUN steps.
        local_base: Whether the base image is in a local container storage.
        local_output: Whether the image goes to a file or folder, not to a registry.
        check: Whether to check the model in an image with RUN steps.
    """

    run_steps: bool = False
    local_base: bool = False
    local_output: bool = False
    check: bool = True


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The host that the packager runs on.

    Attributes:
        job_image: Whether it is the packager's Job image, which contains Kaniko.
        cluster: Whether it is a Kubernetes pod.
    """

    job_image: bool = False
    cluster: bool = False


def choose_engine(asked: EngineName, requirements: EngineRequirements, platform: Platform) -> tuple[EngineName, str]:
    """Return the engine, and the reason for it."""
    if asked is not EngineName.auto:
        return asked, "it was requested"
    if requirements.run_steps:
        reason = "the image needs a command to run during the build"
    elif requirements.local_base:
        reason = "the base image is in a local container storage"
    else:
        return EngineName.oci, "no command needs to run during the build"
    if (platform.job_image or platform.cluster) and not requirements.local_base and not requirements.local_output:
        return EngineName.kaniko, f"{reason}, in a cluster"
    return EngineName.buildah, reason
