"""Connections and integrations in a cluster: the same verbs for both."""

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
class EntityShelf(Generic[_Entity]):
    """How one kind of entity is kept.

    Attributes:
        what: Its name in labels and messages.
        kind: What it is in the cluster.
        name: From an id to the object's name.
        body: From an entity and a namespace to the object.
        read: From the object to the entity.
    """

    what: str
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
        """Give all entities, a page at a time; an object that is only labelled as one is told and left out.

        Raises:
            ClusterError
        """
        for page, _ in cluster.pages(self.kind, labels=f"{ENTITY}={self.what}"):
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
                f"the cluster has the {self.what} {entity.id!r} already",
                hint=f"`packager {self.what} edit` changes it",
            ) from error

    def edit(self, cluster: Cluster, entity: _Entity) -> None:
        """Replace an entity, unless someone else changes it at the same time; a masked secret stays as it is.

        Raises:
            EntityNotFoundError, RequestError, ClusterError
        """
        old = self._object(cluster, entity.id)
        kept = entities.keep_masked(entity, self.read(old)) if isinstance(entity, Connection) else entity
        body = self.body(kept, cluster.namespace)
        metadata = old["metadata"]
        held = {key: metadata[key] for key in ("resourceVersion", "annotations") if key in metadata}
        labels = {**body["metadata"]["labels"], **(metadata.get("labels") or {})}  # Helm keeps what is its own
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
                f"the connection {entity_id!r} is vital and can't be deleted", hint="edit it to `vital: false` first"
            )
        cluster.delete(self.kind, found["metadata"]["name"], uid=found["metadata"]["uid"])

    def _object(self, cluster: Cluster, entity_id: str) -> dict[str, Any]:
        try:
            found = cluster.get(self.kind, self.name(check_id(entity_id, self.what)))
        except EntityNotFoundError:
            found = {}
        if (found.get("metadata", {}).get("labels") or {}).get(ID) != entity_id:
            raise EntityNotFoundError(
                f"there is no {self.what} {entity_id!r} in the namespace {cluster.namespace!r}",
                hint=f"`packager {self.what} get` lists them",
            )
        return found


CONNECTIONS: EntityShelf[Connection] = EntityShelf(
    what="connection",
    kind=SECRETS,
    name=connection_name,
    body=entities.connection_secret,
    read=entities.connection_of,
)
INTEGRATIONS: EntityShelf[PackagingIntegration] = EntityShelf(
    what="integration",
    kind=CONFIG_MAPS,
    name=integration_name,
    body=entities.integration_config_map,
    read=entities.integration_of,
)
