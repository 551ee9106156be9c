"""`/packaging/integration`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from packager.api.entities import NewIntegration, PackagingIntegration, time_text
from packager.api.entity_checks import check_integration
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
)
from packager.api.store.entity_repository import StoredEntity

router = APIRouter(prefix=f"{PREFIX}/packaging/integration", tags=["Packaging integration"], route_class=StrictRoute)


def _shown(kept: StoredEntity[NewIntegration]) -> PackagingIntegration:
    times = {"createdAt": time_text(kept.created_at), "updatedAt": time_text(kept.updated_at)}
    return PackagingIntegration.model_validate({**kept.value.model_dump(by_alias=True), **times})


@router.get("", responses=READS)
def list_integrations(request: Request, asked: Annotated[Page, Query()]) -> list[PackagingIntegration]:
    """Return integrations, the newest first."""
    return [_shown(each) for each in service_of(request).store.integrations.list(asked.page, asked.size, {})]


@router.post("", status_code=201, responses=CREATES)
def create_integration(request: Request, integration: NewIntegration) -> PackagingIntegration:
    """Create an integration."""
    created = service_of(request).store.integrations.create(check_integration(integration))
    audit(request, "created", "integration", integration.id)
    return _shown(created)


@router.put("", responses=CHANGES)
def edit_integration(request: Request, integration: NewIntegration) -> PackagingIntegration:
    """Replace an integration; packagings that run keep what they were started with."""
    integrations = service_of(request).store.integrations
    integrations.get(integration.id)
    edited = integrations.edit(check_integration(integration))
    audit(request, "edited", "integration", integration.id)
    return _shown(edited)


@router.get("/{integration_id}", responses=READS_ONE)
def get_integration(request: Request, integration_id: str) -> PackagingIntegration:
    """Return an integration."""
    return _shown(service_of(request).store.integrations.get(integration_id))


@router.delete("/{integration_id}", responses=CHANGES)
def delete_integration(request: Request, integration_id: str) -> Message:
    """Delete an integration."""
    service_of(request).store.integrations.delete(integration_id)
    audit(request, "deleted", "integration", integration_id)
    return Message(message=f"Packaging integration {integration_id} was deleted")
