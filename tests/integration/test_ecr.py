"""ECR: tokens, repositories and roles from moto's server, and pushes to registries that take exactly those tokens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from packager.errors import RegistryAuthError, RegistryError, RegistryUnreachableError
from packager.models.connection import Connection
from packager.models.reference import Reference
from packager.registry.authfile import auth_file
from packager.registry.docker_config import DockerConfig
from packager.registry.ecr import Ecr
from packager.registry.ecr_repositories import ensure_repositories
from packager.registry.keychain import Clock, Keychain, LoginContext
from packager.settings import Settings
from tests.integration.aws import ACCOUNT, KEY_ID, KEY_SECRET, Aws, AwsProxy, refusal, serve_aws, serve_front, token
from tests.integration.bases import plain_channel
from tests.integration.ecr_hosts import EcrHosts, serve_ecr_hosts
from tests.integration.markers import Watch, found_below, found_in, marked
from tests.integration.packaging import CONDA_FORGE, ROOT, PackagingHarness
from tests.integration.registry import free_port
from tests.integration.test_environment import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator

REGION = "eu-west-1"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
OTHER_ACCOUNT = "210987654321"
OTHER_HOST = f"{OTHER_ACCOUNT}.dkr.ecr.us-east-2.amazonaws.com"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/packager"
DENIED = (
    f"User: arn:aws:iam::{ACCOUNT}:user/ci is not authorized to perform: ecr:CreateRepository on resource: "
    f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/wine because no identity-based policy allows the action"
)
IMAGE = Reference.parse(f"{HOST}/team/wine:1")
needs_registries = pytest.mark.needs("buildah", "docker-registry", "htpasswd", "openssl", "root")


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with serve_aws(tmp_path_factory.mktemp("moto")) as aws:
        yield aws


@pytest.fixture
def front(moto: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsProxy]:
    """A fresh AWS, which boto3 finds by this process's environment; there are no keys in it."""
    moto.reset()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with serve_front(moto) as front:
        for name, value in front.aws.environ_without_keys.items():
            monkeypatch.setenv(name, value)
        yield front


def connection(uri: str = f"{HOST}/team", *, keys: bool = True, **spec: str) -> Connection:
    own = {"keyID": KEY_ID, "keySecret": KEY_SECRET} if keys else {}
    return Connection.model_validate({"id": "my-ecr", "spec": {"type": "ecr", "uri": uri, **own, **spec}})


def ignore(_secrets: object) -> None:
    """Register no secret."""


def repositories(aws: Aws, region: str = REGION) -> dict[str, Any]:
    client = boto3.session.Session(KEY_ID, KEY_SECRET, region_name=region).client("ecr", endpoint_url=aws.endpoint)
    return {each["repositoryName"]: each for each in client.describe_repositories()["repositories"]}


def ensure(image: Reference = IMAGE, cache: str | None = None, *, role: str = "", **settings: Any) -> None:
    kaniko = Reference.parse(cache) if cache else None
    ensure_repositories(connection(role=role), image, kaniko, Settings.model_validate(settings), ignore)


def test_token_is_for_the_account_and_region_of_the_uri(front: AwsProxy) -> None:
    known: set[str] = set()
    login = Ecr(connection(f"{OTHER_HOST}/team"), known.update).credential()
    assert (login.host, login.path, login.username) == (OTHER_HOST, "team", "AWS")
    assert login.password == f"{OTHER_ACCOUNT}-auth-token"
    assert front.asked == [("GetAuthorizationToken", KEY_ID, "us-east-2")]
    assert {login.password, KEY_ID, KEY_SECRET, *login.secrets()} <= known


def test_keys_of_connection_and_environment_are_not_mixed(front: AwsProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENTSOWN1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "environment")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-the-environment")
    known: set[str] = set()
    for own in (False, True, False):
        Ecr(connection(keys=own), known.update).credential()
    assert [key for _operation, key, _region in front.asked] == ["AKIAENVIRONMENTSOWN1", KEY_ID, "AKIAENVIRONMENTSOWN1"]
    assert {"environment", "of-the-environment"} <= known


