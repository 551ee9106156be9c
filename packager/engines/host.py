"""The capabilities of this host for a build, and the environment variables that a build gets."""

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
    """The properties of the host that determine the isolation of RUN steps.

    Attributes:
        is_root: Whether the user is root.
        unified_cgroups: Whether only cgroups v2 are mounted; crun rejects the hybrid mode.
        in_container: Whether the host is a container, which mostly doesn't allow nested containers.
        has_runtime: Whether crun or runc is installed.
    """

    is_root: bool
    unified_cgroups: bool
    in_container: bool
    has_runtime: bool

    @classmethod
    def detect(cls, environ: Mapping[str, str]) -> Machine:
        """Detect the properties of this host, without starting a process."""
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
    """Choose Buildah's `--isolation`: the setting, else Buildah's own variable, else one that works on this host.

    Images without RUN steps need no isolation, so they use `chroot`, which has the fewest requirements.
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
    """Return Buildah's environment: paths and network configuration, no secrets.

    Buildah passes the proxy variables to RUN steps, but not into the image. Its temporary files go to `temporary`.
    """
    passed = {name: value for name, value in environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    return {"PATH": SYSTEM_FOLDERS, **passed, "TMPDIR": str(temporary)}
