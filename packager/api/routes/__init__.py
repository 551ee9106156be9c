"""The routes: paths, status codes and messages as the public ODAHU clients expect them."""

from __future__ import annotations

from packager.api.routes import about, entities, logs

ROUTERS = (entities.packagings, logs.router, entities.integrations, entities.connections, about.router, about.probes)

__all__ = ["ROUTERS"]
