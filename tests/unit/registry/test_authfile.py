"""connections -> docker config.json."""

from __future__ import annotations

import base64
import errno
import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from packager.errors import DiskFullError, RequestError
from packager.models.connection import Connection
from packager.models.reference import Reference
from packager.registry.authfile import LoginContext, auth_config, auth_file, login_for, open_auth_file
from packager.registry.credentials import Credential, docker_credential
from packager.registry.docker_config import DockerConfig

if TYPE_CHECKING:
    from collections.abc import Iterable


def connection(uri: str, username: str = "", password: str = "", kind: str = "docker") -> Connection:
    spec = {"type": kind, "uri": uri, "username": username, "password": password}
    return Connection.model_validate({"id": "c", "spec": spec})


def logins(config: bytes) -> dict[str, str]:
    auths = json.loads(config)["auths"]
    return {key: base64.b64decode(entry["auth"]).decode() for key, entry in auths.items()}


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
def test_logins(push: Connection | None, pull: Connection | None, expected: dict[str, str], tmp_path: Path) -> None:
    with auth_file(push, pull, tmp_path) as path:
        assert logins(path.read_bytes()) == expected


def test_the_file_is_private_and_removed(tmp_path: Path) -> None:
    with auth_file(connection("r.io", "u", "p"), None, tmp_path) as path:
        assert path.name == "config.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_removed_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), auth_file(connection("r.io", "u", "p"), None, tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, _target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with auth_file(connection("r.io", "u", "p"), None, tmp_path) as path:
        before = path.read_bytes()
        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(DiskFullError, match="no space left"), auth_file(None, None, path.parent):
            pass
        assert [file.name for file in path.parent.iterdir()] == ["config.json"]
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (connection("1.dkr.ecr.eu-west-1.amazonaws.com", kind="ecr"), "is no ECR registry"),
        (connection("bucket", kind="s3"), "'s3' is no registry"),
        (connection("r.io", "a:b", "p"), "colon"),
        (connection("r.io", "user\n", "p"), "line break"),
        (connection("r.io", "", "p"), "no user name"),
        (connection("r.io", "<token>", ""), "identity token"),
    ],
)
def test_what_cannot_log_in(wrong: Connection, expected: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=expected), auth_file(wrong, None, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_identity_token(tmp_path: Path) -> None:
    with auth_file(connection("r.io/team", "<token>", "t0ken"), None, tmp_path) as path:
        entry = {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": "t0ken"}
        assert json.loads(path.read_bytes())["auths"] == {"r.io/team": entry, "r.io": entry}
        login = login_for(Reference.parse("r.io/team/x"), path)
    assert login is not None
    assert (login.identity_token, login.password) == ("t0ken", "")


def test_the_pulls_login_is_entered_for_the_base_itself(tmp_path: Path) -> None:
    push, pull = connection("r.io", "pusher", "1"), connection("r.io", "puller", "2")
    with auth_file(push, pull, tmp_path, LoginContext(base=Reference.parse("r.io/base/python:3"))) as path:
        assert logins(path.read_bytes()) == {"r.io/base/python": "puller:2", "r.io": "pusher:1"}
    with auth_file(push, pull, tmp_path, LoginContext(base=Reference.parse("other.io/python:3"))) as path:
        assert logins(path.read_bytes()) == {"r.io": "pusher:1"}


def test_every_secret_is_known_before_the_file_is_there(tmp_path: Path) -> None:
    known: set[str] = set()

    def learn(secrets: Iterable[str]) -> None:
        assert not list(tmp_path.glob("*/*"))
        known.update(secrets)

    key = json.dumps({"type": "service_account", "private_key": "-----BEGIN\nMIIEvQ==\n"}, indent=1)
    user = DockerConfig(logins={"u.io": Credential(host="u.io", username="own", password="users-own")})
    push, pull = connection("r.io", "_json_key", key), connection("p.io", "<token>", "t0ken")
    with auth_file(push, pull, tmp_path, LoginContext(user=user, learn=learn)) as path:
        assert logins(path.read_bytes())["r.io"] == f"_json_key:{key}"
        held = {entry["auth"] for entry in json.loads(path.read_bytes())["auths"].values()}
    assert {key, "MIIEvQ==", "t0ken", "users-own"} <= known
    assert held - {base64.b64encode(b"<token>:").decode()} <= known


def test_a_login_does_not_show_its_password() -> None:
    assert "s3cret" not in repr(docker_credential(connection("r.io", "u", "s3cret")))
    assert b"s3cret" not in auth_config([Credential(host="r.io", username="u", password="s3cret")])


def test_the_file_is_away_for_a_while_and_comes_back(tmp_path: Path) -> None:
    with open_auth_file(connection("r.io", "u", "p"), None, tmp_path) as file:
        before = file.path.read_bytes()
        with file.hidden():
            assert list(file.path.parent.iterdir()) == []
        assert file.path.read_bytes() == before
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
        with pytest.raises(ZeroDivisionError), file.hidden():
            raise ZeroDivisionError
        assert file.path.read_bytes() == before
    assert list(tmp_path.iterdir()) == []
