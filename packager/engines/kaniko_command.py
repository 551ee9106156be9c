"""Kaniko's command: its arguments, its environment, its log lines, and its errors. Pure.

Flags and feature flags are those of github.com/osscontainertools/kaniko 1.28 (README.md). `executor` ends with one line
on standard error: a chain of causes that starts with the failed operation (`exit` in its cmd/executor/cmd/root.go); the
rest of the chain comes from go-containerregistry or the operating system. The exit code of a failed RUN step becomes
Kaniko's own; a RUN step that was ended by a signal gives 255.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packager.engines import cache_repository
from packager.engines.build_errors import KILLED, LINE_LIMIT, NO_SPACE, Attempt, registry_answer, tail
from packager.engines.host import PROXIES, SYSTEM_FOLDERS
from packager.errors import (
    BuildError,
    BuildStepError,
    DiskFullError,
    ImageNotFoundError,
    OutOfMemoryError,
    PackagerError,
    RegistryError,
)
from packager.logs.sanitize import sanitize
from packager.models.reference import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.settings import Settings
    from packager.system.process import Completed

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


_VERDICT = re.compile(
    r"^error (?:building image|pushing image|checking push permissions)\b.*", re.MULTILINE | re.DOTALL
)
_STEP = re.compile(r"(?:waiting for process to exit|starting command): (?:exit status (\d+)|signal: (.+)|(.+))")
_RUNNING = re.compile(r"^Running: \[(.*)\]$", re.MULTILINE)
_PULLING = re.compile(r"/v2/|failed to get filesystem from image|error building stage: failed to get|MANIFEST_UNKNOWN")
_UNKNOWN = re.compile(r"MANIFEST_UNKNOWN|NAME_UNKNOWN|manifest unknown|name unknown|status code 404")
_KILLED_STEP = "137"  # as a shell reports it


def kaniko_failure(base: Reference, destination: Reference, completed: Completed) -> PackagerError:
    """Tell which error the failed build of an image on `base` for `destination` stands for.

    `completed.output` holds Kaniko's messages as they were logged, without levels and times.
    """
    found = _VERDICT.findall(completed.output)
    verdict = found[-1].strip() if found else (completed.output.splitlines() or ["it gave no reason"])[-1]
    build = Attempt(stage="build", subject=str(destination))
    if completed.returncode in KILLED and not _STEP.search(verdict):
        return OutOfMemoryError(
            f"{build} was killed (signal 9), most likely for the memory it took",
            hint="give the job more memory (its limit), or keep PACKAGER_WORK_DIR on a disk and not in a memory volume",
        )
    if step := _STEP.search(verdict):
        return _step_failure(completed.output, step)
    if verdict.startswith("error building image"):
        attempt = Attempt(stage="pull", subject=str(base), host=base.host)
        if _UNKNOWN.search(verdict):
            return _not_found(base)
        pulling = _PULLING.search(verdict) is not None
    else:
        attempt = Attempt(stage="push", subject=str(destination), host=destination.host)
        pulling = verdict.startswith("error ")
    answer = registry_answer(attempt, verdict) if pulling else None
    if answer is not None:
        return answer
    if NO_SPACE.search(verdict):
        return _disk_full(build)
    return (RegistryError if pulling else BuildError)(
        f"{attempt if pulling else build} failed: {sanitize(verdict, limit=LINE_LIMIT)}"
    )


def _step_failure(output: str, step: re.Match[str]) -> PackagerError:
    status, killed_by, not_started = step.groups()
    running = _RUNNING.findall(output)
    command = sanitize(running[-1], limit=LINE_LIMIT) if running else "?"
    if (killed_by or "").startswith("killed") or status == _KILLED_STEP:
        return OutOfMemoryError(
            f"the step `RUN {command}` was killed (signal 9), most likely for the memory it took",
            hint="give the job more memory (its limit)",
        )
    if NO_SPACE.search(tail(output)):
        return _disk_full(Attempt(stage="build", subject=f"the step `RUN {command}`"))
    how = f"with exit code {status}" if status else f"by the signal {killed_by!r}" if killed_by else "to start"
    return BuildStepError(
        f"the step `RUN {command}` failed {how}:\n{tail(output)}",
        hint="check that the base image has the program" if not_started else "the last lines above are its own",
    )


def _disk_full(attempt: Attempt) -> DiskFullError:
    return DiskFullError(
        f"{attempt}: no space left on this machine",
        hint="Kaniko unpacks the base image and keeps every layer below /kaniko: give the job more ephemeral storage",
    )


def _not_found(base: Reference) -> ImageNotFoundError:
    return ImageNotFoundError(
        f"the registry {base.host} has no image {base}", hint="check the name and tag of dockerfileBaseImage"
    )
