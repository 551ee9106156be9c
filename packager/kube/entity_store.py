"""Stores connections and integrations in a cluster."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from packager.errors import ClusterError, EntityExistsError, EntityNotFoundError, RequestError
from packager.kube import entities
from packager.kube.names import CONFIG_MAPS, ENTITY, ID, SECRETS, Kind, check_id, connection_name, integration_name
from packager.models.connection import Connection
from packager.models.packaging import PackagingIntegration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packager.kube.cluster import Cluster

log = logging.getLogger(__name__)

_Entity = TypeVar("_Entity", Connection, PackagingIntegration)


@dataclass(frozen=True, kw_only=True)
class EntityStore(Generic[_Entity]):
    """Stores one kind of entity as objects of a cluster.

    Attributes:
        entity: The name of the kind in labels and messages.
        kind: The kind of the objects.
        name: Makes an object's name from an ID.
        body: Makes the object from an entity and a namespace.
        read: Makes the entity from an object.
    """

    entity: str
    kind: Kind
    name: Callable[[str], str]
    body: Callable[[_Entity, str], dict[str, Any]]
    read: Callable[[dict[str, Any]], _Entity]

    def get(self, cluster: Cluster, entity_id: str) -> _Entity:
        """Return an entity.

        Raises:
            EntityNotFoundError, ClusterError
        """
        return self.read(self._object(cluster, entity_id))

    def list_all(self, cluster: Cluster) -> Iterator[_Entity]:
        """Yield all entities page by page; an invalid object is skipped with a warning.

        Raises:
            ClusterError
        """
        for page, _ in cluster.pages(self.kind, labels=f"{ENTITY}={self.entity}"):
            for each in page:
                try:
                    entity = self.read(each)
                except ClusterError as error:
                    log.warning("%s; %s", error.message, error.hint)
                    continue
                yield entity

    def create(self, cluster: Cluster, entity: _Entity) -> None:
        """Create an entity.

        Raises:
            EntityExistsError, RequestError, ClusterError
        """
        try:
            cluster.create(self.kind, self.body(entity, cluster.namespace))
        except EntityExistsError as error:
            raise EntityExistsError(
                f"{self.entity} {entity.id!r} already exists",
                hint=f"change it with `packager {self.entity} edit`",
            ) from error

    def edit(self, cluster: Cluster, entity: _Entity) -> None:
        """Replace an entity, unless another client changes it at the same time; a masked secret is kept.

        Raises:
            EntityNotFoundError, RequestError, ClusterError
        """
        old = self._object(cluster, entity.id)
        kept = entities.keep_masked(entity, self.read(old)) if isinstance(entity, Connection) else entity
        body = self.body(kept, cluster.namespace)
        metadata = old["metadata"]
        held = {key: metadata[key] for key in ("resourceVersion", "annotations") if key in metadata}
        labels = {**body["metadata"]["labels"], **(metadata.get("labels") or {})}  # keeps the labels of Helm
        cluster.replace(self.kind, {**body, "metadata": {**body["metadata"], **held, "labels": labels}})

    def delete(self, cluster: Cluster, entity_id: str) -> None:
        """Delete an entity.

        Raises:
            EntityNotFoundError, RequestError, ClusterError
        """
        found = self._object(cluster, entity_id)
        entity = self.read(found)
        if isinstance(entity, Connection) and entity.spec.vital:
            raise RequestError(
                f"connection {entity_id!r} is vital and cannot be deleted", hint="set `vital: false` first"
            )
        cluster.delete(self.kind, found["metadata"]["name"], uid=found["metadata"]["uid"])

    def _object(self, cluster: Cluster, entity_id: str) -> dict[str, Any]:
        try:
            found = cluster.get(self.kind, self.name(check_id(entity_id, self.entity)))
        except EntityNotFoundError:
            found = {}
        if (found.get("metadata", {}).get("labels") or {}).get(ID) != entity_id:
            raise EntityNotFoundError(
                f"{self.entity} {entity_id!r} does not exist in namespace {cluster.namespace!r}",
                hint=f"`packager {self.entity} get` lists all",
            )
        return found


CONNECTIONS: EntityStore[Connection] = EntityStore(
    entity="connection",
    kind=SECRETS,
    name=connection_name,
    body=entities.connection_secret,
    read=entities.connection_of,
)
INTEGRATIONS: EntityStore[PackagingIntegration] = EntityStore(
    entity="integration",
    kind=CONFIG_MAPS,
    name=integration_name,
    body=entities.integration_config_map,
    read=entities.integration_of,
)
