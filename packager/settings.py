"""The program's own settings: read once from the environment, passed on as a frozen value."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
)

from packager.errors import UsageError
from packager.redaction import secrets_of_url

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "PACKAGER_"
API_PREFIX = f"{PREFIX}API_"  # the API service's own, which `packager api` reads
# What Kubernetes puts into every pod for a Service named packager or packager-something (kubernetes.io, "Environment
# variables" of Services); no setting is named like that.
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
    return _PLATFORMS.get(value, value) if isinstance(value, str) else value


def _own_platform() -> Literal["linux-64", "linux-aarch64"]:
    return "linux-aarch64" if platform.machine() in ("aarch64", "arm64") else "linux-64"


def read_platform(text: str) -> str:
    """Return a platform as conda names it.

    Raises:
        UsageError: It's none that images can be made for.
    """
    if text in _PLATFORMS.values():
        return text
    try:
        return _PLATFORMS[text]
    except KeyError:
        raise UsageError(f"--platform {text}: unknown", hint=f"known: {', '.join(_PLATFORMS)}") from None


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
    """Return a folder in the home, else one in TMPDIR: containers have users without a home, and read-only roots."""
    folder: Path | None
    try:
        folder = Path.home() / ".cache" / "packager"
    except RuntimeError:  # a user id that nobody knows, and no HOME: a container of OpenShift's kind
        folder = None
    if folder is not None:
        there = next((place for place in (folder, *folder.parents[:2]) if place.is_dir()), None)
        if there is not None and os.access(there, os.W_OK):
            return folder
    return Path(tempfile.gettempdir()) / f"packager-cache-{os.getuid()}"


class Settings(BaseModel):
    """Settings of one run; each is the environment variable `PACKAGER_<NAME IN UPPER CASE>`.

    Sizes are bytes, times are seconds. Lists are separated by spaces or commas.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    work_dir: Path | None = Field(default=None, description="Where temporary folders are made (default: TMPDIR).")
    cache_dir: Path = Field(
        default_factory=_default_cache,
        description="Where downloaded conda packages and wheels are kept between runs.",
    )

    artifact_max_bytes: int = Field(default=64 << 30, gt=0, description="Largest unpacked size of a model archive.")
    artifact_max_entries: int = Field(default=200_000, gt=0, description="Most files and folders in an archive.")
    artifact_max_ratio: int = Field(
        default=1000, gt=0, description="Largest ratio of unpacked to packed size, counted from 10 MB unpacked on."
    )

    artifact_max_download_bytes: int = Field(
        default=64 << 30, gt=0, description="Largest size of an archive that is fetched from a store."
    )
    insecure_stores: Words = Field(
        default=(), description="HOST:PORT of artifact stores that speak plain HTTP; loopback hosts always may."
    )

    platform: Platform = Field(
        default_factory=_own_platform,
        description="The images' platform, linux/amd64 or linux/arm64 (or as conda names it; default: this machine's).",
    )
    glibc: str | None = Field(
        default=None,
        pattern=r"^\d+\.\d+$",
        description="The base image's glibc, when it can't be read from the base image.",
    )
    base_python: str | None = Field(
        default=None,
        pattern=r"^\d+\.\d+$",
        description="The base image's Python, for models with pip dependencies, when it can't be read from the image.",
    )
    default_python: str = Field(
        default="3.11", pattern=r"^\d+\.\d+$", description="Python of a conda environment whose file asks for none."
    )

    conda_channel_alias: str = Field(
        default="https://conda.anaconda.org/", description="What a bare channel name such as conda-forge is put behind."
    )
    conda_default_channels: Words = Field(
        default=("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"),
        description="What the channel name `defaults`, and a file without channels, means.",
    )
    conda_mirrors: SecretPairs = Field(
        default_factory=dict, description="CHANNEL_URL=MIRROR_URL pairs: the mirror is asked instead of the channel."
    )
    conda_credentials: SecretWords = Field(
        default=(), description="HOST=USER:PASSWORD or HOST=TOKEN for channels that need them."
    )
    pip_index_url: SecretStr | None = Field(
        default=None, description="The index for files that name none, in PyPI's place."
    )
    pip_extra_index_urls: SecretWords = Field(default=(), description="Indexes asked besides.")
    pip_find_links: SecretWords = Field(default=(), description="Folders or pages with wheels.")

    server: Literal["auto", "granian", "gunicorn"] = Field(
        default="auto",
        description="What REST images answer with; auto: granian where the image's Python has it, else gunicorn.",
    )

    check: CheckMode = Field(
        default="auto",
        description="Load the model and predict its example before anything is pushed: auto (where this machine can), "
        "always (or true: an error where it can't) or never (or false).",
    )
    check_seconds: float = Field(default=300.0, gt=0, description="How long that may take.")
    check_cache_max_bytes: int = Field(
        default=10 << 30,
        ge=0,
        description="Largest size of the environments kept unpacked in the cache folder for the check; 0: none. They "
        "also take at most half of the disk's space.",
    )
    check_fetch_max_bytes: int = Field(
        default=500_000_000,
        ge=0,
        description="Largest packed size of an environment that is fetched from the registry for the check.",
    )

    insecure_registries: Words = Field(
        default=(), description="HOST:PORT of registries that speak plain HTTP; loopback hosts always may."
    )
    registry_mirrors: Words = Field(
        default=(),
        description="HOST=MIRROR pairs: base images of HOST are looked for at MIRROR (a host, or a host and a path) "
        "first; several of one host in their order.",
    )
    registry_retry_seconds: float = Field(
        default=60.0, ge=0, description="How long a request is tried again that a registry can't serve for the moment."
    )
    ca_file: Path | None = Field(
        default=None, description="A PEM file of certificate authorities trusted besides the system's."
    )
    client_certificates: Words = Field(
        default=(),
        description="HOST=CERTIFICATE:KEY pairs of PEM files, for registries that ask for a client certificate.",
    )
    buildah_isolation: Literal["auto", "oci", "rootless", "chroot"] = Field(
        default="auto", description="Buildah's --isolation; auto tries what this machine supports."
    )
    image_format: Literal["oci", "docker"] = Field(
        default="oci", description="The form of the documents that the oci engine writes."
    )
    layer_compression: Literal["auto", "gzip", "zstd", "none"] = Field(
        default="auto",
        description="How the oci engine compresses layers; auto is gzip, and none for a layer that doesn't compress.",
    )
    kaniko_executor: Path | None = Field(
        default=None, description="Kaniko's program (default: /kaniko/executor, else `executor` on PATH)."
    )
    kaniko_cache: bool = Field(default=True, description="Keep Kaniko's layers in a registry for the next builds.")
    kaniko_cache_repo: str | None = Field(
        default=None, description="HOST/PATH of that repository (default: `cache` below the image's own repository)."
    )
    kaniko_cache_ttl: str = Field(
        default="336h", pattern=r"^\d+(h|m|s)$", description="How long a cached layer is used."
    )
    kaniko_force: bool = Field(
        default=False,
        description="Start Kaniko outside the packager's Job image: it destroys the root file system it runs in.",
    )
    cache_repo: str | None = Field(
        default=None,
        description="HOST/PATH of the repository with the oci engine's environments "
        "(default: `cache` below the image's own repository).",
    )
    environment_cache: bool = Field(
        default=True, description="Keep environments in that repository, and use them when nothing has changed."
    )
    environment_max_age: float = Field(
        default=7.0, ge=0, description="Days after which an unchanged dependency file is solved anew."
    )
    refresh_environment: bool = Field(default=False, description="Solve anew, whatever is kept.")
    ecr_create_repositories: bool = Field(
        default=True, description="Create the ECR repositories that a push needs and that are missing."
    )
    ecr_tag_mutability: Literal["MUTABLE", "IMMUTABLE"] = Field(
        default="MUTABLE", description="Whether tags can be moved in the image's ECR repository, when we create it."
    )
    ecr_scan_on_push: bool = Field(
        default=False, description="Whether ECR scans the images of that repository, when we create it."
    )
    stop_grace: float = Field(default=10.0, gt=0, description="Seconds between SIGTERM and SIGKILL for our children.")
    source_date_epoch: int | None = Field(
        default=None,
        validation_alias=AliasChoices("source_date_epoch", "SOURCE_DATE_EPOCH"),
        ge=0,
        le=253_402_300_799,  # the year 9999
        description="Time of everything in the image, in seconds since 1970 (also read from SOURCE_DATE_EPOCH).",
    )

    def secrets(self) -> list[str]:
        """Return every secret value, for redaction: passwords and tokens, alone and as they are sent."""
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
            UsageError: A `PACKAGER_` variable is unknown or its value is wrong; lists every problem.
        """
        return read_environment(
            cls,
            {name: value for name, value in environ.items() if not name.startswith(API_PREFIX)},
            prefix=PREFIX,
            listed_by="packager settings",
        )


def read_environment(model: type[_Model], environ: Mapping[str, str], *, prefix: str, listed_by: str) -> _Model:
    """Read settings from the variables whose names begin with the prefix; an empty one counts as absent.

    Raises:
        UsageError: A variable is unknown or its value is wrong; lists every problem.
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
            + "".join(f"{part}: ".upper() for part in problem["loc"][:1])  # a rule over several names them itself
            + problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise UsageError(
            "the settings are wrong:\n" + "\n".join(f"  - {problem}" for problem in problems),
            hint=f"`{listed_by}` lists every setting with its meaning and default",
        ) from error
