"""The program's own settings: read once from the environment, passed on as a frozen value."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from packager.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "PACKAGER_"
# What Kubernetes puts into every pod for a Service named packager or packager-something (kubernetes.io, "Environment
# variables" of Services); no setting is named like that.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_\d+_(TCP|UDP|SCTP).*)?$")


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = (word.partition("=") for word in value.replace(",", " ").split())
    return {name: text for name, _, text in pairs}


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
SecretWords = Annotated[tuple[SecretStr, ...], BeforeValidator(_words)]
Pairs = Annotated[dict[str, str], BeforeValidator(_pairs)]


def _default_cache() -> Path:
    try:
        return Path.home() / ".cache" / "packager"
    except RuntimeError:  # a user id that nobody knows, and no HOME: a container of OpenShift's kind
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

    platform: Literal["linux-64", "linux-aarch64"] = Field(
        default="linux-64", description="The images' platform, as conda names it."
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
    conda_mirrors: Pairs = Field(
        default_factory=dict, description="CHANNEL_URL=MIRROR_URL pairs: the mirror is asked instead of the channel."
    )
    conda_credentials: SecretWords = Field(
        default=(), description="HOST=USER:PASSWORD or HOST=TOKEN for channels that need them."
    )
    pip_index_url: SecretStr | None = Field(
        default=None, description="The index for files that name none, in PyPI's place."
    )
    pip_extra_index_urls: SecretWords = Field(default=(), description="Indexes asked besides.")
    pip_find_links: Words = Field(default=(), description="Folders or pages with wheels.")

    server: Literal["auto", "granian", "gunicorn"] = Field(
        default="auto",
        description="What REST images answer with; auto: granian where the image's Python has it, else gunicorn.",
    )

    insecure_registries: Words = Field(
        default=(), description="HOST:PORT of registries that speak plain HTTP; loopback hosts always may."
    )
    buildah_isolation: Literal["auto", "oci", "rootless", "chroot"] = Field(
        default="auto", description="Buildah's --isolation; auto tries what this machine supports."
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
    stop_grace: float = Field(default=10.0, gt=0, description="Seconds between SIGTERM and SIGKILL for our children.")
    source_date_epoch: int | None = Field(
        default=None,
        validation_alias=AliasChoices("source_date_epoch", "SOURCE_DATE_EPOCH"),
        ge=0,
        description="Time of everything in the image, in seconds since 1970 (also read from SOURCE_DATE_EPOCH).",
    )

    def secrets(self) -> list[str]:
        """Return every secret value, for redaction: the passwords alone as well as the whole texts."""
        held = [*self.conda_credentials, *self.pip_extra_index_urls]
        if self.pip_index_url is not None:
            held.append(self.pip_index_url)
        texts = [secret.get_secret_value() for secret in held]
        passwords = [urlsplit(text).password or text.rpartition("=")[2].partition(":")[2] for text in texts]
        tokens = [text.rpartition("=")[2] for text in texts if "://" not in text]
        return [text for text in (*texts, *tokens, *passwords) if text]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from an environment.

        An empty variable counts as absent.

        Raises:
            UsageError: A `PACKAGER_` variable is unknown or its value is wrong; lists every problem.
        """
        values: dict[str, Any] = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environ.items()
            if name.startswith(PREFIX) and value and not _SERVICE_LINK.search(name)
        }
        if environ.get("SOURCE_DATE_EPOCH"):
            values.setdefault("source_date_epoch", environ["SOURCE_DATE_EPOCH"])
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [
                f"{PREFIX}{'.'.join(str(part) for part in problem['loc'][:1]).upper()}: {problem['msg']}"
                for problem in error.errors(include_input=False, include_url=False)
            ]
            raise UsageError(
                "the settings are wrong:\n" + "\n".join(f"  - {problem}" for problem in problems),
                hint="`packager settings` lists every setting with its meaning and default",
            ) from error
