"""Registries over TLS with an authority of their own: who is trusted, who is refused, and what each refusal says."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from packager.engines.base_inspection import inspect_remote_base
from packager.engines.buildah import BuildahEngine
from packager.errors import ImageNotFoundError, PackagerError, RegistryAuthError, RegistryUnreachableError
from packager.image.plan import BaseImage, ImageConfig, ImagePlan
from packager.models.connection import Connection
from packager.models.reference import Destination, Reference
from packager.registry.access import RegistryAccess, Trust, find_insecure_hosts
from packager.registry.keychain import Keychain
from packager.registry.uploads import check_push
from packager.settings import Settings
from packager.system.process import run_command
from tests.integration.bases import plain_channel
from tests.integration.fronts import READER, may_only_read, serve_front, serve_proxy
from tests.integration.packaging import CONDA_FORGE, ROOT, PackagingHarness
from tests.integration.registry import PASSWORD, ServerTls, free_port, serve_registry
from tests.integration.test_buildah import CREATED
from tests.integration.test_environment import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.engines import BuiltImage
    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")

BASE = "localhost/tiny-base:1"


@dataclass
class Authority:
    """An authority, and the certificates that it has issued, as files."""

    folder: Path
    ca: trustme.CA

    @property
    def file(self) -> Path:
        path = self.folder / "ca.pem"
        if not path.exists():
            self.ca.cert_pem.write_to_path(str(path))
        return path

    def issue(self, name: str, *, days: int = 1) -> tuple[Path, Path]:
        """A certificate and its key for a host, which runs out in so many days."""
        files = (self.folder / f"{name}{days}.crt", self.folder / f"{name}{days}.key")
        now = datetime.now(timezone.utc)
        issued = self.ca.issue_cert(name, not_before=now - timedelta(days=10), not_after=now + timedelta(days=days))
        issued.private_key_pem.write_to_path(str(files[1]))
        files[0].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        return files

    def server(self, name: str = "127.0.0.1", *, days: int = 1, clients: Authority | None = None) -> ServerTls:
        certificate, key = self.issue(name, days=days)
        return ServerTls(
            certificate=certificate,
            key=key,
            client_authority=clients.file if clients else None,
            client=clients.issue("tests") if clients else None,
        )


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), trustme.CA())


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), trustme.CA())


@pytest.fixture(scope="session")
def tls_registry(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry as it's met at work: TLS with an own authority, and a password."""
    with serve_registry(tmp_path_factory.mktemp("tls"), with_password=True, tls=authority.server()) as running:
        yield running


@dataclass
class TrustHarness:
    """Both ways to a registry, Buildah's and our own, with some settings and an environment."""

    folder: Path
    environ: dict[str, str]

    def settings(self, **values: Any) -> Settings:
        """Settings of a run; a text is a list of words."""
        given = {name: tuple(value.split()) if isinstance(value, str) else value for name, value in values.items()}
        places = {"work_dir": self.folder / "work", "cache_dir": self.folder / "cache"}
        return Settings.model_validate({**places, "registry_retry_seconds": 1, **given})

    @contextmanager
    def access(
        self, settings: Settings, *names: str, push: Connection | None = None, pull: Connection | None = None
    ) -> Iterator[RegistryAccess]:
        trust = Trust.from_settings(settings)
        insecure_hosts = find_insecure_hosts([Reference.parse(name) for name in names], trust)
        yield RegistryAccess(keychain=Keychain.open(push, pull), trust=trust, insecure_hosts=insecure_hosts)

    def engine(self, settings: Settings) -> BuildahEngine:
        return BuildahEngine(settings, partial(run_command, grace=5), self.environ)

    def build(self, settings: Settings, access: RegistryAccess, to: str, base: str = BASE) -> BuiltImage:
        context = self.folder / "context"
        context.mkdir(exist_ok=True)
        (context / "model").write_text("model")
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY model /model\n")
        reference = Reference.parse(base)
        plan = ImagePlan(base=BaseImage(reference=reference), steps=(), config=ImageConfig(), timestamp=CREATED)
        return self.engine(settings).build(plan, context, Destination(reference=Reference.parse(to)), access)

    def buildah(self, *words: str) -> None:
        subprocess.run(["buildah", *words], env=self.environ, check=True, capture_output=True)

    def push_base(self, registry: Registry, name: str) -> str:
        """Put the base image into a registry, whatever it's like, and forget it here."""
        words = ["--creds", f"{registry.username}:{registry.password}"] if registry.username else []
        self.buildah("push", *words, "--tls-verify=false", BASE, f"docker://{registry.host}/{name}")
        return f"{registry.host}/{name}"


