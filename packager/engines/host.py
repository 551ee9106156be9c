"""What this machine can do for a build, and what of its environment a build may see."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Isolation = Literal["oci", "rootless", "chroot"]

SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONTAINER_MARKS = ("/run/.containerenv", "/.dockerenv", "/var/run/secrets/kubernetes.io")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PROXIES = frozenset({*_PROXIES, *(name.upper() for name in _PROXIES)})
_PASSED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS"}
    | PROXIES
)
_PASSED_PREFIXES = ("CONTAINERS_", "_CONTAINERS_", "STORAGE_", "BUILDAH_")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The facts that decide how a RUN step can be isolated.

    Attributes:
        is_root: Whether our user is 0.
        unified_cgroups: Whether cgroups are version 2 only; crun refuses the hybrid mode.
        in_container: Whether we run in a container already, where nesting another is mostly forbidden.
        has_runtime: Whether crun or runc is installed.
    """

    is_root: bool
    unified_cgroups: bool
    in_container: bool
    has_runtime: bool

    @classmethod
    def detect(cls, environ: Mapping[str, str]) -> Machine:
        """Find the facts of this machine; starts nothing."""
        path = f"{environ.get('PATH', '')}:{SYSTEM_FOLDERS}"
        return cls(
            is_root=os.geteuid() == 0,
            unified_cgroups=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
            in_container="KUBERNETES_SERVICE_HOST" in environ or any(Path(mark).exists() for mark in _CONTAINER_MARKS),
            has_runtime=any(shutil.which(name, path=path) for name in ("crun", "runc")),
        )


def choose_isolation(
    asked: Literal["auto"] | Isolation, machine: Machine, *, environ: Mapping[str, str], has_run_steps: bool
) -> str:
    """Choose Buildah's `--isolation`: what was asked for, else what Buildah's own variable says, else what works.

    Without RUN steps there is nothing to isolate, and `chroot` needs the least.
    """
    if asked != "auto":
        return asked
    if environ.get("BUILDAH_ISOLATION"):
        return environ["BUILDAH_ISOLATION"]
    nests = machine.unified_cgroups and machine.has_runtime and not machine.in_container
    if not has_run_steps or not nests:
        return "chroot"
    return "oci" if machine.is_root else "rootless"


def safe_environment(environ: Mapping[str, str], *, temporary: Path) -> dict[str, str]:
    """Return what Buildah gets of the environment: where things are and how to reach the network, and no secrets.

    Buildah hands the proxy variables on to RUN steps, but not into the image. Its temporary files go to `temporary`.
    """
    passed = {name: value for name, value in environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    return {"PATH": SYSTEM_FOLDERS, **passed, "TMPDIR": str(temporary)}