def test_web_identity_is_used(front: AwsProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("web-identity")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    known: set[str] = set()
    assert Ecr(connection(keys=False), known.update).credential().password == f"{ACCOUNT}-auth-token"
    assert front.operations == ["AssumeRoleWithWebIdentity", "GetAuthorizationToken"]
    assert front.asked[1][1].startswith("ASIA")
    assert front.asked[1][1] in known


def test_role_is_assumed_with_the_connections_keys(front: AwsProxy) -> None:
    known: set[str] = set()
    login = Ecr(connection(role=ROLE), known.update).credential()
    assert login.password == f"{ACCOUNT}-auth-token"
    assert front.operations == ["AssumeRole", "GetAuthorizationToken"]
    assert front.asked[0][1:] == (KEY_ID, REGION)
    session_key = front.asked[1][1]
    assert session_key.startswith("ASIA")
    assert session_key in known


def test_denied_role_is_an_error(front: AwsProxy) -> None:
    front.plan("AssumeRole", refusal("AccessDenied", "not authorized to perform: sts:AssumeRole", status=403))
    with pytest.raises(
        RegistryAuthError, match="the role arn:aws:iam::123456789012:role/packager: AWS denied"
    ) as caught:
        Ecr(connection(role=ROLE), ignore).credential()
    assert "trust policy" in caught.value.hint
    assert front.operations == ["AssumeRole"]


def test_missing_repositories_are_created_with_the_settings(front: AwsProxy) -> None:
    ensure(cache=f"{IMAGE.repository}/cache", ecr_tag_mutability="IMMUTABLE", ecr_scan_on_push=True)
    made = repositories(front.aws)
    assert {
        name: (it["imageTagMutability"], it["imageScanningConfiguration"]["scanOnPush"]) for name, it in made.items()
    } == {
        "team/wine": ("IMMUTABLE", True),
        "team/wine/cache": ("MUTABLE", False),
    }


def test_existing_repository_is_unchanged(front: AwsProxy) -> None:
    ensure()
    front.asked.clear()
    ensure(ecr_tag_mutability="IMMUTABLE")
    assert front.operations == ["DescribeRepositories"]
    assert repositories(front.aws)["team/wine"]["imageTagMutability"] == "MUTABLE"


def test_another_job_creates_the_repository_at_the_same_time(front: AwsProxy) -> None:
    ensure()
    front.asked.clear()
    front.plan("DescribeRepositories", refusal("RepositoryNotFoundException", "not found"))
    ensure()
    assert front.operations == ["DescribeRepositories", "CreateRepository"]


def test_repositories_of_other_registries_are_ignored(front: AwsProxy) -> None:
    ensure(Reference.parse("r.io/team/wine:1"), cache=f"{OTHER_HOST}/cache")
    assert front.operations == []


def test_denied_creation_is_not_retried(front: AwsProxy) -> None:
    front.plan("CreateRepository", refusal("AccessDeniedException", DENIED))
    with pytest.raises(RegistryAuthError) as caught:
        ensure()
    assert f"creation of the ECR repository {HOST}/team/wine" in caught.value.message
    assert "'my-ecr'" in caught.value.message
    assert "no identity-based policy" in caught.value.message
    assert f"allow ecr:CreateRepository on arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/wine" in caught.value.hint
    assert front.operations == ["DescribeRepositories", "CreateRepository"]


def test_credentials_that_may_only_push_suffice(front: AwsProxy, caplog: pytest.LogCaptureFixture) -> None:
    for operation in ("DescribeRepositories", "CreateRepository"):
        front.plan(operation, refusal("AccessDeniedException", DENIED))
    ensure()
    assert "can't check whether the ECR repository exists" in caplog.text


def test_throttled_call_is_retried_with_one_log_line_each(front: AwsProxy, caplog: pytest.LogCaptureFixture) -> None:
    front.plan("CreateRepository", *[refusal("ThrottlingException", "Rate exceeded")] * 2)
    ensure()
    assert front.operations == ["DescribeRepositories", *["CreateRepository"] * 3]
    assert "team/wine" in repositories(front.aws)
    lines = [record.getMessage() for record in caplog.records if "retrying" in record.getMessage()]
    assert lines == [f"retrying AWS (attempt {attempt} of 5): ThrottlingException: Rate exceeded" for attempt in (2, 3)]


def test_endless_throttling_ends_after_five_attempts(front: AwsProxy) -> None:
    front.plan("GetAuthorizationToken", *[refusal("ThrottlingException", "Rate exceeded")] * 9)
    with pytest.raises(RegistryError, match="limits the rate of requests, after every retry"):
        Ecr(connection(), ignore).credential()
    assert front.operations == ["GetAuthorizationToken"] * 5


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (refusal("UnrecognizedClientException", "The security token included in the request is invalid."), "'my-ecr'"),
        (refusal("ExpiredTokenException", "The security token included in the request is expired"), "have expired"),
        (refusal("AccessDeniedException", "no"), "AWS denied it to keyID and keySecret"),
    ],
)
def test_refused_keys_are_not_retried(front: AwsProxy, reply: Any, expected: str) -> None:
    front.plan("GetAuthorizationToken", reply)
    with pytest.raises(RegistryAuthError, match=expected) as caught:
        Ecr(connection(), ignore).credential()
    assert caught.value.message.startswith(f"login to {HOST}: ")
    assert KEY_SECRET not in caught.value.message + caught.value.hint
    assert front.operations == ["GetAuthorizationToken"]


