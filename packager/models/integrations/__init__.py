"""docker-rest and docker-cli: their arguments, and what each adds to a plan."""

from __future__ import annotations

from packager.models.integrations import docker_cli, docker_rest
from packager.models.integrations.base import Application

APPLICATIONS: dict[str, Application] = {
    module.APPLICATION.name: module.APPLICATION for module in (docker_rest, docker_cli)
}

__all__ = ["APPLICATIONS", "Application"]
