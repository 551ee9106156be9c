"""The names and labels of the objects that the packager creates in a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packager.errors import RequestError, UsageError

DOMAIN = "packager.odahu.org"
ENTITY = f"{DOMAIN}/entity"  # packaging, connection or integration
PACKAGING_ID = f"{DOMAIN}/packaging"
INTEGRATION_ID = f"{DOMAIN}/integration"
ENGINE = f"{DOMAIN}/engine"
ID = f"{DOMAIN}/id"  # of a connection or an integration
ARTIFACT = f"{DOMAIN}/artifact"
DOCUMENT = f"{DOMAIN}/document"  # an annotation: the ModelPackaging, without secrets
RESULTS = f"{DOMAIN}/results"  # an annotation: the results, which outlive the pod there
CONTAINER = "packager"
SETTINGS_NAME = "packager-jobs"  # a ConfigMap
SETTINGS_KEY = "settings.yaml"
COMMON_LABELS = {"app.kubernetes.io/name": "packager", "app.kubernetes.io/managed-by": "packager"}
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of objects in a cluster.

    Attributes:
        path: The URL path of the API group.
        plural: The name in paths and permissions.
        api_version, name: `apiVersion` and `kind` of a manifest.
        group: The API group as roles name it.
    """

    path: str
    plural: str
    api_version: str
    name: str
    group: str = ""


JOBS = Kind(path="/apis/batch/v1", plural="jobs", api_version="batch/v1", name="Job", group="batch")
PODS = Kind(path="/api/v1", plural="pods", api_version="v1", name="Pod")
SECRETS = Kind(path="/api/v1", plural="secrets", api_version="v1", name="Secret")
CONFIG_MAPS = Kind(path="/api/v1", plural="configmaps", api_version="v1", name="ConfigMap")
EVENTS = Kind(path="/api/v1", plural="events", api_version="v1", name="Event")


def check_id(entity_id: str, entity: str) -> str:
    """Return an ID that the platform allows; `entity` names its entity in errors.

    Raises:
        RequestError: The ID is empty, too long or has invalid characters.
    """
    if not entity_id:
        raise RequestError(f"the {entity} has no ID", hint="add `id:` to the document, or give --id")
    if not _ID.fullmatch(entity_id):
        raise RequestError(
            f"invalid {entity} ID {entity_id!r}",
            hint="use at most 63 lower-case letters, digits and '-', with a letter or digit first and last",
        )
    return entity_id


def check_namespace(name: str) -> str:
    """Return a valid namespace name (RFC 1123, as in Kubernetes).

    Raises:
        UsageError: The name is too long or has invalid characters.
    """
    if not _ID.fullmatch(name):
        raise UsageError(f"invalid namespace {name!r}", hint="`kubectl get namespaces` lists the namespaces")
    return name


def secret_name(packaging_id: str, attempt: str) -> str:
    """Return the name of the Secret with a packaging's mp.json.

    `attempt` makes it differ from the Secret of an earlier Job with this ID, which the cluster may still be deleting.
    """
    return f"packaging-{packaging_id}{'-' if attempt else ''}{attempt}"


def connection_name(connection_id: str) -> str:
    """Return the name of a connection's Secret."""
    return f"connection-{connection_id}"


def integration_name(integration_id: str) -> str:
    """Return the name of an integration's ConfigMap."""
    return f"integration-{integration_id}"