def test_missing_credentials_are_an_error(front: AwsProxy) -> None:
    with pytest.raises(RegistryAuthError, match="there are no AWS credentials"):
        Ecr(connection(keys=False), ignore).credential()
    assert front.operations == []


def test_unreachable_aws_is_an_error(front: AwsProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RegistryUnreachableError, match="AWS can't be reached"):
        Ecr(connection(), ignore).credential()
    assert front.operations == []


class Time:
    """A clock whose time the test advances, wait by wait of the renewal."""

    def __init__(self) -> None:
        self.time = datetime.now(timezone.utc).replace(microsecond=0)
        self.waits: Queue[float] = Queue()
        self.ends: Queue[None] = Queue()
        self.waiting: float | None = None

    def wait(self, stopped: threading.Event, seconds: float) -> bool:
        self.waits.put(seconds)
        while not stopped.is_set():
            with suppress(Empty):
                self.ends.get(timeout=0.01)
                return stopped.is_set()
        return True

    def pass_to(self, moment: datetime) -> None:
        """Let time pass; what is due by then is done at the end."""
        while True:
            if self.waiting is None:
                self.waiting = self.waits.get(timeout=30)
            if self.time >= moment:
                return
            self.time += timedelta(seconds=self.waiting)
            self.waiting = None
            self.ends.put(None)


def test_token_is_renewed_before_it_expires(front: AwsProxy, tmp_path: Path) -> None:
    clock = Time()
    ends = [clock.time + timedelta(hours=hours) for hours in (12, 24, 36)]
    front.plan("GetAuthorizationToken", *(token(f"token-{n}", expires=end.timestamp()) for n, end in enumerate(ends)))
    known: set[str] = set()
    context = LoginContext(register_secrets=known.update, clock=Clock(now=lambda: clock.time, wait=clock.wait))
    with auth_file(Keychain.open(connection(), None, context), tmp_path) as path:
        for number, hours in enumerate((0, 11, 23)):
            clock.pass_to(ends[0] - timedelta(hours=12 - hours))
            login = DockerConfig.from_bytes(path.read_bytes()).login_for(IMAGE)
            assert login is not None
            assert login.password == f"token-{number}"
            assert path.stat().st_mode & 0o777 == 0o600
            assert [file.name for file in path.parent.iterdir()] == ["config.json"]
            assert login.password in known
    assert list(tmp_path.iterdir()) == []
    assert "login-renewal" not in {thread.name for thread in threading.enumerate()}


