"""What is trusted, from the settings to each engine's words: authorities, client certificates, plain HTTP, mirrors."""

from __future__ import annotations

import ssl
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trustme

from packager.engines.buildah_commands import access_words
from packager.engines.kaniko_command import KanikoBuild
from packager.engines.kaniko_command import build_args as kaniko_words
from packager.engines.registry_files import certificate_folder, registries_conf
from packager.errors import UsageError
from packager.models.reference import Reference
from packager.registry.access import ClientCertificate, RegistryAccess, Trust, find_insecure_hosts
from packager.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

HUB = Reference.parse("python:3")
LOGINS = Path("/private/config.json")
MIRRORS = (("docker.io", "one.io/hub"), ("docker.io", "two.io:5000"), ("r.io", "one.io/r"))


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with certificates and keys, right ones and wrong ones."""
    folder = tmp_path_factory.mktemp("pem")
    authority = trustme.CA()
    files = {name: folder / name for name in ("ca", "cert", "key", "other-key", "empty", "words", "locked-key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    for cert, key in (("cert", "key"), (None, "other-key")):
        issued = authority.issue_cert("r.io")
        issued.private_key_pem.write_to_path(str(files[key]))
        if cert:
            issued.cert_chain_pems[0].write_to_path(str(files[cert]))
    files["empty"].write_text("")
    files["words"].write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    head = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
    files["locked-key"].write_text(head + "MIIBvTBXBgkqhkiG9w0BBQ0wSjA=\n-----END ENCRYPTED PRIVATE KEY-----\n")
    return {**files, "folder": folder, "missing": folder / "missing"}


def trust_of(**settings: str) -> Trust:
    return Trust.from_settings(
        Settings.from_env({f"PACKAGER_{name.upper()}": value for name, value in settings.items()})
    )


def test_settings_are_read(pem: Mapping[str, Path]) -> None:
    trust = trust_of(
        ca_file=str(pem["ca"]),
        client_certificates=f"r.io:5000={pem['cert']}:{pem['key']}",
        insecure_registries="plain.io:5000, 10.0.0.7",
        registry_mirrors="docker.io=one.io/hub/ docker.io=two.io:5000,r.io=one.io/r",
        registry_retry_seconds="7",
    )
    assert trust == Trust(
        ca_file=pem["ca"],
        client_certificates={"r.io:5000": ClientCertificate(certificate=pem["cert"], key=pem["key"])},
        insecure_hosts=frozenset({"plain.io:5000", "10.0.0.7"}),
        mirrors=MIRRORS,
        retry_seconds=7,
    )
    assert trust_of() == Trust()


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("ca_file", "{missing}", "missing can't be used: No such file"),
        ("ca_file", "{folder}", "can't be used"),
        ("ca_file", "{empty}", "can't be used"),
        ("ca_file", "{words}", "can't be used"),
        ("ca_file", "{key}", "can't be used"),
        ("client_certificates", "r.io", "'r.io' is not a pair"),
        ("client_certificates", "r.io={cert}", "is not a pair"),
        ("client_certificates", "={cert}:{key}", "is not a pair"),
        ("client_certificates", "https://r.io={cert}:{key}", "is not the host of a registry"),
        ("client_certificates", "r.io={missing}:{key}", "No such file"),
        ("client_certificates", "r.io={cert}:{missing}", "No such file"),
        ("client_certificates", "r.io={cert}:{other-key}", "can't be used"),
        ("client_certificates", "r.io={key}:{cert}", "can't be used"),
        ("client_certificates", "r.io={cert}:{locked-key}", "can't be used"),
        ("insecure_registries", "http://r.io:5000", "'http://r.io:5000' is not the host of a registry"),
        ("insecure_registries", "r.io:5000/team", "is not the host of a registry"),
        ("insecure_registries", "registry", "is not the host of a registry"),
        ("registry_mirrors", "mirror.io", "doesn't name a registry"),
        ("registry_mirrors", "docker.io=", "doesn't name a registry"),
        ("registry_mirrors", "docker.io=mirror", "doesn't name a registry"),
        ("registry_mirrors", "docker.io=https://mirror.io", "doesn't name a registry"),
        ("registry_mirrors", "hub=mirror.io", "'hub' is not the host of a registry"),
        ("registry_mirrors", "docker.io/library=mirror.io", "is not the host of a registry"),
    ],
)
def test_unusable_setting_is_named(pem: Mapping[str, Path], setting: str, value: str, words: str) -> None:
    for name, path in pem.items():
        value = value.replace(f"{{{name}}}", str(path))
    with pytest.raises(UsageError) as caught:
        trust_of(**{setting: value})
    assert caught.value.message.startswith(f"PACKAGER_{setting.upper()}: ")
    assert words in caught.value.message
    assert caught.value.hint


def test_system_authorities_stay_trusted(pem: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    other = pem["folder"] / "system"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    context = Trust(ca_file=pem["ca"]).ssl_context("r.io")
    assert len(context.get_ca_certs()) == len(ssl.create_default_context().get_ca_certs()) + 1 == 2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("python:3", ["one.io/hub/library/python:3", "two.io:5000/library/python:3", "docker.io/library/python:3"]),
        (f"r.io/a@sha256:{'0' * 64}", [f"one.io/r/a@sha256:{'0' * 64}", f"r.io/a@sha256:{'0' * 64}"]),
        ("other.io/a:1", ["other.io/a:1"]),
    ],
)
def test_endpoints_are_the_mirrors_and_the_host(name: str, places: list[str]) -> None:
    assert [str(place) for place in Trust(mirrors=MIRRORS).endpoints(Reference.parse(name))] == places


@pytest.mark.parametrize(
    ("https", "http", "plain"),
    [
        (401, None, False),
        ("[SSL: WRONG_VERSION_NUMBER]", None, True),
        ("[SSL: RECORD_LAYER_FAILURE]", None, True),
        ("[SSL: CERTIFICATE_VERIFY_FAILED]", None, False),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]", None, False),
        ("Connection refused", "Connection refused", False),
        ("Connection reset by peer", 401, True),
        ("Connection reset by peer", "Connection reset by peer", False),
    ],
)
def test_plain_http_hosts_are_found(https: Any, http: Any, plain: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        said = https if request.url.scheme == "https" else http
        if isinstance(said, int):
            return httpx.Response(said)
        raise httpx.ConnectError(said)

    asked: list[str] = []
    trust = Trust(insecure_hosts=frozenset({"plain.io"}), mirrors=(("far.io", "plain.io/far"),))
    names = ["far.io/a", "localhost/base:1", "127.0.0.2:5000/a", "far.io/b"]
    found = find_insecure_hosts(map(Reference.parse, names), trust, transport=httpx.MockTransport(answer))
    assert found == ({"plain.io"} if plain else set())
    assert set(asked) <= {"https://plain.io/v2/", "http://plain.io/v2/"}, "a host was asked that may not be plain"
    assert ("http://plain.io/v2/" in asked) == (http is not None)


def access_of(trust: Trust, *plain: str) -> RegistryAccess:
    return RegistryAccess(trust=trust, insecure_hosts=frozenset(plain))


def test_certificate_folder_for_buildah(pem: Mapping[str, Path], tmp_path: Path) -> None:
    pair = ClientCertificate(certificate=pem["cert"], key=pem["key"])
    assert certificate_folder(tmp_path, HUB, Trust(client_certificates={"r.io": pair})) is None
    folder = certificate_folder(tmp_path, Reference.parse("r.io:5000/a"), Trust(ca_file=pem["ca"]))
    assert folder is not None
    assert [path.name for path in folder.iterdir()] == ["ca.crt"]
    both = Trust(client_certificates={"one.io": pair, "docker.io": pair}, mirrors=MIRRORS)
    for _ in range(2):  # a folder is written for a pull and for a push
        folder = certificate_folder(tmp_path, HUB, both)
        assert folder is not None
        assert sorted(path.name for path in folder.iterdir()) == ["0.cert", "0.key", "1.cert", "1.key"]
        assert (folder / "0.key").read_bytes() == pem["key"].read_bytes()
        assert {path.stat().st_mode & 0o777 for path in folder.glob("*.key")} == {0o600}
        assert folder.stat().st_mode & 0o777 == 0o700


def test_mirrors_for_buildah() -> None:
    access = access_of(Trust(mirrors=MIRRORS), "two.io:5000", "r.io")
    assert registries_conf(access) == (
        '[[registry]]\nlocation = "docker.io"\ninsecure = false\n\n'
        '[[registry.mirror]]\nlocation = "one.io/hub"\ninsecure = false\n\n'
        '[[registry.mirror]]\nlocation = "two.io:5000"\ninsecure = true\n\n'
        '[[registry]]\nlocation = "r.io"\ninsecure = true\n\n'
        '[[registry.mirror]]\nlocation = "one.io/r"\ninsecure = false\n'
    )
    assert registries_conf(access_of(Trust())) == ""
    login = ["--authfile", "/private/config.json"]
    assert access_words(Reference.parse("r.io/a"), access, LOGINS) == login, (
        "a flag would count for the mirrors as well"
    )
    assert access_words(Reference.parse("one.io/a"), access, LOGINS) == [*login, "--tls-verify=true"]
    assert access_words(Reference.parse("two.io:5000/a"), access, LOGINS) == [*login, "--tls-verify=false"]


def test_arguments_for_kaniko(pem: Mapping[str, Path]) -> None:
    trust = Trust(
        ca_file=pem["ca"],
        client_certificates={
            name: ClientCertificate(certificate=pem["cert"], key=pem["key"])
            for name in ("to.io", "docker.io", "other.io")
        },
        mirrors=MIRRORS,
    )
    build = KanikoBuild(
        base=HUB,
        context=Path("/w/context"),
        destination=Reference.parse("to.io/team/wine:1"),
        digest_file=Path("/w/digest"),
    )
    words = kaniko_words(build, Settings(cache_dir=Path("/cache")), access_of(trust, "two.io:5000"))
    pairs = [pair for pair in pairwise(words) if pair[0].startswith(("--registry", "--insecure"))]
    assert pairs == [
        ("--insecure-registry", "two.io:5000"),
        ("--registry-certificate", f"index.docker.io={pem['ca']}"),
        ("--registry-client-cert", f"index.docker.io={pem['cert']},{pem['key']}"),
        ("--registry-certificate", f"one.io={pem['ca']}"),
        ("--registry-certificate", f"to.io={pem['ca']}"),
        ("--registry-client-cert", f"to.io={pem['cert']},{pem['key']}"),
        ("--registry-map", "index.docker.io=one.io/hub"),
        ("--registry-map", "index.docker.io=two.io:5000"),
    ]
