"""The pages: packagings, connections and integrations in a browser, and Swagger UI."""

from __future__ import annotations

from packager.api.web import assets, editor, session, views

PAGES = (views.router, editor.router, session.router, assets.router)

__all__ = ["PAGES"]
