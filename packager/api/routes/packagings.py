"""`/model/packaging`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from packager.api.entities import ModelPackaging, NamedValue, NewPackaging
from packager.api.routes.common import (
    CHANGES,
    CREATES,
    PREFIX,
    READS,
    READS_ONE,
    Message,
    Page,
    StrictRoute,
    audit,
    service_of,
    wake_runner,
)

router = APIRouter(prefix=f"{PREFIX}/model/packaging", tags=["Packaging"], route_class=StrictRoute)


class PackagingPage(Page):
    """Which packagings."""

    integration_name: list[str] = Field(default_factory=list, alias="integrationName")


@router.get("", responses=READS, response_model=list[ModelPackaging])
def list_packagings(request: Request, asked: Annotated[PackagingPage, Query()]) -> Response:
    """Return packagings, the newest first."""
    filters = {"integration_name": asked.integration_name} if asked.integration_name else {}
    text = service_of(request).store.packagings.list_json(asked.page, asked.size, filters)
    return Response(text, media_type="application/json")


@router.post("", status_code=201, responses=CREATES, response_model_exclude_none=True)
def create_packaging(request: Request, packaging: NewPackaging) -> ModelPackaging:
    """Create a packaging and run it."""
    service = service_of(request)
    created = service.store.packagings.create(service.complete(packaging))
    audit(request, "created", "packaging", created.id)
    wake_runner(request)
    return created


@router.put("", responses=CHANGES, response_model_exclude_none=True)
def edit_packaging(request: Request, packaging: NewPackaging) -> ModelPackaging:
    """Replace a packaging and run it again; its results are gone."""
    service = service_of(request)
    service.store.packagings.get(packaging.id)  # a missing one is told first
    edited = service.store.packagings.edit(service.complete(packaging))
    audit(request, "edited", "packaging", edited.id)
    wake_runner(request)
    return edited


@router.get("/{packaging_id}", responses=READS_ONE, response_model=ModelPackaging)
def get_packaging(request: Request, packaging_id: str) -> Response:
    """Return a packaging."""
    text = service_of(request).store.packagings.get_json(packaging_id)
    return Response(text, media_type="application/json")


@router.delete("/{packaging_id}", responses=CHANGES)
def delete_packaging(request: Request, packaging_id: str) -> Message:
    """Delete a packaging; one that runs is stopped."""
    service_of(request).store.packagings.delete(packaging_id)
    audit(request, "deleted", "packaging", packaging_id)
    wake_runner(request)
    return Message(message=f"Model packaging {packaging_id} was deleted")


@router.put("/{packaging_id}/result", responses=CHANGES)
def put_results(request: Request, packaging_id: str, results: list[NamedValue]) -> list[NamedValue]:
    """Set a packaging's results."""
    changed = service_of(request).store.packagings.put_results(packaging_id, results)
    audit(request, "set the results of", "packaging", packaging_id)
    return changed.status.results
