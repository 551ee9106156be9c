"""docker-rest and docker-cli: their arguments, and what each adds to a plan."""

from __future__ import annotations

from packager.applications import cli, rest
from packager.applications.common import Application

APPLICATIONS: dict[str, Application] = {module.APPLICATION.name: module.APPLICATION for module in (rest, cli)}

__all__ = ["APPLICATIONS", "Application"]
