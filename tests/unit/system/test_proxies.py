"""Which requests go through a proxy, and what is said of variables that can't be used."""

from __future__ import annotations

import ssl

import httpx
import pytest

from packager.errors import UsageError
from packager.system.proxies import ProxyTransport, proxy_for


@pytest.mark.parametrize(
    ("url", "no", "used"),
    [
        ("https://r.io/v2/", "", True),
        ("https://r.io/v2/", "[::1]", True),
        ("https://r.io/v2/", "10.0.0.0/8,fd00::/8,.svc", True),
        ("https://r.io/v2/", ":::, [, /8, ://, :80, 1.2.3.4/99", True),
        ("https://r.io/v2/", "*", False),
        ("https://r.io/v2/", "a.b, R.IO", False),
        ("https://r.io/v2/", "https://r.io", False),
        ("https://r.io/v2/", "r.io:443", False),
        ("https://r.io/v2/", "r.io:5000", True),
        ("https://r.io:5000/v2/", "r.io:5000", False),
        ("https://sub.r.io/", "r.io", False),
        ("https://sub.r.io/", "*.r.io", False),
        ("https://other.io/", "r.io", True),
        ("https://other.io/", "er.io", True),
        ("https://registry.svc/", "10.0.0.0/8,fd00::/8,.svc", False),
        ("https://10.1.2.3:5000/", "10.0.0.0/8,fd00::/8,.svc", False),
        ("https://11.1.2.3:5000/", "10.0.0.0/8,fd00::/8,.svc", True),
        ("https://[fd00::7]:5000/", "10.0.0.0/8 fd00::/8", False),
        ("https://[fd00::7]:5000/", "[fd00::7]", False),
        ("https://[fd00::7]:5000/", "[fd00::7]:5000", False),
        ("https://[fd00::7]:5000/", "[fd00::7]:5001", True),
        ("https://10.1.2.3/", "10.1.2.3", False),
        ("https://localhost:5000/", "", False),
        ("https://127.0.0.1/", "", False),
        ("https://[::1]:5000/", "", False),
    ],
)
def test_who_is_spared(url: str, no: str, used: bool) -> None:
    assert proxy_for(httpx.URL(url), {"all": "http://p:1", "no": no}) == ("all" if used else "")


def test_which_variable_counts() -> None:
    proxies = {"https": "http://p:1", "all": "http://q:1"}
    assert proxy_for(httpx.URL("https://r.io"), proxies) == "https"
    assert proxy_for(httpx.URL("http://r.io"), proxies) == "all"
    assert proxy_for(httpx.URL("http://r.io"), {"https": "http://p:1"}) == ""


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("::::bad", "is not the address of a proxy"),
        ("http://[::bad", "is not the address of a proxy"),
        ("http://ann:s3cret@", "is not the address of a proxy"),
        ("http://ann:s3cret@a..b:1", "is not the address of a proxy"),
        ("http://ann:s3cret@p:99999", "is not the address of a proxy"),
        ("ftp://ann:s3cret@p:1", "is not the address of a proxy"),
    ],
)
def test_a_variable_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    for each in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, value)
    transport = ProxyTransport(ssl.create_default_context())
    with (
        httpx.Client(transport=transport, trust_env=False) as client,
        pytest.raises(UsageError, match=words) as caught,
    ):
        client.get("https://r.io/v2/")
    assert caught.value.message.startswith(f"{name} ")
    assert "s3cret" not in caught.value.message + caught.value.hint


def test_a_proxy_of_a_kind_that_we_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_options: object) -> None:
        raise ImportError("Using SOCKS proxy, but the 'socksio' package is not installed.")

    monkeypatch.setattr(httpx, "HTTPTransport", refuse)
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://p:1")
    transport = ProxyTransport(ssl.create_default_context())
    with pytest.raises(UsageError, match="HTTPS_PROXY has a scheme that is not supported"):
        transport.handle_request(httpx.Request("GET", "https://r.io/v2/"))
