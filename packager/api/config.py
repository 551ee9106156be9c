"""The service's own settings: read once from the environment, passed on as a frozen value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from packager import __version__
from packager.settings import API_PREFIX, Words, read_environment
from packager.sources.stores.location import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):(?P<port>\d{1,5})")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_][A-Za-z0-9._-]*|\*|\[[0-9A-Fa-f:.]+\]")
_MOST_PORTS = 65535


def _default_folder() -> Path:
    try:
        return Path.home() / ".local" / "share" / "packager"
    except RuntimeError:  # a user id that nobody knows, and no HOME
        return Path("packager-api")


class ApiSettings(BaseModel):
    """Settings of the service; each is the environment variable `PACKAGER_API_<NAME IN UPPER CASE>`.

    Sizes are bytes, times are seconds. Lists are separated by spaces or commas.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # No `port`: Kubernetes sets PACKAGER_API_PORT in every pod beside a Service named packager-api.
    listen: str = Field(
        default="127.0.0.1:8080", description="HOST:PORT to listen on; port 0 takes a free one, which the log names."
    )
    data_dir: Path = Field(
        default_factory=_default_folder,
        description="Where the embedded database, its key and the logs lie (default: ~/.local/share/packager).",
    )
    database_url: SecretStr | None = Field(
        default=None, description="postgresql://USER:PASSWORD@HOST/NAME, or sqlite:///FILE (default: in DATA_DIR)."
    )
    key: SecretStr | None = Field(
        default=None, description="What connection secrets are sealed with; several: the first seals, each opens."
    )
    key_file: Path | None = Field(
        default=None,
        description="A file with such keys, one a line (default: one is made in DATA_DIR for the embedded database).",
    )

    tokens_file: Path | None = Field(
        default=None,
        description="A file of tokens' digests by `packager api token`; read again when it changes.",
    )
    oidc_issuer: str | None = Field(default=None, description="The URL of the OpenID Connect provider.")
    oidc_audience: str | None = Field(default=None, description="What a token's `aud` must hold.")
    oidc_write_claim: str | None = Field(
        default=None,
        pattern=r"^[^=\s]+=.+$",
        description="CLAIM=VALUE that a token must have to change anything (default: each may); a.b is b in a.",
    )
    oidc_keys_seconds: float = Field(default=300.0, gt=0, description="How long the provider's keys are kept.")

    executor: Literal["local", "kubernetes"] = Field(
        default="local", description="What runs packagings: processes on this machine, or Jobs in a cluster."
    )
    workers: int = Field(default=2, ge=1, le=1000, description="How many packagings run at once on this machine.")
    engine: Literal["auto", "kaniko", "buildah", "oci"] = Field(
        default="auto", description="The engine of packagings on this machine, as `packager run --engine` has it."
    )
    namespace: str = Field(
        default="", description="Where Jobs run (default: as kubectl and KUBECONFIG say, or the pod's own namespace)."
    )
    lease_seconds: float = Field(
        default=30.0, ge=3, description="After what silence of a replica another takes its packagings over."
    )
    output_connection: str = Field(
        default="", description="The connection of the store of models, where a packaging names none."
    )
    models_dir: Path | None = Field(
        default=None, description="A folder of model archives, for packagings without an output connection."
    )
    packager_image: str = Field(
        default=f"packager:{__version__}", min_length=1, description="The packager's image in messages and Jobs."
    )

    max_body_bytes: int = Field(default=1 << 20, ge=1024, description="Largest body of a request.")
    max_log_streams: int = Field(default=500, ge=1, description="How many logs may be followed at once.")
    log_stall_seconds: float = Field(
        default=60.0, gt=0, description="Who reads nothing of a log for so long is dropped."
    )
    log_bytes: int = Field(
        default=256 << 20, ge=1 << 16, description="How much is kept of each packaging's log: its last part."
    )
    log_days: float = Field(default=30.0, gt=0, description="How long the logs of packagings that have ended are kept.")
    stop_seconds: float = Field(default=10.0, gt=0, description="How long what was begun may take after a stop.")
    allowed_hosts: Words = Field(
        default=(),
        description="Names that the service is called by (the Host header); default: any, or loopback names.",
    )

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        match = _LISTEN.fullmatch(value)
        if not match or int(match["port"]) > _MOST_PORTS:
            raise ValueError("is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [host for host in value if not _HOST.fullmatch(host)]:
            raise ValueError(f"{wrong[0]!r} is no host name; write names without ports, *.example.org for subdomains")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value and not value.startswith("https://"):
            host = value.partition("://")[2].partition("/")[0].rpartition(":")[0]
            if not (value.startswith("http://") and is_loopback(host)):
                raise ValueError("is no https:// address (http:// only for loopback hosts)")
        return value

    @model_validator(mode="after")
    def _belong_together(self) -> ApiSettings:
        if bool(self.oidc_issuer) != bool(self.oidc_audience):
            raise ValueError("OIDC_ISSUER and OIDC_AUDIENCE: give both; a token for another service must not do here")
        if self.key and self.key_file:
            raise ValueError("KEY and KEY_FILE: give one of them")
        if not self.has_identity and not is_loopback(self.host):
            raise ValueError(
                f"LISTEN is {self.listen}, but without TOKENS_FILE or OIDC_ISSUER everyone who reaches the service may "
                "do everything: it listens on loopback addresses only; set one of them"
            )
        return self

    @property
    def host(self) -> str:
        """The address to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on; 0: a free one."""
        return int(self.listen.rpartition(":")[2])

    @property
    def has_identity(self) -> bool:
        """Whether callers must say who they are."""
        return bool(self.tokens_file or self.oidc_issuer)

    @property
    def hosts(self) -> list[str]:
        """What the Host header of a request may be, `*.` standing for subdomains; empty: anything.

        Without identities a page of another site must not reach the service by a name of its own for 127.0.0.1.
        """
        if self.allowed_hosts:
            return list(self.allowed_hosts)
        return [] if self.has_identity else ["localhost", "127.0.0.1", "[::1]", self.host]

    @property
    def logs_dir(self) -> Path:
        """Where the logs of packagings are kept."""
        return self.data_dir / "logs"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ApiSettings:
        """Read the settings from an environment.

        Raises:
            UsageError: A `PACKAGER_API_` variable is unknown or its value is wrong; lists every problem.
        """
        return read_environment(cls, environ, prefix=API_PREFIX, listed_by="packager api settings")
