"""Connections, the user's docker configuration and tokens that expire -> the login of a repository."""

from __future__ import annotations

import base64
import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from packager.errors import RegistryAuthError, RequestError, UsageError
from packager.models.connection import Connection
from packager.models.reference import Reference
from packager.registry.credentials import Credential, docker_credential
from packager.registry.docker_config import DockerConfig
from packager.registry.keychain import Keychain, LoginContext
from tests.unit.registry.token_source import START, TokenSource

if TYPE_CHECKING:
    from collections.abc import Iterable

IMAGE = Reference.parse("r.io/team/wine:1")


def connection(uri: str, username: str = "", password: str = "", kind: str = "docker") -> Connection:
    spec = {"type": kind, "uri": uri, "username": username, "password": password}
    return Connection.model_validate({"id": "c", "spec": spec})


def written_logins(keychain: Keychain) -> dict[str, str]:
    auths = json.loads(keychain.docker_config().to_bytes())["auths"]
    return {key: base64.b64decode(entry["auth"]).decode() for key, entry in auths.items()}


def password(keychain: Keychain, name: str = "r.io/team/wine:1") -> str | None:
    login = keychain.login_for(Reference.parse(name))
    return None if login is None else login.password


@pytest.mark.parametrize(
    ("push", "pull", "expected"),
    [
        (connection("r.io"), None, {}),
        (connection("r.io", "u", "p"), None, {"r.io": "u:p"}),
        (connection("r.io:5000/a/b/", "u", "p"), None, {"r.io:5000/a/b": "u:p", "r.io:5000": "u:p"}),
        (None, connection("r.io/base", "u", "p"), {"r.io/base": "u:p", "r.io": "u:p"}),
        (
            connection("r.io/models", "pusher", "1"),
            connection("r.io/base", "puller", "2"),
            {"r.io/models": "pusher:1", "r.io/base": "puller:2", "r.io": "pusher:1"},
        ),
        (connection("r.io", "pusher", "1"), connection("r.io", "puller", "2"), {"r.io": "pusher:1"}),
        (
            connection("one.io", "a", "1"),
            connection("two.io", "b", "2"),
            {"one.io": "a:1", "two.io": "b:2"},
        ),
        (connection("r.io/models"), connection("r.io", "u", "p"), {"r.io": "u:p"}),
        (connection("r.io", "token", ""), None, {"r.io": "token:"}),
        (connection("r.io", "u", 'p:"\\ä\n$'), None, {"r.io": 'u:p:"\\ä\n$'}),
        (
            connection("docker.io/me", "u", "p"),
            None,
            {"docker.io/me": "u:p", "docker.io": "u:p", "https://index.docker.io/v1/": "u:p"},
        ),
    ],
)
def test_connections_give_the_entries_of_a_docker_config(
    push: Connection | None, pull: Connection | None, expected: dict[str, str]
) -> None:
    assert written_logins(Keychain.open(push, pull)) == expected


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_connection_to_any_name_of_docker_hub_logs_in_there(host: str) -> None:
    assert password(Keychain.open(connection(f"{host}/me", "u", "p"), None), "me/wine:1") == "p"


