"""The chart's values for the API service."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from packager import __version__
from packager.kube.resources import QUANTITY, Resources

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
    """A section of the chart's values: camelCase keys, unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class KeyOfSecret(Section):
    """A key of a Secret in the release's namespace."""

    name: str = Field(default="", description="Name of the Secret. Empty: none.")
    key: str = Field(min_length=1, description="Key in the Secret.")


class OidcValues(Section):
    """The identity provider."""

    issuer: str = Field(default="", pattern=r"^(https://.+)?$", description="Issuer URL, https://...")
    audience: str = Field(default="", description="Required audience (`aud`) of tokens.")
    write_claim: str = Field(
        default="",
        description="CLAIM=VALUE that is required for changes, such as groups=packagers. Empty: everyone may change.",
    )


class PersistenceValues(Section):
    """The volume of the embedded database and of logs."""

    size: str = Field(default="10Gi", pattern=QUANTITY, description="Size of the volume.")
    storage_class: str = Field(default="", description="Storage class. Empty: the cluster's default.")
    existing_claim: str = Field(default="", description="Existing PersistentVolumeClaim to use instead.")


class ServiceValues(Section):
    """The Service of the pods."""

    port: Port = Field(default=80, description="Port of the Service; the pods listen on 8080.")
    annotations: dict[str, str] = Field(
        default={"prometheus.io/scrape": "true", "prometheus.io/path": "/metrics", "prometheus.io/port": "8080"},
        description="Annotations of the Service. Default: the usual ones for Prometheus.",
    )


class IngressValues(Section):
    """The Ingress."""

    enabled: bool = Field(default=False, description="Install it.")
    class_name: str = Field(default="", description="Ingress class. Empty: the cluster's default.")
    host: str = Field(default="", pattern=rf"^({_LABEL}(\.{_LABEL})*)?$", description="Host name.")
    tls_secret: str = Field(
        default="",
        description="Secret of type kubernetes.io/tls for that host. Empty: plain HTTP.",
    )
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations of the Ingress.")


class ApiNetworkValues(Section):
    """The NetworkPolicy of the service's pods."""

    enabled: bool = Field(default=True, description="Install it.")
    ports: tuple[Port, ...] = Field(
        default=(443, 6443, 5432),
        min_length=1,
        description="TCP ports that the service connects to: the API server, the identity provider, PostgreSQL.",
    )
    blocked: tuple[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")], ...] = Field(
        default=METADATA_ADDRESSES, description="Blocked ranges."
    )


class ApiValues(Section):
    """The API service."""

    enabled: bool = Field(default=False, description="Install it.")
    image: str = Field(
        default=f"packager-api:{__version__}",
        min_length=1,
        description="Image of the service: built by `make api-image` and pushed to your registry. The image of the "
        "Jobs does not work: it contains neither a database nor a Kubernetes client.",
    )
    replicas: int = Field(default=1, ge=1, description="Number of replicas. More than one needs PostgreSQL.")
    database_url_secret: KeyOfSecret = Field(
        default=KeyOfSecret(key="url"),
        description="Secret with the URL of PostgreSQL, postgresql://USER:PASSWORD@HOST/NAME. Without it, the service "
        "uses SQLite on a volume.",
    )
    key_secret: KeyOfSecret = Field(
        default=KeyOfSecret(key="key"),
        description="Secret with the key that encrypts connections in the database; required with PostgreSQL. For "
        "SQLite, the service creates a key on its volume.",
    )
    tokens_secret: KeyOfSecret = Field(
        default=KeyOfSecret(key="tokens"),
        description="Secret with the token file of `packager api token --file`. This, `oidc`, or both are required.",
    )
    oidc: OidcValues = Field(default=OidcValues(), description="Tokens of an identity provider.")
    service: ServiceValues = Field(default=ServiceValues(), description="The Service packager-api.")
    ingress: IngressValues = Field(default=IngressValues(), description="Access from outside the cluster.")
    persistence: PersistenceValues = Field(
        default=PersistenceValues(),
        description="ReadWriteOnce volume for SQLite and the logs. With PostgreSQL each replica keeps its logs in an "
        "emptyDir of that size instead.",
    )
    resources: Resources = Field(
        default=Resources(requests={"cpu": "200m", "memory": "256Mi"}, limits={"cpu": "2", "memory": "1Gi"}),
        description="Of each replica.",
    )
    env: dict[str, str] = Field(
        default_factory=dict,
        json_schema_extra={"propertyNames": {"pattern": r"^[A-Za-z_]\w*$", "not": {"enum": [*_NO_SETTINGS]}}},
        description="Additional environment variables, such as PACKAGER_API_OUTPUT_CONNECTION, PACKAGER_CA_FILE or "
        "HTTPS_PROXY. Settings with a value of their own are refused, as is PACKAGER_API_ALLOWED_HOSTS: probes use a "
        "pod's address.",
    )
    network_policy: ApiNetworkValues = Field(
        default=ApiNetworkValues(), description="Egress of the service; ingress to its port is allowed for everyone."
    )
