"""What our objects are called in a cluster, and the labels that they are found by."""

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
DOCUMENT = f"{DOMAIN}/document"  # an annotation: the ModelPackaging, without any secret
RESULTS = f"{DOMAIN}/results"  # an annotation: the results, so that they outlive the pod
CONTAINER = "packager"
SETTINGS_NAME = "packager-jobs"  # a ConfigMap
SETTINGS_KEY = "settings.yaml"
COMMON_LABELS = {"app.kubernetes.io/name": "packager", "app.kubernetes.io/managed-by": "packager"}
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of objects in a cluster.

    Attributes:
        path: The API group's path.
        plural: How it is named in paths and permissions.
        api_version, name: As in a manifest.
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


def check_id(entity_id: str, what: str) -> str:
    """Return an entity's id when it is one that the platform allows.

    Raises:
        RequestError: It's empty, too long or has other characters.
    """
    if not entity_id:
        raise RequestError(f"the {what} has no id", hint="write `id:` into the document, or give --id")
    if not _ID.fullmatch(entity_id):
        raise RequestError(
            f"{entity_id!r} is no id of a {what}",
            hint="use at most 63 lower-case letters, digits and '-', with a letter or digit first and last",
        )
    return entity_id


def check_namespace(name: str) -> str:
    """Return a namespace when it can be one (RFC 1123, as Kubernetes has it).

    Raises:
        UsageError: It has other characters, or too many.
    """
    if not _ID.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a namespace", hint="`kubectl get namespaces` lists them")
    return name


def secret_name(packaging_id: str, attempt: str) -> str:
    """Return the name of the Secret that holds a packaging's mp.json.

    `attempt` tells it from the Secret of an earlier Job of that id, which the cluster may still be removing.
    """
    return f"packaging-{packaging_id}{'-' if attempt else ''}{attempt}"


def connection_name(connection_id: str) -> str:
    """Return the name of the Secret that a connection is."""
    return f"connection-{connection_id}"


def integration_name(integration_id: str) -> str:
    """Return the name of the ConfigMap that an integration is."""
    return f"integration-{integration_id}"