@pytest.fixture
def trust(tmp_path: Path, storage: dict[str, str], tiny_base: str) -> Iterator[TrustHarness]:
    assert tiny_base == BASE
    (tmp_path / "work").mkdir()
    yield TrustHarness(tmp_path, storage)
    assert list((tmp_path / "work").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("auth-")] == []


def test_push_and_pull_work_with_the_authority(
    trust: TrustHarness, authority: Authority, tls_registry: Registry
) -> None:
    settings = trust.settings(ca_file=authority.file)
    base = trust.push_base(tls_registry, "team/base:1")
    to = f"{tls_registry.host}/team/wine:1"
    with trust.access(settings, base, to, push=tls_registry.connection()) as access:
        assert access.insecure_hosts == frozenset()
        check_push(Reference.parse(to), access)
        ours = inspect_remote_base(Reference.parse(base), access, settings)
        theirs = trust.engine(settings).inspect_base(Reference.parse(base), access)
        assert ours.digest == theirs.digest == tls_registry.digest("team/base", "1")
        assert ours.python == theirs.python == "3.11"
        built = trust.build(settings, access, to, base)
    assert built.digest == tls_registry.digest("team/wine", "1")


def push_errors(trust: TrustHarness, settings: Settings, to: str, connection: Connection | None) -> list[PackagerError]:
    """What our question before a push, and Buildah's push and pull, say of a registry."""
    errors = []
    with trust.access(settings, to, push=connection) as access:
        for ask in (
            partial(check_push, Reference.parse(to), access),
            partial(trust.build, settings, access, to),
            partial(trust.engine(settings).inspect_base, Reference.parse(to), access),
            partial(inspect_remote_base, Reference.parse(to), access, settings),
        ):
            with pytest.raises(PackagerError) as caught:
                ask()
            errors.append(caught.value)
    return errors


def test_unknown_authority_is_named(trust: TrustHarness, stranger: Authority, tls_registry: Registry) -> None:
    for settings in (trust.settings(), trust.settings(ca_file=stranger.file)):
        for error in push_errors(trust, settings, f"{tls_registry.host}/team/wine:2", tls_registry.connection()):
            assert isinstance(error, RegistryUnreachableError)
            assert f"the certificate of {tls_registry.host} can't be trusted" in error.message
            assert "PACKAGER_CA_FILE" in error.hint
    assert tls_registry.digest("team/wine", "2") is None


@pytest.mark.parametrize(
    ("name", "days", "words", "hint"),
    [
        ("127.0.0.1", -1, "has expired", "renew it on the registry"),
        ("registry.example.com", 1, "is for another name", "use the host name in the certificate"),
        ("127.0.0.9", 1, "is for another name", "use the host name in the certificate"),
    ],
)
def test_refused_certificates_are_named(
    trust: TrustHarness, authority: Authority, name: str, days: int, words: str, hint: str
) -> None:
    settings = trust.settings(ca_file=authority.file)
    with serve_registry(trust.folder / "registry", tls=authority.server(name, days=days)) as registry:
        for error in push_errors(trust, settings, f"{registry.host}/team/wine:1", None):
            assert isinstance(error, RegistryUnreachableError)
            assert f"the certificate of {registry.host} {words}" in error.message
            assert hint in error.hint
        assert registry.digest("team/wine", "1") is None


