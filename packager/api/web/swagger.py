"""Swagger UI at `/swagger/index.html`: its files come from an installed package, none over the network."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from packager.api.routes.common import PREFIX
from packager.api.web.assets import answer_file
from packager.api.web.rendering import security_headers

if TYPE_CHECKING:
    from fastapi import FastAPI

router = APIRouter(include_in_schema=False)

_TYPES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>packager: the API</title>
<link rel="icon" href="favicon-32x32.png">
<link rel="stylesheet" href="swagger-ui.css">
</head>
<body>
<div id="swagger-ui"><noscript>Swagger UI needs JavaScript; the API is described in /openapi.json.</noscript></div>
<script src="swagger-ui-bundle.js"></script>
<script src="../static/swagger.js"></script>
</body>
</html>
"""


@router.get("/swagger/")
def folder() -> Response:
    """Send to the page."""
    return RedirectResponse("/swagger/index.html")


@router.get("/swagger/index.html")
def page() -> Response:
    """Return Swagger UI; it writes styles and pictures into the page, which its policy lets it."""
    headers = security_headers(style_src="'self' 'unsafe-inline'", img_src="'self' data:")
    return Response(_PAGE, media_type="text/html", headers=headers)


@router.get("/swagger/{name}")
def asset(request: Request, name: str) -> Response:
    """Return one of its files."""
    if name not in _TYPES:
        raise HTTPException(404, "there is no such file")
    content = (files("fastapi_swagger") / "resources" / name).read_bytes()
    return answer_file(request, name, content, _TYPES[name])


def describe_tokens(app: FastAPI) -> None:
    """Let the OpenAPI document say that the API wants a bearer token, so that Swagger UI asks for one."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = describe()
            schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["token"] = {"type": "http", "scheme": "bearer"}
            for path, operations in document["paths"].items():
                if path.startswith(PREFIX):
                    for operation in operations.values():
                        operation["security"] = [{"token": []}]
        return app.openapi_schema or document

    app.openapi = openapi  # type: ignore[method-assign]
