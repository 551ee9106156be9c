"""`/model/packaging`, `/packaging/integration` and `/connection`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import Field

from packager.api.entities import (
    NamedValue,
    NewConnection,
    NewIntegration,
    NewPackaging,
    StoredConnection,
    StoredIntegration,
    StoredPackaging,
    time_text,
)
from packager.api.middleware import READ_ONLY
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
    caller_of,
    service_of,
    wake_runner,
)
from packager.api.validation import check_integration, read_connection
from packager.kube.entities import connection_document

if TYPE_CHECKING:
    from packager.api.store.leases import StoredEntity
    from packager.models.connection import Connection
    from packager.models.packaging import PackagingIntegration

packagings = APIRouter(prefix=f"{PREFIX}/model/packaging", tags=["Packaging"], route_class=StrictRoute)
integrations = APIRouter(
    prefix=f"{PREFIX}/packaging/integration", tags=["Packaging integration"], route_class=StrictRoute
)
connections = APIRouter(prefix=f"{PREFIX}/connection", tags=["Connection"], route_class=StrictRoute)


class PackagingPage(Page):
    """A page of packagings."""

    integration_name: list[str] = Field(default_factory=list, alias="integrationName")


class ConnectionPage(Page):
    """A page of connections."""

    type: list[str] = Field(default_factory=list)


# Packagings


@packagings.get("", responses=READS, response_model=list[StoredPackaging])
def list_packagings(request: Request, query: Annotated[PackagingPage, Query()]) -> Response:
    """Return packagings, newest first."""
    filters = {"integration_name": query.integration_name} if query.integration_name else {}
    text = service_of(request).store.packagings.list_json(query.page, query.size, filters)
    return Response(text, media_type="application/json")


@packagings.post("", status_code=201, responses=CREATES, response_model_exclude_none=True)
def create_packaging(request: Request, packaging: NewPackaging) -> StoredPackaging:
    """Create a packaging and run it."""
    service = service_of(request)
    created = service.store.packagings.create(service.complete(packaging))
    audit(request, "created", "packaging", created.id)
    wake_runner(request)
    return created


@packagings.put("", responses=CHANGES, response_model_exclude_none=True)
def edit_packaging(request: Request, packaging: NewPackaging) -> StoredPackaging:
    """Replace a packaging and run it again; its old results are removed."""
    service = service_of(request)
    service.store.packagings.get(packaging.id)  # 404 comes before 400
    edited = service.store.packagings.edit(service.complete(packaging))
    audit(request, "edited", "packaging", edited.id)
    wake_runner(request)
    return edited


@packagings.get("/{packaging_id}", responses=READS_ONE, response_model=StoredPackaging)
def get_packaging(request: Request, packaging_id: str) -> Response:
    """Return a packaging."""
    text = service_of(request).store.packagings.get_json(packaging_id)
    return Response(text, media_type="application/json")


@packagings.delete("/{packaging_id}", responses=CHANGES)
def delete_packaging(request: Request, packaging_id: str) -> Message:
    """Delete a packaging and stop its run."""
    service_of(request).store.packagings.delete(packaging_id)
    audit(request, "deleted", "packaging", packaging_id)
    wake_runner(request)
    return Message(message=f"Model packaging {packaging_id} was deleted")


@packagings.put("/{packaging_id}/result", responses=CHANGES)
def put_results(request: Request, packaging_id: str, results: list[NamedValue]) -> list[NamedValue]:
    """Set the results of a packaging."""
    changed = service_of(request).store.packagings.put_results(packaging_id, results)
    audit(request, "set the results of", "packaging", packaging_id)
    return changed.status.results


# Integrations


@integrations.get("", responses=READS)
def list_integrations(request: Request, query: Annotated[Page, Query()]) -> list[StoredIntegration]:
    """Return integrations, newest first."""
    return [_integration(each) for each in service_of(request).store.integrations.list(query.page, query.size, {})]


@integrations.post("", status_code=201, responses=CREATES)
def create_integration(request: Request, integration: NewIntegration) -> StoredIntegration:
    """Create an integration."""
    created = service_of(request).store.integrations.create(check_integration(integration))
    audit(request, "created", "integration", integration.id)
    return _integration(created)


@integrations.put("", responses=CHANGES)
def edit_integration(request: Request, integration: NewIntegration) -> StoredIntegration:
    """Replace an integration; running packagings keep the old one."""
    repository = service_of(request).store.integrations
    repository.get(integration.id)
    edited = repository.edit(check_integration(integration))
    audit(request, "edited", "integration", integration.id)
    return _integration(edited)


@integrations.get("/{integration_id}", responses=READS_ONE)
def get_integration(request: Request, integration_id: str) -> StoredIntegration:
    """Return an integration."""
    return _integration(service_of(request).store.integrations.get(integration_id))


@integrations.delete("/{integration_id}", responses=CHANGES)
def delete_integration(request: Request, integration_id: str) -> Message:
    """Delete an integration."""
    service_of(request).store.integrations.delete(integration_id)
    audit(request, "deleted", "integration", integration_id)
    return Message(message=f"Packaging integration {integration_id} was deleted")


def _integration(stored: StoredEntity[PackagingIntegration]) -> StoredIntegration:
    return StoredIntegration.model_validate({**stored.value.model_dump(by_alias=True), **_times(stored)})


# Connections


@connections.get("", responses=READS)
def list_connections(request: Request, query: Annotated[ConnectionPage, Query()]) -> list[StoredConnection]:
    """Return connections, newest first."""
    filters = {"type": query.type} if query.type else {}
    return [_connection(each) for each in service_of(request).store.connections.list(query.page, query.size, filters)]


@connections.post("", status_code=201, responses=CREATES)
def create_connection(request: Request, connection: NewConnection) -> StoredConnection:
    """Create a connection."""
    created = service_of(request).store.connections.create(read_connection(connection, keep_mask=False))
    audit(request, "created", "connection", connection.id)
    return _connection(created)


@connections.put("", responses=CHANGES)
def edit_connection(request: Request, connection: NewConnection) -> StoredConnection:
    """Replace a connection; a secret given as ***** is kept."""
    repository = service_of(request).store.connections
    repository.get(connection.id)
    edited = repository.edit(read_connection(connection, keep_mask=True))
    audit(request, "edited", "connection", connection.id)
    return _connection(edited)


@connections.get("/{connection_id}", responses=READS_ONE)
def get_connection(request: Request, connection_id: str) -> StoredConnection:
    """Return a connection with its secrets masked."""
    return _connection(service_of(request).store.connections.get(connection_id))


@connections.get("/{connection_id}/decrypted", responses=CHANGES)
def get_decrypted_connection(request: Request, connection_id: str) -> StoredConnection:
    """Return a connection with its secrets in base64, to callers who may write."""
    # The middleware recognizes this route by the path; the router may match other paths too, such as one ending in %0A.
    if not caller_of(request).may_write:
        raise HTTPException(HTTPStatus.FORBIDDEN, READ_ONLY)
    found = service_of(request).store.connections.get(connection_id)
    audit(request, "read the secrets of", "connection", connection_id)
    return _connection(found, decrypted=True)


@connections.delete("/{connection_id}", responses=CHANGES)
def delete_connection(request: Request, connection_id: str) -> Message:
    """Delete a connection that is not vital."""
    service_of(request).store.connections.delete(connection_id)
    audit(request, "deleted", "connection", connection_id)
    return Message(message=f"Connection {connection_id} was deleted")


def _connection(stored: StoredEntity[Connection], *, decrypted: bool = False) -> StoredConnection:
    document = connection_document(stored.value, decrypted=decrypted)
    return StoredConnection.model_validate({**document, **_times(stored)})


def _times(stored: StoredEntity[Connection] | StoredEntity[PackagingIntegration]) -> dict[str, str]:
    return {"createdAt": time_text(stored.created_at), "updatedAt": time_text(stored.updated_at)}