def test_failed_renewal_is_retried_and_raises_after_expiry(front: AwsProxy, caplog: pytest.LogCaptureFixture) -> None:
    clock = Time()
    end = clock.time + timedelta(hours=12)
    front.plan("GetAuthorizationToken", token("first", expires=end.timestamp()))
    expired = refusal("ExpiredTokenException", "The security token included in the request is expired")
    front.plan("GetAuthorizationToken", *[expired] * 2, token("second", expires=end.timestamp() + 43200))
    context = LoginContext(clock=Clock(now=lambda: clock.time, wait=clock.wait))
    keychain = Keychain.open(connection(), None, context)
    clock.time = end - timedelta(hours=1)
    for _ in range(2):  # the second time it isn't due again
        assert keychain.login_for(IMAGE) is not None
    assert caplog.text.count("the login of connection 'my-ecr' can't be renewed yet") == 1
    assert front.operations == ["GetAuthorizationToken"] * 2
    clock.time = end
    with pytest.raises(RegistryAuthError, match="have expired"):
        keychain.login_for(IMAGE)
    clock.time += timedelta(minutes=1)
    login = keychain.login_for(IMAGE)
    assert login is not None
    assert login.password == "second"


# --- with real registries under ECR's own names ---


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[EcrHosts]:
    folder = tmp_path / "hosts"
    folder.mkdir()
    passwords = {HOST: marked("token-of-today"), OTHER_HOST: marked("others-token")}
    with serve_ecr_hosts(folder, passwords) as running:
        yield running


@needs_registries
def test_buildah_pushes_with_a_renewed_token_only(
    front: AwsProxy, hosts: EcrHosts, storage: dict[str, str], tiny_base: str, tmp_path: Path
) -> None:
    clock = Time()
    end = clock.time + timedelta(hours=12)
    front.plan("GetAuthorizationToken", token("token-of-yesterday", expires=end.timestamp()))
    front.plan("GetAuthorizationToken", token(hosts.passwords[HOST], expires=end.timestamp() + 43200))
    context = LoginContext(clock=Clock(now=lambda: clock.time, wait=clock.wait))

    def push(path: Path) -> subprocess.CompletedProcess[str]:
        words = ["buildah", "push", "--authfile", str(path), tiny_base, f"docker://{IMAGE}"]
        environ = {**storage, **hosts.environ}
        return subprocess.run(words, env=environ, check=False, capture_output=True, text=True)

    with auth_file(Keychain.open(connection(), None, context), tmp_path) as path:
        refused = push(path)
        assert refused.returncode != 0
        assert "unauthorized" in refused.stderr
        clock.pass_to(end - timedelta(hours=1))
        pushed = push(path)
        assert pushed.returncode == 0, pushed.stderr
    assert hosts.digest(HOST, "team/wine", "1") is not None
    assert set(hosts.asked) == {HOST}


