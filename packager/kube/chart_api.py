"""The chart's values for the API service."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from packager import __version__
from packager.kube.resources import ContainerResources
from packager.models.resources import QUANTITY

METADATA_ADDRESSES = ("169.254.169.254/32", "fd00:ec2::254/128")
Port = Annotated[int, Field(ge=1, le=65535)]
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_FILLED = (
    "DATABASE_URL",
    "DATA_DIR",
    "EXECUTOR",
    "KEY",
    "KEY_FILE",
    "LISTEN",
    "NAMESPACE",
    "PACKAGER_IMAGE",
    "TOKENS_FILE",
)
_OIDC = ("OIDC_AUDIENCE", "OIDC_ISSUER", "OIDC_WRITE_CLAIM")
# Probes call a pod by its address.
_NO_SETTINGS = [f"PACKAGER_API_{name}" for name in (*_FILLED, *_OIDC, "ALLOWED_HOSTS")]


class Section(BaseModel):
    """A section of the chart's values: camelCase, and nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class KeyOfSecret(Section):
    """A key of a Secret in the release's namespace."""

    name: str = Field(default="", description="The Secret's name; empty: none.")
    key: str = Field(min_length=1, description="Its key.")


class OidcValues(Section):
    """The identity provider."""

    issuer: str = Field(default="", pattern=r"^(https://.+)?$", description="Its URL, https://...")
    audience: str = Field(default="", description="What a token's `aud` must hold.")
    write_claim: str = Field(
        default="", description="CLAIM=VALUE of who may change anything, such as groups=packagers; empty: everyone."
    )


class PersistenceValues(Section):
    """The volume of the embedded database and of logs."""

    size: str = Field(default="10Gi", pattern=QUANTITY, description="Its size.")
    storage_class: str = Field(default="", description="Its storage class; empty: the cluster's default.")
    existing_claim: str = Field(default="", description="A PersistentVolumeClaim of yours in its place.")


class ServiceValues(Section):
    """The Service before the pods."""

    port: Port = Field(default=80, description="Its port; the pods listen on 8080.")
    annotations: dict[str, str] = Field(
        default={"prometheus.io/scrape": "true", "prometheus.io/path": "/metrics", "prometheus.io/port": "8080"},
        description="Its annotations; these are what a Prometheus with the usual rules looks for.",
    )


class IngressValues(Section):
    """The way in from outside the cluster."""

    enabled: bool = Field(default=False, description="Install it.")
    class_name: str = Field(default="", description="The ingress class; empty: the cluster's default.")
    host: str = Field(default="", pattern=rf"^({_LABEL}(\.{_LABEL})*)?$", description="The name that it's called by.")
    tls_secret: str = Field(
        default="",
        description="A Secret of type kubernetes.io/tls for that name; empty: the ingress speaks plain HTTP.",
    )
    annotations: dict[str, str] = Field(default_factory=dict, description="Its annotations.")


class ApiNetworkValues(Section):
    """What the service's pods may speak to, and who to them."""

    enabled: bool = Field(default=True, description="Install it.")
    ports: tuple[Port, ...] = Field(
        default=(443, 6443, 5432),
        min_length=1,
        description="TCP ports that the service connects to: the API server, the identity provider, PostgreSQL.",
    )
    blocked: tuple[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")], ...] = Field(
        default=METADATA_ADDRESSES, description="Ranges that stay closed."
    )


class ApiValues(Section):
    """The API service."""

    enabled: bool = Field(default=False, description="Install it.")
    image: str = Field(
        default=f"packager-api:{__version__}",
        min_length=1,
        description="Its image: what `make api-image` makes, in a registry of yours. The image of the Jobs won't do: "
        "it has neither a database nor a Kubernetes client.",
    )
    replicas: int = Field(default=1, ge=1, description="How many; more than one only with PostgreSQL.")
    database_url_secret: KeyOfSecret = Field(
        default=KeyOfSecret(key="url"),
        description="PostgreSQL, by its URL postgresql://USER:PASSWORD@HOST/NAME; without it the service keeps SQLite "
        "on a volume.",
    )
    key_secret: KeyOfSecret = Field(
        default=KeyOfSecret(key="key"),
        description="What connections are sealed with in the database; needed with PostgreSQL. The embedded database "
        "gets a key of its own on its volume.",
    )
    tokens_secret: KeyOfSecret = Field(
        default=KeyOfSecret(key="tokens"),
        description="Who may call: the lines of `packager api token --file`. The service wants this, `oidc`, or both.",
    )
    oidc: OidcValues = Field(default=OidcValues(), description="Who may call: the tokens of an identity provider.")
    service: ServiceValues = Field(default=ServiceValues(), description="The Service packager-api.")
    ingress: IngressValues = Field(default=IngressValues(), description="The way in from outside the cluster.")
    persistence: PersistenceValues = Field(
        default=PersistenceValues(),
        description="The volume of the embedded database and of logs, ReadWriteOnce. With PostgreSQL each replica "
        "keeps its logs in an emptyDir of that size in its place.",
    )
    resources: ContainerResources = Field(
        default=ContainerResources(requests={"cpu": "200m", "memory": "256Mi"}, limits={"cpu": "2", "memory": "1Gi"}),
        description="Of each replica.",
    )
    env: dict[str, str] = Field(
        default_factory=dict,
        json_schema_extra={"propertyNames": {"pattern": r"^[A-Za-z_]\w*$", "not": {"enum": [*_NO_SETTINGS]}}},
        description="Further settings: PACKAGER_API_OUTPUT_CONNECTION, PACKAGER_CA_FILE, HTTPS_PROXY and the like; "
        "none that the other values are for, and no PACKAGER_API_ALLOWED_HOSTS, as probes call a pod by its address.",
    )
    network_policy: ApiNetworkValues = Field(
        default=ApiNetworkValues(), description="What the service may connect to; everyone may connect to its port."
    )
