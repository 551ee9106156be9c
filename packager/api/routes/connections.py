"""`/connection`: secrets come in base64 and are never shown but at `/decrypted`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import Field

from packager.api import entities
from packager.api.entities import NewConnection, time_text
from packager.api.entity_checks import read_connection
from packager.api.identity.authorization import READ_ONLY
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
)
from packager.api.store.entity_repository import StoredEntity
from packager.kube.entities import connection_document
from packager.models.connection import Connection

router = APIRouter(prefix=f"{PREFIX}/connection", tags=["Connection"], route_class=StrictRoute)


class ConnectionPage(Page):
    """Which connections."""

    type: list[str] = Field(default_factory=list)


def _shown(kept: StoredEntity[Connection], *, decrypted: bool = False) -> entities.Connection:
    document = connection_document(kept.value, decrypted=decrypted)
    times = {"createdAt": time_text(kept.created_at), "updatedAt": time_text(kept.updated_at)}
    return entities.Connection.model_validate({**document, **times})


@router.get("", responses=READS)
def list_connections(request: Request, asked: Annotated[ConnectionPage, Query()]) -> list[entities.Connection]:
    """Return connections, the newest first."""
    filters = {"type": asked.type} if asked.type else {}
    return [_shown(each) for each in service_of(request).store.connections.list(asked.page, asked.size, filters)]


@router.post("", status_code=201, responses=CREATES)
def create_connection(request: Request, connection: NewConnection) -> entities.Connection:
    """Create a connection."""
    created = service_of(request).store.connections.create(read_connection(connection, keep_mask=False))
    audit(request, "created", "connection", connection.id)
    return _shown(created)


@router.put("", responses=CHANGES)
def edit_connection(request: Request, connection: NewConnection) -> entities.Connection:
    """Replace a connection; a secret that is ***** stays as it is."""
    connections = service_of(request).store.connections
    connections.get(connection.id)
    edited = connections.edit(read_connection(connection, keep_mask=True))
    audit(request, "edited", "connection", connection.id)
    return _shown(edited)


@router.get("/{connection_id}", responses=READS_ONE)
def get_connection(request: Request, connection_id: str) -> entities.Connection:
    """Return a connection."""
    return _shown(service_of(request).store.connections.get(connection_id))


@router.get("/{connection_id}/decrypted", responses=CHANGES)
def get_decrypted_connection(request: Request, connection_id: str) -> entities.Connection:
    """Return a connection with its secrets in base64; only for who may write."""
    # The guard knows it by its path; what it takes for another path, as one that ends in %0A, the router may not.
    if not caller_of(request).may_write:
        raise HTTPException(HTTPStatus.FORBIDDEN, READ_ONLY)
    found = service_of(request).store.connections.get(connection_id)
    audit(request, "read the secrets of", "connection", connection_id)
    return _shown(found, decrypted=True)


@router.delete("/{connection_id}", responses=CHANGES)
def delete_connection(request: Request, connection_id: str) -> Message:
    """Delete a connection; a vital one can't be deleted."""
    service_of(request).store.connections.delete(connection_id)
    audit(request, "deleted", "connection", connection_id)
    return Message(message=f"Connection {connection_id} was deleted")
