"""How the registries of a run are reached: logins, trust, and which of them speak plain HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from packager.models.reference import LOCAL_STORAGE
from packager.registry import errors
from packager.registry.trust import Trust
from packager.system.proxies import ProxyTransport

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from packager.models.reference import Reference

_PROBE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class RegistryAccess:
    """How the registries are reached.

    Attributes:
        auth_file: A docker `config.json` with mode 0600 in a private folder.
        trust: Whom we trust.
        insecure_hosts: Hosts that are spoken to in plain HTTP: they may be, and don't answer in HTTPS.
    """

    auth_file: Path
    trust: Trust = field(default_factory=Trust)
    insecure_hosts: frozenset[str] = frozenset()


def find_insecure_hosts(
    references: Iterable[Reference], trust: Trust, *, transport: httpx.BaseTransport | None = None
) -> frozenset[str]:
    """Find the hosts that speak plain HTTP, of those that may: the others are never asked.

    A host with a certificate that isn't trusted speaks HTTPS; whoever asks it is told what is wrong.
    """
    asked: dict[str, Reference] = {}
    for reference in references:
        for place in trust.endpoints(reference):
            if trust.may_be_plain(place) and place.host != LOCAL_STORAGE:
                asked[place.host] = place
    return frozenset(host for host, reference in asked.items() if _is_plain(reference, trust, transport))


def _is_plain(reference: Reference, trust: Trust, transport: httpx.BaseTransport | None) -> bool:
    """Tell whether a host speaks plain HTTP; one that answers in neither way is taken to be out of order."""
    with httpx.Client(
        transport=transport or ProxyTransport(trust.ssl_context(reference.host)),
        timeout=_PROBE_SECONDS,
        trust_env=False,
    ) as client:
        https, broken = _ask(client, f"https://{reference.host}/v2/")
        if https or errors.is_plain_answer(broken) or errors.is_tls_trouble(broken):
            return errors.is_plain_answer(broken)
        return _ask(client, f"http://{reference.host}/v2/")[0]


def _ask(client: httpx.Client, url: str) -> tuple[bool, Exception]:
    """Return whether anything answered, and why not."""
    try:
        with client.stream("GET", url):
            pass  # whatever it says
    except httpx.TransportError as error:
        return False, error
    return True, Exception()
