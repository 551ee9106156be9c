"""The settings of the program: read once from the environment, passed on as a frozen value."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
)

from packager.errors import UsageError
from packager.logs.redaction import secrets_of_url

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "PACKAGER_"
API_PREFIX = f"{PREFIX}API_"  # settings of the API service, which `packager api` reads
# Kubernetes sets these variables in every pod for a Service named packager or packager-... (kubernetes.io, "Service",
# "Environment variables"). No setting has such a name.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_\d+_(TCP|UDP|SCTP).*)?$")

_Model = TypeVar("_Model", bound=BaseModel)


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = (word.partition("=") for word in value.replace(",", " ").split())
    return {name: text for name, _, text in pairs}


_PLATFORMS = {"linux/amd64": "linux-64", "linux/arm64": "linux-aarch64"}


def _conda_platform(value: object) -> object:
    if value in _PLATFORMS.values():
        return value
    if value not in _PLATFORMS:
        raise ValueError(f"unknown platform; supported: {', '.join(_PLATFORMS)}")
    return _PLATFORMS[value]


def _own_platform() -> Literal["linux-64", "linux-aarch64"]:
    return "linux-aarch64" if platform.machine() in ("aarch64", "arm64") else "linux-64"


def read_platform(text: str) -> str:
    """Return a platform as conda names it.

    Raises:
        UsageError: The platform is not supported.
    """
    if text in _PLATFORMS.values():
        return text
    try:
        return _PLATFORMS[text]
    except KeyError:
        raise UsageError(
            f"unknown platform {text!r} in --platform", hint=f"supported: {', '.join(_PLATFORMS)}"
        ) from None


def _check_mode(value: object) -> object:
    try:
        return "always" if TypeAdapter(bool).validate_python(value) else "never"
    except ValidationError:
        return value


Platform = Annotated[Literal["linux-64", "linux-aarch64"], BeforeValidator(_conda_platform)]
CheckMode = Annotated[Literal["auto", "always", "never"], BeforeValidator(_check_mode)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
SecretWords = Annotated[tuple[SecretStr, ...], BeforeValidator(_words)]
SecretPairs = Annotated[dict[str, SecretStr], BeforeValidator(_pairs)]


def _default_cache() -> Path:
    """Return a folder in the home directory, else in TMPDIR: containers have users without one, and read-only roots."""
    folder: Path | None
    try:
        folder = Path.home() / ".cache" / "packager"
    except RuntimeError:  # a user ID without an account and no HOME, as in OpenShift's containers
        folder = None
    if folder is not None:
        there = next((place for place in (folder, *folder.parents[:2]) if place.is_dir()), None)
        if there is not None and os.access(there, os.W_OK):
            return folder
    return Path(tempfile.gettempdir()) / f"packager-cache-{os.getuid()}"


class Settings(BaseModel):
    """Settings of one run; each is the environment variable `PACKAGER_<NAME IN UPPER CASE>`.

    Sizes are bytes, or text such as `500 MB` or `64 GiB`. Lists are separated by spaces or commas.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    # The heading of each group of settings, by the group's first setting.
    GROUPS: ClassVar[dict[str, str]] = {
        "work_dir": "Folders",
        "artifact_max_bytes": "Models and their stores",
        "platform": "Image",
        "conda_channel_alias": "Conda and pip",
        "server": "Serving and the check",
        "insecure_registries": "Registries",
        "buildah_isolation": "Engines",
        "cache_repo": "Environment cache",
        "ecr_create_repositories": "Amazon ECR",
        "stop_grace": "Other",
    }

    work_dir: Path | None = Field(
        default=None, description="Folder for temporary files. Default: TMPDIR, else /var/tmp."
    )
    cache_dir: Path = Field(
        default_factory=_default_cache,
        description="Folder that keeps downloads between runs. Default: packager in the user's cache folder.",
    )

    artifact_max_bytes: ByteSize = Field(
        default=ByteSize(64 << 30), gt=0, description="Maximum unpacked size of a model archive."
    )
    artifact_max_entries: int = Field(
        default=200_000, gt=0, description="Maximum number of files and folders in a model archive."
    )
    artifact_max_ratio: int = Field(
        default=1000,
        gt=0,
        description="Maximum compression ratio of a model archive, enforced above 10 MB of unpacked data.",
    )

    artifact_max_download_bytes: ByteSize = Field(
        default=ByteSize(64 << 30), gt=0, description="Maximum size of a model archive downloaded from a store."
    )
    insecure_stores: Words = Field(
        default=(),
        description="Artifact stores reached over plain HTTP: HOST:PORT, several separated by "
        "spaces. Loopback hosts are always allowed.",
    )

    platform: Platform = Field(
        default_factory=_own_platform,
        description="Platform of the images: linux/amd64 or linux/arm64. Default: this machine's.",
    )
    glibc: str | None = Field(
        default=None,
        pattern=r"^\d+\.\d+$",
        description="glibc version of the base image, such as 2.36, where it cannot be detected.",
    )
    base_python: str | None = Field(
        default=None,
        pattern=r"^\d+\.\d+$",
        description="Python version of the base image, such as 3.11, where it cannot be "
        "detected (models with pip dependencies).",
    )
    default_python: str = Field(
        default="3.11", pattern=r"^\d+\.\d+$", description="Python version for conda files without one."
    )

    conda_channel_alias: str = Field(
        default="https://conda.anaconda.org/", description="Base URL for bare channel names such as conda-forge."
    )
    conda_default_channels: Words = Field(
        default=("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"),
        description="Channels of `defaults`; also used for conda files without channels.",
    )
    conda_mirrors: SecretPairs = Field(
        default_factory=dict,
        description="Mirrors of conda channels: CHANNEL_URL=MIRROR_URL pairs. Only the mirror is used.",
    )
    conda_credentials: SecretWords = Field(
        default=(), description="Credentials for conda channels: HOST=USER:PASSWORD or HOST=TOKEN."
    )
    pip_index_url: SecretStr | None = Field(
        default=None, description="Package index for requirement files without one. Default: PyPI."
    )
    pip_extra_index_urls: SecretWords = Field(default=(), description="Additional package indexes.")
    pip_find_links: SecretWords = Field(default=(), description="Folders or pages with wheels.")

    server: Literal["auto", "granian", "gunicorn"] = Field(
        default="auto",
        description="HTTP server in docker-rest images. auto: granian where it supports "
        "the image's Python, else gunicorn.",
    )

    check: CheckMode = Field(
        default="auto",
        description="Load the model and predict its example before the push. auto: where this machine can run it. "
        "always (or true): fail where it cannot. never (or false): skip it, whatever the packaging asks for.",
    )
    check_seconds: float = Field(default=300.0, gt=0, description="Time limit of the check, in seconds.")
    check_cache_max_bytes: ByteSize = Field(
        default=ByteSize(10 << 30),
        ge=0,
        description="Maximum size of unpacked environments kept in the cache folder for the check (0: keep none). "
        "They take at most half of the disk.",
    )
    check_fetch_max_bytes: ByteSize = Field(
        default=ByteSize(500_000_000),
        ge=0,
        description="Maximum packed size of an environment downloaded from the registry for the check.",
    )

    insecure_registries: Words = Field(
        default=(),
        description="Registries reached over plain HTTP: HOST:PORT, several separated by "
        "spaces. Loopback hosts are always allowed.",
    )
    registry_mirrors: Words = Field(
        default=(),
        description="Registry mirrors for base images: HOST=MIRROR pairs, where MIRROR is a host or a host and a path. "
        "Tried in order before HOST itself.",
    )
    registry_retry_seconds: float = Field(
        default=60.0, ge=0, description="How long to retry transient registry errors, in seconds."
    )
    ca_file: Path | None = Field(
        default=None, description="PEM file with certificate authorities to trust in addition to the system's."
    )
    client_certificates: Words = Field(
        default=(),
        description="Client certificates for registries: HOST=CERTIFICATE:KEY, both PEM files.",
    )
    buildah_isolation: Literal["auto", "oci", "rootless", "chroot"] = Field(
        default="auto", description="Value of Buildah's --isolation. auto: the strongest that works on this machine."
    )
    image_format: Literal["oci", "docker"] = Field(
        default="oci", description="Manifest format that the oci engine writes."
    )
    layer_compression: Literal["auto", "gzip", "zstd", "none"] = Field(
        default="auto",
        description="Layer compression of the oci engine. auto: gzip, or none for layers that do not compress.",
    )
    kaniko_executor: Path | None = Field(
        default=None, description="Path of Kaniko's executor. Default: /kaniko/executor, else `executor` on PATH."
    )
    kaniko_cache: bool = Field(default=True, description="Cache Kaniko's layers in a registry.")
    kaniko_cache_repo: str | None = Field(
        default=None, description="Repository of that cache: HOST/PATH. Default: `cache` below the image's repository."
    )
    kaniko_cache_ttl: str = Field(
        default="336h", pattern=r"^\d+(h|m|s)$", description="Maximum age of a cached layer, such as 336h."
    )
    kaniko_force: bool = Field(
        default=False,
        description="Allow Kaniko outside the packager's Job image. It destroys the root file system it runs in.",
    )
    cache_repo: str | None = Field(
        default=None,
        description="Repository of the oci engine's environment cache: HOST/PATH. "
        "Default: `cache` below the image's repository.",
    )
    environment_cache: bool = Field(
        default=True,
        description="Cache environments in that repository and reuse them while the dependency file is unchanged.",
    )
    environment_max_age: float = Field(
        default=7.0, ge=0, description="Maximum age of a cached environment, in days. An older one is solved again."
    )
    refresh_environment: bool = Field(default=False, description="Ignore cached environments and solve again.")
    ecr_create_repositories: bool = Field(default=True, description="Create missing ECR repositories before a push.")
    ecr_tag_mutability: Literal["MUTABLE", "IMMUTABLE"] = Field(
        default="MUTABLE", description="Tag mutability of ECR repositories that the packager creates."
    )
    ecr_scan_on_push: bool = Field(
        default=False, description="Scan on push for ECR repositories that the packager creates."
    )
    stop_grace: float = Field(
        default=10.0, gt=0, description="Time between SIGTERM and SIGKILL for child processes, in seconds."
    )
    source_date_epoch: int | None = Field(
        default=None,
        validation_alias=AliasChoices("source_date_epoch", "SOURCE_DATE_EPOCH"),
        ge=0,
        le=253_402_300_799,  # the year 9999
        description="Timestamp of everything in the image, in seconds since 1970. SOURCE_DATE_EPOCH is read too.",
    )

    def secrets(self) -> list[str]:
        """Return every secret value for redaction: passwords and tokens, alone and as they are sent."""
        held = [*self.pip_extra_index_urls, *self.pip_find_links]
        if self.pip_index_url is not None:
            held.append(self.pip_index_url)
        indexes = [url for secret in held if "://" in (url := secret.get_secret_value())]
        mirrors = [secret.get_secret_value() for secret in self.conda_mirrors.values()]
        channels = [*mirrors, self.conda_channel_alias, *self.conda_default_channels]
        # An index may have a token anywhere in its path.
        found = [*indexes, *(secret for url in (*indexes, *channels) for secret in secrets_of_url(url))]
        for credential in self.conda_credentials:
            value = credential.get_secret_value().partition("=")[2]
            found += [value, value.partition(":")[2]]
        return [secret for secret in found if secret]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from an environment.

        An empty variable counts as absent.

        Raises:
            UsageError: A `PACKAGER_` variable is unknown or its value is invalid; lists every problem.
        """
        return read_environment(
            cls,
            {name: value for name, value in environ.items() if not name.startswith(API_PREFIX)},
            prefix=PREFIX,
            listed_by="packager settings",
        )


def read_environment(model: type[_Model], environ: Mapping[str, str], *, prefix: str, listed_by: str) -> _Model:
    """Read settings from the variables with this prefix; an empty variable counts as absent.

    Raises:
        UsageError: A variable is unknown or its value is invalid; lists every problem.
    """
    values: dict[str, Any] = {
        name.removeprefix(prefix).lower(): value
        for name, value in environ.items()
        if name.startswith(prefix) and value and not _SERVICE_LINK.search(name)
    }
    if environ.get("SOURCE_DATE_EPOCH") and "source_date_epoch" in model.model_fields:
        values.setdefault("source_date_epoch", environ["SOURCE_DATE_EPOCH"])
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [
            prefix
            + "".join(f"{part}: ".upper() for part in problem["loc"][:1])  # a rule on several names them itself
            + ("unknown" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, "))
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise UsageError(
            "invalid settings:\n" + "\n".join(f"  - {problem}" for problem in problems),
            hint=f"`{listed_by}` lists every setting with its meaning and default",
        ) from error


def describe_settings(model: type[BaseModel], groups: Mapping[str, str], prefix: str) -> str:
    """Return a text that lists every setting: environment variable, meaning and default, by group.

    `groups` maps the first setting of each group to its heading.
    """
    lines: list[str] = []
    for name, field in model.model_fields.items():
        if name in groups:
            lines += [*([""] if lines else []), groups[name], ""]
        is_absent = field.default_factory or field.default in (None, (), "")
        default = "" if is_absent else f" Default: {_readable(field.default)}."
        lines += [f"  {prefix}{name.upper()}", f"      {field.description}{default}"]
    return "\n".join(lines)


def _readable(value: object) -> str:
    """Return a default as a user would write it."""
    if isinstance(value, ByteSize):
        return value.human_readable(decimal=value % 1000 == 0, separator=" ").replace(".0 ", " ")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