def test_without_any_login_access_is_anonymous() -> None:
    assert Keychain().login_for(IMAGE) is None
    assert Keychain.open(None, None).login_for(IMAGE) is None


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (connection("1.dkr.ecr.eu-west-1.amazonaws.com", kind="ecr"), "is not an ECR registry"),
        (connection("bucket", kind="s3"), "'s3' is not a registry"),
        (connection("r.io", "a:b", "p"), "colon"),
        (connection("r.io", "user\n", "p"), "line break"),
        (connection("r.io", "", "p"), "no user name"),
        (connection("r.io", "<token>", ""), "identity token"),
    ],
)
def test_connection_that_cannot_log_in_is_refused(wrong: Connection, expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        Keychain.open(wrong, None)


def test_user_named_token_has_an_identity_token() -> None:
    keychain = Keychain.open(connection("r.io/team", "<token>", "t0ken"), None)
    entry = {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": "t0ken"}
    assert json.loads(keychain.docker_config().to_bytes())["auths"] == {"r.io/team": entry, "r.io": entry}
    login = keychain.login_for(IMAGE)
    assert login is not None
    assert (login.identity_token, login.password) == ("t0ken", "")


def test_pull_login_counts_for_the_base_itself() -> None:
    push, pull = connection("r.io", "pusher", "1"), connection("r.io", "puller", "2")
    base = Reference.parse("r.io/base/python:3")
    keychain = Keychain.open(push, pull, LoginContext(base=base))
    assert written_logins(keychain) == {"r.io/base/python": "puller:2", "r.io": "pusher:1"}
    assert (password(keychain, "r.io/base/python:3"), password(keychain)) == ("2", "1")
    other = LoginContext(base=Reference.parse("other.io/python:3"))
    assert written_logins(Keychain.open(push, pull, other)) == {"r.io": "pusher:1"}


def test_connection_wins_over_the_users_own_login() -> None:
    own = {place: Credential(host="r.io", username="own", password="own") for place in ("r.io", "r.io/team/wine")}
    user = DockerConfig(logins={**own, "u.io": Credential(host="u.io", username="own", password="own")})
    keychain = Keychain.open(connection("r.io/team", "u", "p"), None, LoginContext(user=user))
    assert (password(keychain), password(keychain, "u.io/x:1"), password(keychain, "v.io/x:1")) == ("p", "own", None)


def test_broken_entry_matters_only_for_a_host_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    user = DockerConfig(broken={"r.io": "it is wrong"})
    with pytest.raises(UsageError, match="it is wrong"):
        Keychain.open(None, None, LoginContext(user=user, hosts=("r.io",)))
    with caplog.at_level(logging.WARNING):
        Keychain.open(None, None, LoginContext(user=user, hosts=("other.io",)))
    assert "it is wrong; this entry has no effect" in caplog.text
    assert password(Keychain.open(connection("r.io", "u", "p"), None, LoginContext(user=user, hosts=("r.io",)))) == "p"


def test_every_secret_is_registered() -> None:
    known: set[str] = set()

    def register(secrets: Iterable[str]) -> None:
        known.update(secrets)

    key = json.dumps({"type": "service_account", "private_key": "-----BEGIN\nMIIEvQ==\n"}, indent=1)
    user = DockerConfig(logins={"u.io": Credential(host="u.io", username="own", password="users-own")})
    push, pull = connection("r.io", "_json_key", key), connection("p.io", "<token>", "t0ken")
    keychain = Keychain.open(push, pull, LoginContext(user=user, register_secrets=register))
    assert written_logins(keychain)["r.io"] == f"_json_key:{key}"
    written = {entry["auth"] for entry in json.loads(keychain.docker_config().to_bytes())["auths"].values()}
    assert {key, "MIIEvQ==", "t0ken", "users-own"} <= known
    assert written - {base64.b64encode(b"<token>:").decode()} <= known


def test_password_is_not_shown() -> None:
    assert "s3cret" not in repr(docker_credential(connection("r.io", "u", "s3cret")))
    assert "s3cret" not in repr(Keychain.open(connection("r.io", "u", "s3cret"), None))


@pytest.mark.parametrize(
    ("lifetime", "due"),
    [
        (timedelta(hours=12), timedelta(hours=11)),
        (timedelta(hours=1), timedelta(minutes=30)),
        (timedelta(minutes=4), timedelta(minutes=2)),
        (timedelta(seconds=10), timedelta(minutes=1)),  # at most one request a minute
        (timedelta(days=-4000), timedelta(minutes=1)),
    ],
)
def test_token_is_renewed_at_its_use_before_it_expires(lifetime: timedelta, due: timedelta) -> None:
    source = TokenSource(lifetime)
    keychain = source.keychain()
    source.now = START + due - timedelta(seconds=1)
    assert password(keychain) == "token-1"
    source.now = START + due
    assert [password(keychain), password(keychain)] == ["token-2", "token-2"]
    assert keychain.expires


def test_token_is_not_renewed_for_another_host() -> None:
    source = TokenSource()
    keychain = source.keychain()
    source.expire()
    assert password(keychain, "other.io/x:1") is None
    assert source.fetched == 1


def test_login_that_lasts_is_fetched_once() -> None:
    source = TokenSource(None)
    keychain = source.keychain()
    source.now += timedelta(days=4000)
    assert password(keychain) == "token-1"
    assert not keychain.expires


def test_renewal_that_fails_is_retried_and_raises_only_after_the_token_has_expired(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = TokenSource()
    keychain = source.keychain()
    source.failures = [RegistryAuthError("denied")] * 2
    source.now = START + timedelta(hours=11)
    assert [password(keychain), password(keychain)] == ["token-1", "token-1"]
    assert caplog.text.count("the login of connection 'c' can't be renewed yet: denied") == 1
    source.now = START + timedelta(hours=12)
    with pytest.raises(RegistryAuthError, match="denied"):
        keychain.login_for(IMAGE)
    source.now += timedelta(minutes=1)
    assert password(keychain) == "token-2"
