"""The routes: the paths, codes and messages that the public ODAHU clients know."""

from __future__ import annotations

from packager.api.routes import about, connections, health, integrations, logs, packagings

ROUTERS = (packagings.router, logs.router, integrations.router, connections.router, about.router, health.router)

__all__ = ["ROUTERS"]
