"""The settings of the service, read once from the environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, SecretStr, field_validator, model_validator

from packager import __version__
from packager.settings import API_PREFIX, Words, read_environment
from packager.sources.stores.location import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):(?P<port>\d{1,5})")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_][A-Za-z0-9._-]*|\*|\[[0-9A-Fa-f:.]+\]")
_MAX_PORT = 65535


def _default_folder() -> Path:
    try:
        return Path.home() / ".local" / "share" / "packager"
    except RuntimeError:  # no HOME, and a user ID without a name
        return Path("packager-api")


class ApiSettings(BaseModel):
    """Settings of the service; each is the environment variable `PACKAGER_API_<NAME IN UPPER CASE>`.

    Sizes are bytes, or text such as `500 MB` or `256 MiB`. Lists are separated by spaces or commas.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    # The heading of a group of settings, by its first one.
    GROUPS: ClassVar[dict[str, str]] = {
        "listen": "Server",
        "data_dir": "Data and encryption",
        "tokens_file": "Authentication",
        "executor": "Packagings",
        "log_bytes": "Logs",
    }

    # No `port`: Kubernetes sets PACKAGER_API_PORT in every pod beside a Service named packager-api.
    listen: str = Field(
        default="127.0.0.1:8080",
        description="Address to listen on, HOST:PORT. Port 0: a free port, which the log names.",
    )
    allowed_hosts: Words = Field(
        default=(),
        description="Host names of the service, checked against the Host header; *.example.org covers subdomains. "
        "Default: any with authentication, else loopback names.",
    )
    max_body_bytes: ByteSize = Field(default=ByteSize(1 << 20), ge=1024, description="Maximum size of a request body.")
    stop_seconds: float = Field(
        default=10.0, gt=0, description="Time limit of requests and unfinished work after a stop, in seconds."
    )

    data_dir: Path = Field(
        default_factory=_default_folder,
        description="Folder of the embedded database, its encryption key, runs and logs. "
        "Default: ~/.local/share/packager.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="Database: postgresql://USER:PASSWORD@HOST/NAME or sqlite:///FILE. Default: a file in DATA_DIR.",
    )
    key: SecretStr | None = Field(
        default=None,
        description="Encryption keys for connection secrets. The first encrypts; all are tried for decryption.",
    )
    key_file: Path | None = Field(
        default=None,
        description="File with encryption keys, one per line. Default: created in DATA_DIR for the embedded database.",
    )

    tokens_file: Path | None = Field(
        default=None,
        description="File with token digests, written by `packager api token`. Changes apply without a restart.",
    )
    oidc_issuer: str | None = Field(default=None, description="URL of the OpenID Connect provider.")
    oidc_audience: str | None = Field(default=None, description="Required value in the `aud` claim of its tokens.")
    oidc_write_claim: str | None = Field(
        default=None,
        pattern=r"^[^=\s]+=.+$",
        description="Claim of the callers who may write: CLAIM=VALUE; a.b is the key b in a. Default: all callers may.",
    )
    oidc_keys_seconds: float = Field(
        default=300.0, gt=0, description="Cache lifetime of the provider's signing keys, in seconds."
    )

    executor: Literal["local", "kubernetes"] = Field(
        default="local", description="Where packagings run. local: processes on this machine. kubernetes: Jobs."
    )
    workers: int = Field(
        default=2, ge=1, le=1000, description="Maximum number of concurrent packagings of the local executor."
    )
    engine: Literal["auto", "kaniko", "buildah", "oci"] = Field(
        default="auto", description="Engine of the local executor, as in `packager run --engine`."
    )
    namespace: str = Field(
        default="",
        description="Namespace of the Jobs. Default: the current one of KUBECONFIG, or the pod's own.",
    )
    lease_seconds: float = Field(
        default=30.0,
        ge=3,
        description="Time after which another replica takes over the packagings of a failed one, in seconds.",
    )
    output_connection: str = Field(
        default="", description="Connection of the model store for packagings that name none."
    )
    models_dir: Path | None = Field(
        default=None, description="Folder of model archives for packagings without an output connection."
    )
    packager_image: str = Field(
        default=f"packager:{__version__}", min_length=1, description="Image of the packager in templates and Jobs."
    )

    log_bytes: ByteSize = Field(
        default=ByteSize(256 << 20),
        ge=1 << 16,
        description="Maximum stored size of a packaging's log; the oldest part is removed.",
    )
    log_days: float = Field(default=30.0, gt=0, description="Retention of the logs of ended packagings, in days.")
    max_log_streams: int = Field(default=500, ge=1, description="Maximum number of open log streams.")
    log_stall_seconds: float = Field(
        default=60.0, gt=0, description="Disconnect a log client that has read nothing for this long, in seconds."
    )

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        match = _LISTEN.fullmatch(value)
        if not match or int(match["port"]) > _MAX_PORT:
            raise ValueError("is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [host for host in value if not _HOST.fullmatch(host)]:
            raise ValueError(
                f"{wrong[0]!r} is not a host name; write names without ports, and *.example.org for subdomains"
            )
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value and not value.startswith("https://"):
            host = value.partition("://")[2].partition("/")[0].rpartition(":")[0]
            if not (value.startswith("http://") and is_loopback(host)):
                raise ValueError("is not an https:// URL (http:// is allowed for loopback hosts)")
        return value

    @model_validator(mode="after")
    def _belong_together(self) -> ApiSettings:
        if bool(self.oidc_issuer) != bool(self.oidc_audience):
            raise ValueError("OIDC_ISSUER and OIDC_AUDIENCE: set both, so that tokens for other services are refused")
        if self.key and self.key_file:
            raise ValueError("KEY and KEY_FILE: set only one of them")
        if not self.has_identity and not is_loopback(self.host):
            raise ValueError(
                f"LISTEN is {self.listen}, but without authentication only loopback addresses are allowed; "
                "set TOKENS_FILE or OIDC_ISSUER"
            )
        return self

    @property
    def host(self) -> str:
        """The host to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on; 0 means a free one."""
        return int(self.listen.rpartition(":")[2])

    @property
    def has_identity(self) -> bool:
        """Whether callers must authenticate."""
        return bool(self.tokens_file or self.oidc_issuer)

    @property
    def hosts(self) -> list[str]:
        """The allowed Host headers, `*.` for subdomains; empty allows any.

        Without authentication, this prevents DNS rebinding: a page of another site with its own name for 127.0.0.1.
        """
        if self.allowed_hosts:
            return list(self.allowed_hosts)
        return [] if self.has_identity else ["localhost", "127.0.0.1", "[::1]", self.host]

    @property
    def logs_dir(self) -> Path:
        """The folder of the logs."""
        return self.data_dir / "logs"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ApiSettings:
        """Read the settings from an environment.

        Raises:
            UsageError: A `PACKAGER_API_` variable is unknown or invalid; lists every problem.
        """
        return read_environment(cls, environ, prefix=API_PREFIX, listed_by="packager api settings")