@pytest.fixture
def harness(
    front: AwsProxy, hosts: EcrHosts, storage: dict[str, str], tiny_base: str, tmp_path: Path
) -> PackagingHarness:
    """A model whose base lies in another account's registry than the one that the image goes to."""
    base = f"{OTHER_HOST}/shared/base:1"
    words = ["buildah", "push", "--creds", f"AWS:{hosts.passwords[OTHER_HOST]}", tiny_base, f"docker://{base}"]
    subprocess.run(words, env={**storage, **hosts.environ}, check=True, capture_output=True)
    channel = plain_channel()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PACKAGER_", "STRICT", "AWS_"))}
    environ = {
        **kept, **storage, **hosts.environ, **front.aws.environ_without_keys, "PYTHONPATH": str(ROOT),
        "PACKAGER_CACHE_DIR": str(CACHE / "cache"), "PACKAGER_WORK_DIR": str(tmp_path / "desk" / "work"),
        "PACKAGER_CONDA_MIRRORS": f"{CONDA_FORGE}=file://{channel}",
        "PACKAGER_SERVER": "gunicorn",  # the proxy leads to the registries alone
    }  # fmt: skip
    (tmp_path / "desk").mkdir()
    harness = PackagingHarness(folder=tmp_path / "desk", environ=environ, base=base)
    harness.put_model()
    harness.put_manifest(None, imageName="wine:1")
    spec = {"type": "ecr", "keyID": KEY_ID, "keySecret": KEY_SECRET}
    harness.manifest["targets"] = [
        {"name": "docker-push", "connection": {"id": "ours", "spec": {**spec, "uri": f"{HOST}/team", "role": ROLE}}},
        {"name": "docker-pull", "connection": {"id": "theirs", "spec": {**spec, "uri": f"{OTHER_HOST}/shared"}}},
    ]
    tokens = [token(hosts.passwords[host], expires=time.time() + 43200) for host in (HOST, OTHER_HOST)]
    front.plan("GetAuthorizationToken", *tokens)
    return harness


@needs_registries
def test_program_pulls_from_one_account_and_pushes_to_another(
    front: AwsProxy, hosts: EcrHosts, harness: PackagingHarness
) -> None:
    harness.environ["PACKAGER_ECR_TAG_MUTABILITY"] = "IMMUTABLE"
    ran = harness.packager(*harness.arguments(), "--verbose")
    assert ran.code == 0, ran.err
    digest = hosts.digest(HOST, "team/wine", "1")
    assert ran.out.strip() == f"{HOST}/team/wine@{digest}"
    assert repositories(front.aws)["team/wine"]["imageTagMutability"] == "IMMUTABLE"
    written = ran.out + ran.err + "".join(path.read_text() for path in harness.results.iterdir())
    for secret in (*hosts.passwords.values(), KEY_ID, KEY_SECRET):
        assert secret not in written
    harness.assert_clean()


@needs_registries
@pytest.mark.parametrize("engine", ["buildah", "oci"])
def test_keys_and_tokens_are_written_nowhere(
    hosts: EcrHosts, harness: PackagingHarness, storage: dict[str, str], engine: str
) -> None:
    for target in harness.manifest["targets"]:
        target["connection"]["spec"] |= {"keyID": marked("AKIA"), "keySecret": marked("key", "/+=")}
    words = harness.arguments()
    watch = Watch(folders=(harness.work,), private=("auth-*/config.json*",))
    with watch, harness.start(*words, "--verbose", "--engine", engine) as process:
        watch.of(process.pid)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert hosts.digest(HOST, "team/wine", "1") is not None
    assert found_in(out + err) == []
    assert watch.findings == []
    assert watch.held <= ({"config.json", "config.json.new"} if engine == "buildah" else set())
    assert found_below(harness.folder, given=(harness.folder / "mp.json",)) == []
    for host in (HOST, OTHER_HOST):
        assert found_below(harness.folder.parent / "hosts" / host / "data") == []
    assert found_below(Path(storage["HOME"]) / "graph" / "overlay-images") == []


@needs_registries
def test_denied_repository_ends_the_program_before_the_build(front: AwsProxy, harness: PackagingHarness) -> None:
    front.plan("CreateRepository", refusal("AccessDeniedException", DENIED))
    ran = harness.run()
    assert ran.code == 31, ran.err
    assert "allow ecr:CreateRepository" in ran.err
    assert "Looking into the base image" not in ran.err
    assert json.loads(harness.termination_log.read_text())["error"]["code"] == "registry-auth"
    harness.assert_nothing_left()


@needs_registries
def test_stopped_program_leaves_no_token(front: AwsProxy, harness: PackagingHarness) -> None:
    with harness.start(*harness.arguments()) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Looking into the base image" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143
    assert front.operations.count("GetAuthorizationToken") == 2
    harness.assert_nothing_left()
