"""Proxies by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, in upper or lower case.

httpx reads these variables itself, but accepts no network (`10.0.0.0/8`) and no bracket in NO_PROXY, and raises errors
of its own for each word that it can't read.
"""

from __future__ import annotations

import ipaddress
import os
import re
import threading
from typing import TYPE_CHECKING
from urllib.request import getproxies_environment

import httpx

from packager.errors import UsageError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_BRACKETS = re.compile(r"\A\[(.*)\](/\d+)?\Z")
_MAX_PORT = 65535
_PORTS = {"http": 80, "https": 443}


class ProxyTransport(httpx.BaseTransport):
    """Sends each request through the proxy that the environment names for its host, also after a redirect.

    Give it to a client as its `transport`, with `trust_env=False`. Threads may share it.
    """

    def __init__(self, verify: ssl.SSLContext) -> None:
        """Take the TLS settings, and read the variables."""
        self._verify = verify
        self._proxies = getproxies_environment()
        self._transports: dict[str, httpx.HTTPTransport] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request.

        Raises:
            UsageError: The variable that names the proxy for it is wrong.
            httpx.TransportError: No answer came.
        """
        scheme = proxy_for(request.url, self._proxies)
        with self._lock:
            if scheme not in self._transports:
                proxy = _proxy(scheme, self._proxies[scheme]) if scheme else None
                try:
                    self._transports[scheme] = httpx.HTTPTransport(verify=self._verify, proxy=proxy, trust_env=False)
                except ImportError as error:  # SOCKS needs a package that isn't installed
                    raise _unusable(scheme, "has a scheme that is not supported") from error
            transport = self._transports[scheme]
        return transport.handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        for transport in self._transports.values():
            transport.close()


def proxy_for(url: httpx.URL, proxies: Mapping[str, str]) -> str:
    """Return the name of a URL's proxy (`https`, `http` or `all`); empty for a direct connection, as to loopback.

    Args:
        url: The URL.
        proxies: The result of `urllib.request.getproxies_environment`; `no` is NO_PROXY.
    """
    host = url.host.lower().rstrip(".")
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return ""
    port = url.port or _PORTS.get(url.scheme, 0)
    if any(_bypasses(word, host, port) for word in proxies.get("no", "").replace(",", " ").split()):
        return ""
    return next((scheme for scheme in (url.scheme, "all") if proxies.get(scheme)), "")


def _bypasses(word: str, host: str, port: int) -> bool:
    """Tell whether a word of NO_PROXY matches a host: `*`, a domain, an address or a network; a port is optional."""
    if word == "*":
        return True
    name = word.lower().partition("://")[2] or word.lower()
    network, address = _network(name), _address(host)
    if network is None:
        head, colon, digits = name.rpartition(":")
        if colon and digits.isascii() and digits.isdigit():
            if int(digits[:6]) != port:
                return False
            name = head
            network = _network(name)
    if network is not None:
        return address is not None and address in network
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _network(word: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Read an address or a network, in brackets or not; None where it is a name."""
    try:
        return ipaddress.ip_network(_BRACKETS.sub(r"\1\2", word), strict=False)
    except ValueError:
        return None


def _proxy(scheme: str, value: str) -> httpx.Proxy:
    try:
        proxy = httpx.Proxy(value if "://" in value else f"http://{value}")
        proxy.url.host.encode("idna")
    except (httpx.InvalidURL, ValueError):
        raise _unusable(scheme, "is not the address of a proxy") from None  # the cause can show a password
    if not proxy.url.host or (proxy.url.port or 0) > _MAX_PORT:
        raise _unusable(scheme, "is not the address of a proxy")
    return proxy


def _unusable(scheme: str, problem: str) -> UsageError:
    lower = f"{scheme}_proxy"
    name = lower if os.environ.get(lower) else lower.upper()
    return UsageError(
        f"{name} {problem}",
        hint=f"set {name} to http://HOST:PORT, or unset it; NO_PROXY names the hosts that are reached without it",
    )
