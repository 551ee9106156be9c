"""The pages: packagings, connections and integrations in a browser, and Swagger UI."""

from __future__ import annotations

from packager.api.web import assets, editor, login, swagger, views

PAGES = (views.router, editor.router, login.router, assets.router, swagger.router)

__all__ = ["PAGES"]