def test_wrong_password_is_named(trust: TrustHarness, authority: Authority, tls_registry: Registry) -> None:
    settings, to = trust.settings(ca_file=authority.file), f"{tls_registry.host}/team/wine:3"
    for error in push_errors(trust, settings, to, tls_registry.connection(password="wr0ng-one")):
        assert isinstance(error, RegistryAuthError)
        assert "refused the credentials" in error.message
        assert PASSWORD not in error.message
        assert "wr0ng-one" not in error.message
    for error in push_errors(trust, settings, to, None):
        assert isinstance(error, RegistryAuthError)


def test_user_with_read_permission_only_is_refused(trust: TrustHarness, password_registry: Registry) -> None:
    trust.push_base(password_registry, "team/base:1")
    with serve_front(password_registry, may_only_read) as front:
        spec = {"type": "docker", "uri": front.host, "username": READER[0], "password": READER[1]}
        reader = Connection.model_validate({"id": "reader", "spec": spec})
        base, to = f"{front.host}/team/base:1", f"{front.host}/team/refused:1"
        settings = trust.settings()
        with trust.access(settings, to, push=reader) as access:
            assert inspect_remote_base(Reference.parse(base), access, settings).python == "3.11"
            with pytest.raises(RegistryAuthError) as caught:
                check_push(Reference.parse(to), access)
            assert "refused the credentials of user 'reader' for this: DENIED" in caught.value.message
            assert f"let this user push at {front.host}/team/refused" in caught.value.hint
            with pytest.raises(RegistryAuthError, match="refused the credentials"):
                trust.build(settings, access, to)
    assert password_registry.digest("team/refused", "1") is None


def test_client_certificates_are_sent(trust: TrustHarness, authority: Authority, stranger: Authority) -> None:
    tls = authority.server(clients=authority)
    with serve_registry(trust.folder / "registry", tls=tls) as registry:
        (certificate, key), (other, other_key) = authority.issue("us"), stranger.issue("us")
        to = f"{registry.host}/team/wine:1"
        for shown in ({}, {"client_certificates": f"{registry.host}={other}:{other_key}"}):
            errors = push_errors(trust, trust.settings(ca_file=authority.file, **shown), to, None)
            for error in errors:
                assert isinstance(error, RegistryUnreachableError)
                assert f"the registry {registry.host} didn't accept our TLS connection" in error.message, error.message
                assert f"PACKAGER_CLIENT_CERTIFICATES={registry.host}=" in error.hint
        settings = trust.settings(ca_file=authority.file, client_certificates=f"{registry.host}={certificate}:{key}")
        with trust.access(settings, to) as access:
            check_push(Reference.parse(to), access)
            assert trust.build(settings, access, to).digest == registry.digest("team/wine", "1")
            assert inspect_remote_base(Reference.parse(to), access, settings).python == "3.11"
            assert trust.engine(settings).inspect_base(Reference.parse(to), access).python == "3.11"


def test_base_image_from_a_mirror(trust: TrustHarness, authority: Authority, tls_registry: Registry) -> None:
    """The host itself is down; the mirror is spoken to in TLS with a password, another one isn't there."""
    trust.push_base(tls_registry, "hub/library/mirrored:1")
    down = f"127.0.0.1:{free_port()}"
    settings = trust.settings(
        ca_file=authority.file, registry_mirrors=f"{down}=127.0.0.1:{free_port()} {down}={tls_registry.host}/hub"
    )
    base = Reference.parse(f"{down}/library/mirrored:1")
    with trust.access(settings, str(base), pull=tls_registry.connection()) as access:
        ours = inspect_remote_base(base, access, settings)
        theirs = trust.engine(settings).inspect_base(base, access)
        assert ours.digest == theirs.digest == tls_registry.digest("hub/library/mirrored", "1")
        assert ours.reference == theirs.reference == base
        missing = Reference.parse(f"{down}/library/missing:1")
        with pytest.raises(RegistryUnreachableError, match=f"{down} can't be reached"):
            inspect_remote_base(missing, access, settings)
        with pytest.raises((RegistryUnreachableError, ImageNotFoundError)):
            trust.engine(settings).inspect_base(missing, access)


