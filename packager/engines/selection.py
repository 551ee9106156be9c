"""Which engine makes an image, where none is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class EngineName(str, Enum):
    """The engines that can be asked for."""

    auto = "auto"
    oci = "oci"
    buildah = "buildah"
    kaniko = "kaniko"


@dataclass(frozen=True, kw_only=True)
class EngineRequirements:
    """What a packaging needs of its engine.

    Attributes:
        run_steps: Whether commands run in the image while it's built.
        local_base: Whether the base image lies in a local container storage.
        local_output: Whether the image goes into a file or folder, and to no registry.
        check: Whether the model is to be checked, where the engine runs commands in its image.
    """

    run_steps: bool = False
    local_base: bool = False
    local_output: bool = False
    check: bool = True


@dataclass(frozen=True, kw_only=True)
class HostInfo:
    """Where we run.

    Attributes:
        in_job_image: Whether it's the packager's Job image, which has Kaniko.
        in_cluster: Whether it's a pod of Kubernetes.
    """

    in_job_image: bool = False
    in_cluster: bool = False


def choose_engine(asked: EngineName, requirements: EngineRequirements, host: HostInfo) -> tuple[EngineName, str]:
    """Return the engine and why it is that one."""
    if asked is not EngineName.auto:
        return asked, "it was requested"
    if requirements.run_steps:
        reason = "the image needs a command to run during the build"
    elif requirements.local_base:
        reason = "the base image is in a local container storage"
    else:
        return EngineName.oci, "no command needs to run during the build"
    if (host.in_job_image or host.in_cluster) and not requirements.local_base and not requirements.local_output:
        return EngineName.kaniko, f"{reason}, in a cluster"
    return EngineName.buildah, reason
