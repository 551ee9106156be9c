"""The pages' own style, script and icon."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

router = APIRouter(include_in_schema=False)

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES = {
    file.name: file.read_bytes()
    for file in (files("packager.api.web") / "static").iterdir()
    if file.name.rpartition(".")[2] in _TYPES
}


def answer_file(request: Request, name: str, content: bytes, media_type: str) -> Response:
    """Return a file that a browser asks about again each time, and takes again only when it has changed."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    charset = "; charset=utf-8" if name.rpartition(".")[2] in {"css", "js", "html"} else ""
    return Response(content, headers={**headers, "Content-Type": f"{media_type}{charset}"})


@router.get("/static/{name}")
def static(request: Request, name: str) -> Response:
    """Return a file of ours."""
    if name not in _FILES:
        raise HTTPException(404, "there is no such file")
    return answer_file(request, name, _FILES[name], _TYPES[name.rpartition(".")[2]])


@router.get("/favicon.ico")
def icon(request: Request) -> Response:
    """Return the icon, for who looks where icons were."""
    return answer_file(request, "icon.svg", _FILES["icon.svg"], _TYPES["svg"])
