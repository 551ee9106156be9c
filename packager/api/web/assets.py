"""Static files: the pages' style, script and icon, and Swagger UI at `/swagger/index.html`, all from packages."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from packager.api.routes.common import PREFIX
from packager.api.web.rendering import security_headers

if TYPE_CHECKING:
    from fastapi import FastAPI

router = APIRouter(include_in_schema=False)

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "png": "image/png"}
_FILES = {
    file.name: file.read_bytes()
    for file in (files("packager.api.web") / "static").iterdir()
    if file.name.rpartition(".")[2] in _TYPES
}
_SWAGGER_FILES = {"swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"}
_SWAGGER_PAGE = """\
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
<div id="swagger-ui"><noscript>Swagger UI needs JavaScript; /openapi.json describes the API.</noscript></div>
<script src="swagger-ui-bundle.js"></script>
<script src="../static/swagger.js"></script>
</body>
</html>
"""


@router.get("/static/{name}")
def static_file(request: Request, name: str) -> Response:
    """Return a static file of the pages."""
    if name not in _FILES:
        raise HTTPException(404, f"there is no file {name[:100]!r}")
    return _answer(request, name, _FILES[name])


@router.get("/favicon.ico")
def icon(request: Request) -> Response:
    """Return the icon at its traditional path."""
    return _answer(request, "icon.svg", _FILES["icon.svg"])


@router.get("/swagger/")
def swagger_folder() -> Response:
    """Redirect to the page."""
    return RedirectResponse("/swagger/index.html")


@router.get("/swagger/index.html")
def swagger_page() -> Response:
    """Return Swagger UI, which needs inline styles and images."""
    headers = security_headers(style_src="'self' 'unsafe-inline'", img_src="'self' data:")
    return Response(_SWAGGER_PAGE, media_type="text/html", headers=headers)


@router.get("/swagger/{name}")
def swagger_file(request: Request, name: str) -> Response:
    """Return a file of Swagger UI."""
    if name not in _SWAGGER_FILES:
        raise HTTPException(404, f"there is no file {name[:100]!r}")
    return _answer(request, name, (files("fastapi_swagger") / "resources" / name).read_bytes())


def _answer(request: Request, name: str, content: bytes) -> Response:
    """Return a file that browsers revalidate each time."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    suffix = name.rpartition(".")[2]
    charset = "; charset=utf-8" if suffix in {"css", "js"} else ""
    return Response(content, headers={**headers, "Content-Type": f"{_TYPES[suffix]}{charset}"})


def describe_tokens(app: FastAPI) -> None:
    """Describe the bearer token in the OpenAPI document, so that Swagger UI asks for it."""
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
