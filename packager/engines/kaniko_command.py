"""Kaniko's command: its arguments, its environment, and its log lines. Pure.

Flags and feature flags are those of github.com/osscontainertools/kaniko 1.28 (README.md).
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packager.engines.cache_repository import cache_repository
from packager.engines.host import PROXIES, SYSTEM_FOLDERS
from packager.models.reference import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.settings import Settings

_RETRIES = "3"  # Kaniko's own default is none
_PLATFORMS = {"linux-64": "linux/amd64", "linux-aarch64": "linux/arm64"}
_PASSED = frozenset({"SSL_CERT_FILE", "SSL_CERT_DIR", "LANG", "LC_ALL", "TZ", *PROXIES})
# Without these three, two contexts (or two platforms) can be made to have one cache key, and a model's author chooses
# the file names in a context.
_FEATURES = {
    "FF_KANIKO_HASH_DIR_FRAMING": "true",
    "FF_KANIKO_ROLLING_CACHE_KEY": "true",
    "FF_KANIKO_PLATFORM_CACHE_KEY": "true",
}
_LEVELS = {"warning": logging.WARNING, "error": logging.ERROR, "fatal": logging.ERROR, "panic": logging.ERROR}
_NAMES = {DOCKER_HUB: "index.docker.io"}  # as go-containerregistry, and so every flag for one host, calls it
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, kw_only=True)
class KanikoBuild:
    """One build: from a context, on a base, to a destination; `digest_file` is where the digest is written."""

    base: Reference
    context: Path
    destination: Reference
    digest_file: Path


def build_args(build: KanikoBuild, settings: Settings, access: RegistryAccess) -> list[str]:
    """Return the arguments of the executor; the same build gives the same words."""
    cache = cache_repository(build.destination, settings.kaniko_cache_repo)
    references = (build.base, build.destination, cache)
    hosts = {place.host for reference in references for place in access.trust.endpoints(reference)}
    plain = sorted(hosts & access.insecure_hosts)
    return [
        *(["--force"] if settings.kaniko_force else []),
        *("--context", f"dir://{build.context}"),
        *("--dockerfile", str(build.context / "Dockerfile")),
        *("--destination", str(build.destination)),
        *("--digest-file", str(build.digest_file)),
        *("--custom-platform", _PLATFORMS[settings.platform]),
        # A flag of its own for each host: the other hosts stay in HTTPS.
        *(word for host in plain for word in ("--insecure-registry", host)),
        *_trust_words(hosts, access),
        *(_cache_words(cache.repository, settings) if settings.kaniko_cache else ["--cache=false"]),
        "--compressed-caching=false",  # else a compressed copy of each layer is held in memory
        # Contents are compared, not only times and sizes: every file of a context has one time, so `redo` could miss
        # what a RUN step changes, and `time` would. COPY names its files, so only plans with RUN steps pay for it.
        *("--snapshot-mode", "full"),
        "--skip-unused-stages=true",
        # Not --reproducible: it rewrites the base's layers too, each in memory, and so uploads the base again.
        "--cleanup",  # nothing of the base image lies in our root when Kaniko has ended
        *("--ignore-path", str(build.context.parent)),  # our work folder is neither put into the image nor cleaned away
        *("--ignore-path", str(settings.cache_dir)),
        *("--push-retry", _RETRIES),
        *("--image-fs-extract-retry", _RETRIES),
        *("--image-download-retry", _RETRIES),
        *("--log-format", "json"),  # told apart from what a RUN step prints, and without colours
    ]


def _trust_words(hosts: set[str], access: RegistryAccess) -> Iterator[str]:
    """Give the authorities, client certificates and mirrors; flags of their own for each host."""
    trust = access.trust
    for host in sorted(hosts - access.insecure_hosts):
        name = _NAMES.get(host, host)
        if trust.ca_file is not None:
            yield from ("--registry-certificate", f"{name}={trust.ca_file.absolute()}")
        if shown := trust.client_certificates.get(host):
            yield from ("--registry-client-cert", f"{name}={shown.certificate.absolute()},{shown.key.absolute()}")
    for host, mirror in trust.mirrors:
        if host in hosts:  # it falls back to the host itself
            yield from ("--registry-map", f"{_NAMES.get(host, host)}={mirror}")


def _cache_words(repository: str, settings: Settings) -> list[str]:
    return [
        "--cache=true",
        *("--cache-repo", repository),
        *("--cache-ttl", settings.kaniko_cache_ttl),
        "--cache-copy-layers=true",
        "--cache-run-layers=true",
    ]


def scrubbed(environ: Mapping[str, str], logins: Path) -> dict[str, str]:
    """Return Kaniko's environment: no secrets, and the logins in the one file that it is told of.

    KANIKO_DIR isn't passed: another value makes Kaniko move its folder and look for the logins there. USER is always
    there, because COPY fails without it.
    """
    passed = {name: value for name, value in environ.items() if name in _PASSED}
    return {
        **passed,
        **_FEATURES,
        "PATH": environ.get("PATH") or SYSTEM_FOLDERS,
        "HOME": environ.get("HOME") or "/root",
        "USER": environ.get("USER") or "root",
        "DOCKER_CONFIG": str(logins.parent),
    }


def read_line(line: str) -> tuple[int, str]:
    """Return the level and the message of a line of Kaniko; a RUN step's own output is at the level of information."""
    try:
        entry = json.loads(line)
        return _LEVELS.get(entry["level"], logging.INFO), _plain(str(entry["msg"]))
    except (ValueError, KeyError, TypeError):
        return logging.INFO, _plain(line)


def _plain(text: str) -> str:
    return _COLOUR.sub("", text).rstrip()