def test_plain_http_mirror_of_a_tls_host(trust: TrustHarness, tls_registry: Registry, registry: Registry) -> None:
    """The mirror's plain HTTP is no reason to trust the host's certificate, nor the other way round."""
    trust.push_base(registry, "plain/base:1")
    settings = trust.settings(registry_mirrors=f"{tls_registry.host}={registry.host}/plain")
    with trust.access(settings, f"{tls_registry.host}/base:1") as access:
        assert access.insecure_hosts == {registry.host}
        base = Reference.parse(f"{tls_registry.host}/base:1")
        assert trust.engine(settings).inspect_base(base, access).python == "3.11"
        with pytest.raises(PackagerError, match="certificate"):
            trust.engine(settings).inspect_base(Reference.parse(f"{tls_registry.host}/team/none:1"), access)


def test_plain_http_needs_the_setting(trust: TrustHarness, tmp_path: Path) -> None:
    with serve_registry(tmp_path / "plain", address="127.0.0.2") as plain:
        to = f"{plain.host}/team/wine:1"
        for error in push_errors(trust, trust.settings(), to, None):
            assert isinstance(error, RegistryUnreachableError)
            assert f"the registry {plain.host} speaks plain HTTP" in error.message
            assert f"PACKAGER_INSECURE_REGISTRIES={plain.host}" in error.hint
        settings = trust.settings(insecure_registries=plain.host)
        with trust.access(settings, to) as access:
            assert access.insecure_hosts == {plain.host}
            check_push(Reference.parse(to), access)
            assert trust.build(settings, access, to).digest == plain.digest("team/wine", "1")
            assert inspect_remote_base(Reference.parse(to), access, settings).python == "3.11"


def test_registry_behind_a_proxy(
    trust: TrustHarness, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the proxy knows where the registry's name leads to."""
    with serve_registry(tmp_path / "far", tls=authority.server("registry.test")) as registry:
        to = "registry.test/team/wine:1"
        with serve_proxy({"registry.test:443": registry.host}) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.host}")
            trust.environ = {**trust.environ, "HTTPS_PROXY": f"http://{proxy.host}"}
            settings = trust.settings(ca_file=authority.file)
            with trust.access(settings, to) as access:
                check_push(Reference.parse(to), access)
                ours = len(proxy.seen)
                assert ours > 0
                built = trust.build(settings, access, to)
                assert built.digest == registry.digest("team/wine", "1")
                assert len(proxy.seen) > ours, "Buildah didn't go through the proxy"
                assert inspect_remote_base(Reference.parse(to), access, settings).python == "3.11"
                with pytest.raises(RegistryUnreachableError, match=r"can't be reached: 403"):
                    check_push(Reference.parse("elsewhere.test/a:1"), access)
                asked = len(proxy.seen)
                monkeypatch.setenv("NO_PROXY", "registry.test")
                with pytest.raises(RegistryUnreachableError):
                    check_push(Reference.parse(to), access)
                assert len(proxy.seen) == asked
    assert json.dumps(proxy.seen).count("registry.test:443") > 1


@dataclass
class Case:
    """A registry that refuses, and what the program says and ends with."""

    code: int
    words: str
    hint: str
    days: int = 1
    name: str = "127.0.0.1"
    trusted: bool = True
    password: str | None = None


