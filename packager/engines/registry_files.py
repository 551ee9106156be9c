"""What containers/image reads to reach registries, written from our settings: certificates and mirrors.

Formats: containers-certs.d(5) and containers-registries.conf(5).
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from packager.models.reference import Reference

if TYPE_CHECKING:
    from pathlib import Path

    from packager.registry.access import RegistryAccess
    from packager.registry.trust import Trust


def certificate_folder(folder: Path, host: str, trust: Trust) -> Path | None:
    """Write the `--cert-dir` for a host below `folder`; None where there is nothing to say.

    Raises:
        OSError: A file can't be copied.
    """
    shown = trust.client_certificates.get(host)
    if trust.ca_file is None and shown is None:
        return None
    certificates = folder / f"certificates-{host.replace(':', '-')}"
    certificates.mkdir(mode=0o700, exist_ok=True)
    if trust.ca_file is not None:
        shutil.copyfile(trust.ca_file, certificates / "ca.crt")
    if shown is not None:
        shutil.copyfile(shown.certificate, certificates / "client.cert")
        key = certificates / "client.key"
        key.touch(mode=0o600)
        key.write_bytes(shown.key.read_bytes())
    return certificates


def registries_conf(access: RegistryAccess) -> str:
    """Return a `registries.conf` with the mirrors; empty where there are none, and the system's own counts."""
    hosts: dict[str, list[str]] = {}
    for host, mirror in access.trust.mirrors:
        hosts.setdefault(host, []).append(mirror)
    parts = []
    for host, mirrors in hosts.items():
        insecure = json.dumps(host in access.plain_hosts)
        parts.append(f"[[registry]]\nlocation = {json.dumps(host)}\ninsecure = {insecure}\n")
        for mirror in mirrors:
            insecure = json.dumps(Reference.parse(f"{mirror}/x").host in access.plain_hosts)
            parts.append(f"[[registry.mirror]]\nlocation = {json.dumps(mirror)}\ninsecure = {insecure}\n")
    return "\n".join(parts)
