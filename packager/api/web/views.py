"""The pages that show packagings, one packaging with its log, connections and integrations."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from packager.api.routes import entities, logs
from packager.api.routes.common import Page, service_of
from packager.api.web.rendering import render
from packager.api.web.session import PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_SIZE = 50
PageNumber = Annotated[int, Query(ge=0, le=100_000)]


@router.get("/")
def show_packagings(request: Request, page: PageNumber = 0, integration: str = "") -> Response:
    """Show packagings, newest first."""
    filters = {"integration_name": [integration]} if integration else {}
    found = service_of(request).store.packagings.list(page, _SIZE, filters)
    known = sorted(each.id for each in entities.list_integrations(request, Page()))
    return render(
        request,
        "packagings",
        packagings=found,
        page=page,
        more=len(found) == _SIZE,
        integration=integration,
        integrations=known,
    )


@router.get("/ui/packagings/{packaging_id}")
def show_packaging(request: Request, packaging_id: str) -> Response:
    """Show a packaging: its state, image and arguments, and its log, live."""
    packaging = service_of(request).store.packagings.get(packaging_id)
    given = {name: _text(value) for name, value in packaging.spec.arguments.items()}
    resources = (
        packaging.spec.resources.model_dump(by_alias=True, exclude_none=True) if packaging.spec.resources else {}
    )
    return render(request, "packaging", packaging=packaging, arguments=given, resources=resources)


@router.get("/ui/packagings/{packaging_id}/log")
async def show_log(request: Request, packaging_id: str, query: Annotated[logs.LogQuery, Query()]) -> Response:
    """Return the log of a packaging as the API streams it."""
    return await logs.read_log(request, packaging_id, query)


@router.get("/ui/connections")
def show_connections(request: Request, page: PageNumber = 0) -> Response:
    """Show connections with their secrets masked."""
    found = entities.list_connections(request, entities.ConnectionPage(page=page, size=_SIZE))
    return render(request, "connections", connections=found, page=page, more=len(found) == _SIZE)


@router.get("/ui/integrations")
def show_integrations(request: Request, page: PageNumber = 0) -> Response:
    """Show integrations with their arguments and targets."""
    found = entities.list_integrations(request, Page(page=page, size=_SIZE))
    described = [
        (
            each,
            {
                argument.name: {word.name: _text(word.value) for word in argument.parameters}
                for argument in each.spec.integration_schema.arguments.properties
            },
        )
        for each in found
    ]
    return render(request, "integrations", integrations=described, page=page, more=len(found) == _SIZE)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