CASES = {
    "wrong password": Case(31, "refused the credentials of user 'packager'", "check user and password", password="x!"),
    "unknown authority": Case(32, "can't be trusted", "PACKAGER_CA_FILE", trusted=False),
    "expired": Case(32, "has expired", "renew it on the registry", days=-1),
    "another name": Case(32, "is for another name", "use the host name in the certificate", name="other.test"),
}


@pytest.fixture
def harness(tmp_path: Path, storage: dict[str, str], tiny_base: str, authority: Authority) -> PackagingHarness:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PACKAGER_", "STRICT"))}
    environ = {
        **inherited,
        **storage,
        "PACKAGER_CACHE_DIR": str(CACHE / "cache"),
        "PACKAGER_CONDA_MIRRORS": f"{CONDA_FORGE}=file://{plain_channel()}",
        "PACKAGER_WORK_DIR": str(tmp_path / "work"),
        "PACKAGER_CA_FILE": str(authority.file),
        "PYTHONPATH": str(ROOT),
    }
    made = PackagingHarness(folder=tmp_path, environ=environ, base=tiny_base)
    made.put_model()
    made.results.mkdir()
    return made


def test_program_pulls_and_pushes_over_tls(
    harness: PackagingHarness, trust: TrustHarness, tls_registry: Registry
) -> None:
    harness.base = trust.push_base(tls_registry, "models/base:1")
    harness.put_manifest(tls_registry)
    ran = harness.run()
    assert ran.code == 0, ran.err
    digest = tls_registry.digest("models/wine", "1.0")
    assert ran.out.splitlines() == [f"{tls_registry.host}/models/wine@{digest}"]
    assert PASSWORD not in ran.out + ran.err


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_refusals_have_their_messages_and_come_before_the_work(
    harness: PackagingHarness, authority: Authority, case: Case
) -> None:
    tls = authority.server(case.name, days=case.days)
    with serve_registry(harness.folder / "registry", with_password=True, tls=tls) as registry:
        harness.put_manifest(registry)
        if case.password:
            harness.manifest["targets"][0]["connection"]["spec"]["password"] = case.password
        if not case.trusted:
            del harness.environ["PACKAGER_CA_FILE"]
        ran = harness.run()
        text = " ".join(ran.err.split())
        assert ran.code == case.code, ran.err
        assert case.words in text
        assert case.hint in text
        others = [other.words for other in CASES.values() if other is not case]
        assert not [words for words in others if words in text]
        assert registry.host in text
        assert "Looking into the base image" not in text
        assert PASSWORD not in text
        assert registry.digest("models/wine", "1.0") is None
    harness.assert_nothing_left()


def test_context_is_rendered_without_push_permission(harness: PackagingHarness, password_registry: Registry) -> None:
    harness.put_manifest(password_registry)
    packaging, (target,) = harness.manifest["modelPackaging"], harness.manifest["targets"]
    target["connection"]["spec"]["password"] = base64.b64encode(b"wrong-one").decode()
    packaging["spec"]["targets"] = [{"name": target["name"], "connectionName": "registry"}]
    documents = [{"kind": "ModelPackaging", **packaging}, {"kind": "Connection", **target["connection"]}]
    file = harness.folder / "documents.yaml"
    file.write_text("\n---\n".join(map(json.dumps, documents)))
    ran = harness.packager("render", str(harness.model), "-f", str(file), "--context", str(harness.folder / "context"))
    assert ran.code == 0, ran.err
    assert (harness.folder / "context" / "Dockerfile").exists()
    refused = harness.packager("build", str(harness.model), "-f", str(file))
    assert refused.code == 31, refused.err


def test_unusable_setting_is_reported_first(harness: PackagingHarness, registry: Registry) -> None:
    harness.put_manifest(registry)
    harness.environ["PACKAGER_CA_FILE"] = str(harness.folder / "no-such.pem")
    ran = harness.run()
    assert ran.code == 2
    assert "PACKAGER_CA_FILE" in ran.err
    assert "No such file" in " ".join(ran.err.split())
    harness.assert_nothing_left()
