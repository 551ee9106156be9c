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

    from packager.registry.access import RegistryAccess, Trust


def certificate_folder(folder: Path, reference: Reference, trust: Trust) -> Path | None:
    """Write the `--cert-dir` for an image's host and its mirrors below `folder`; None where there is nothing to say.

    A command has one such folder for all of them. Of several certificates in it, the one is shown that is of an
    authority which the server names.

    Raises:
        OSError: A file can't be copied.
    """
    hosts = dict.fromkeys(place.host for place in reversed(trust.endpoints(reference)))  # its own host first
    shown = [trust.client_certificates[host] for host in hosts if host in trust.client_certificates]
    if trust.ca_file is None and not shown:
        return None
    certificates = folder / f"certificates-{reference.host.replace(':', '-')}"
    certificates.mkdir(mode=0o700, exist_ok=True)
    if trust.ca_file is not None:
        shutil.copyfile(trust.ca_file, certificates / "ca.crt")
    for number, pair in enumerate(shown):  # they are read in the order of their names
        shutil.copyfile(pair.certificate, certificates / f"{number}.cert")
        key = certificates / f"{number}.key"
        key.touch(mode=0o600)
        key.write_bytes(pair.key.read_bytes())
    return certificates


def registries_conf(access: RegistryAccess) -> str:
    """Return a `registries.conf` with the mirrors; empty where there are none, and the system's own counts.

    It also says which of the hosts with mirrors, and which of the mirrors, speak plain HTTP.
    """
    hosts: dict[str, list[str]] = {}
    for host, mirror in access.trust.mirrors:
        hosts.setdefault(host, []).append(mirror)
    parts = []
    for host, mirrors in hosts.items():
        insecure = json.dumps(host in access.insecure_hosts)
        parts.append(f"[[registry]]\nlocation = {json.dumps(host)}\ninsecure = {insecure}\n")
        for mirror in mirrors:
            insecure = json.dumps(Reference.parse(f"{mirror}/x").host in access.insecure_hosts)
            parts.append(f"[[registry.mirror]]\nlocation = {json.dumps(mirror)}\ninsecure = {insecure}\n")
    return "\n".join(parts)
