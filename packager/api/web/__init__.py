"""The pages: packagings, connections and integrations in a browser, and Swagger UI."""

from __future__ import annotations

from packager.api.web import assets, changes, entry, lists, swagger

PAGES = (lists.router, changes.router, entry.router, assets.router, swagger.router)

__all__ = ["PAGES"]
