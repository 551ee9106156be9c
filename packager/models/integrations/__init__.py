"""The integration types docker-rest and docker-cli: their arguments, and their part of an image's config."""

from __future__ import annotations

from packager.models.integrations import docker_cli, docker_rest
from packager.models.integrations.base import IntegrationType

INTEGRATION_TYPES: dict[str, IntegrationType] = {
    module.INTEGRATION_TYPE.name: module.INTEGRATION_TYPE for module in (docker_rest, docker_cli)
}

__all__ = ["INTEGRATION_TYPES", "IntegrationType"]
