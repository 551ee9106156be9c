"""A user's own docker config.json -> what of it counts beneath ours."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from packager.errors import ToolMissingError, UsageError
from packager.models.connection import Connection
from packager.models.reference import Reference
from packager.registry.credentials import Credential
from packager.registry.docker_config import DockerConfig, ask_helpers, read_user_config
from packager.registry.keychain import Keychain, LoginContext
from packager.system.process import Completed, OutOfBoundsError


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def read(document: Any) -> DockerConfig:
    return DockerConfig.from_bytes(json.dumps(document).encode())


def written(config: DockerConfig) -> Any:
    return json.loads(config.to_bytes())


def login(host: str, path: str = "", user: str = "our") -> Credential:
    return Credential(host=host, path=path, username=user, password="own")


@pytest.mark.parametrize(
    ("key", "entry", "name", "expected"),
    [
        ("r.io", {"auth": basic("u:p:q")}, "r.io/a:1", {"username": "u", "password": "p:q"}),
        ("r.io", {"username": "u", "password": "p"}, "r.io/a:1", {"username": "u", "password": "p"}),
        ("https://r.io/v1/", {"auth": basic("u:p")}, "r.io/a:1", {"username": "u", "password": "p"}),
        ("http://r.io:5000", {"auth": basic("u:p")}, "r.io:5000/a:1", {"username": "u", "password": "p"}),
        ("https://index.docker.io/v1/", {"auth": basic("u:p")}, "python:3", {"username": "u", "password": "p"}),
        ("index.docker.io", {"auth": basic("u:p")}, "python:3", {"username": "u", "password": "p"}),
        ("r.io/team/", {"auth": basic("u:p")}, "r.io/team/a:1", {"username": "u", "password": "p"}),
        ("r.io", {"auth": basic("u:p\0\0")}, "r.io/a:1", {"username": "u", "password": "p"}),
        ("r.io", {"auth": basic("0:"), "identitytoken": "t"}, "r.io/a", {"username": "0", "identity_token": "t"}),
        ("r.io", {"identitytoken": "t"}, "r.io/a", {"identity_token": "t"}),
        ("r.io", {"registrytoken": "t"}, "r.io/a", {"registry_token": "t"}),
        ("r.io/v2/", {"auth": basic("u:p")}, "r.io/a:1", {"username": "u", "password": "p"}),
        ("index.docker.io/v1/", {"auth": basic("u:p")}, "python:3", {"username": "u", "password": "p"}),
        ("r.io", {"auth": basic("u:p").rstrip("=")}, "r.io/a:1", {"username": "u", "password": "p"}),
        ("r.io", {"auth": basic("u:" + "p" * 99) + "\n"}, "r.io/a:1", {"username": "u", "password": "p" * 99}),
        ("r.io", {"auth": basic("u:")}, "r.io/a:1", {"username": "u"}),
        ("r.io", {"auth": "", "email": 1}, "r.io/a:1", None),
        ("r.io", {}, "r.io/a", None),
        ("r.io/team", {"auth": basic("u:p")}, "r.io/teams/a:1", None),
        ("r.io", {"auth": basic("u:p")}, "r.io:5000/a:1", None),
    ],
)
def test_entries_are_read(key: str, entry: dict[str, str], name: str, expected: dict[str, str] | None) -> None:
    config = read({"auths": {key: entry}, "HttpHeaders": {"X": "y"}})
    for reading in (config, DockerConfig.from_bytes(config.to_bytes())):  # it reads what it writes
        found = reading.login_for(Reference.parse(name))
        if expected is None:
            assert found is None
        else:
            assert found is not None
            path = found.path
            blank = {"username": "", "password": "", "identity_token": "", "registry_token": ""}
            values = {name: getattr(found, name) for name in blank}
            if "identity_token" in expected:  # any user will do
                values["username"] = expected.get("username", "")
            assert values == {**blank, **expected}
            assert found == Credential(host=found.host, path=path, **{**values, "username": found.username})


def test_our_logins_win_over_the_users() -> None:
    user = read(
        {
            "auths": {
                "r.io": {"auth": basic("user:r")},
                "r.io/models/deep": {"auth": basic("user:deep")},
                "r.io/base": {"auth": basic("user:base")},
                "https://other.io/v1/": {"auth": basic("user:other")},
            },
            "credHelpers": {"r.io": "r", "gcr.io": "gcloud", "docker.io": "hub"},
            "credsStore": "desktop",
        }
    )
    assert written(user.with_logins([login("r.io", "models")])) == {
        "auths": {
            "r.io/models": {"auth": basic("our:own")},
            "r.io": {"auth": basic("our:own")},
            "r.io/base": {"auth": basic("user:base")},
            "other.io": {"auth": basic("user:other")},
        },
        "credHelpers": {"gcr.io": "gcloud", "docker.io": "hub", "https://index.docker.io/v1/": "hub"},
    }
    assert set(written(user.with_logins([login("r.io")]))["auths"]) == {"r.io", "other.io"}
    assert set(written(user.with_logins([]))["credHelpers"]) == {
        "r.io", "gcr.io", "docker.io", "https://index.docker.io/v1/",
    }  # fmt: skip


def test_first_of_our_logins_wins() -> None:
    config = DockerConfig().with_logins(
        [login("r.io", "a", "push"), login("r.io", "", "pull"), login("r.io", "a", "late")]
    )
    assert {place: it.username for place, it in config.logins.items()} == {"r.io/a": "push", "r.io": "push"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "it is not an object"),
        (b'{"auths": []}', "auths is not an object"),
        (b'{"credsStore": 1}', "not a string"),
    ],
)
def test_broken_file_is_an_error(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UsageError, match=expected) as caught:
        read_user_config({"DOCKER_CONFIG": str(tmp_path)})
    assert str(tmp_path / "config.json") in caught.value.message
    assert "s3cret" not in caught.value.message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("content", [b"", b" \n", b"null", b'{"auths": null}', b'{"auths": {"r.io": null}}'])
def test_file_without_logins(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert read_user_config({"DOCKER_CONFIG": str(tmp_path)}) == DockerConfig()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_is_skipped(tmp_path: Path, encoding: str) -> None:
    text = json.dumps({"auths": {"r.io": {"auth": basic("u:p")}}})
    (tmp_path / "config.json").write_bytes(text.encode(encoding))
    assert read_user_config({"DOCKER_CONFIG": str(tmp_path)}).logins["r.io"].username == "u"


@pytest.mark.parametrize("first", ["r.io", "https://r.io/v1/"])
def test_host_key_wins_over_a_url_key(first: str) -> None:
    entries = {"r.io": {"auth": basic("exact:p")}, "https://r.io/v1/": {"auth": basic("url:p")}}
    config = read({"auths": {key: entries[key] for key in sorted(entries, key=lambda key: key != first)}})
    assert config.logins["r.io"].username == "exact"


BROKEN_ENTRIES = [
    ({"auths": {"r.io": basic("u:s3cret")}}, r"auths['r.io'] is not an object"),
    ({"auths": {"r.io": {"auth": "s3cret!"}}}, "auths['r.io'].auth is not the base64 of USER:PASSWORD"),
    ({"auths": {"r.io": {"auth": basic("s3cret")}}}, "auths['r.io'].auth is not the base64 of USER:PASSWORD"),
    ({"auths": {"r.io": {"auth": basic(":s3cret")}}}, "auths['r.io'].auth is not the base64 of USER:PASSWORD"),
    ({"auths": {"https://r.io": {"auth": 1}}}, "auths['https://r.io'].auth is not a string"),
    ({"credHelpers": {"r.io": 1}}, "credHelpers['r.io'] is not a string"),
]


@pytest.mark.parametrize(("document", "problem"), BROKEN_ENTRIES)
def test_broken_entry_of_a_host_that_the_run_does_not_need_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, document: dict[str, Any], problem: str
) -> None:
    document.setdefault("auths", {})["other.io"] = {"auth": basic("u:p")}
    (tmp_path / "config.json").write_text(json.dumps(document))
    user = read_user_config({"DOCKER_CONFIG": str(tmp_path)})
    keychain = Keychain.open(None, None, LoginContext(user=user, hosts=("other.io",)))
    assert keychain.docker_config().logins.keys() == {"other.io"}
    (record,) = caplog.records
    expected = f"the docker configuration {tmp_path / 'config.json'} is wrong: {problem}; this entry has no effect"
    assert (record.levelno, record.getMessage()) == (logging.WARNING, expected)


@pytest.mark.parametrize(("document", "problem"), BROKEN_ENTRIES)
def test_broken_entry_of_a_host_that_the_run_needs_is_an_error(
    tmp_path: Path, document: dict[str, Any], problem: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(document))
    user = read_user_config({"DOCKER_CONFIG": str(tmp_path)})
    context = LoginContext(user=user, hosts=("r.io",))
    with pytest.raises(UsageError) as caught:
        Keychain.open(None, None, context)
    assert caught.value.message == f"the docker configuration {tmp_path / 'config.json'} is wrong: {problem}"
    connection = Connection.model_validate(
        {"id": "push", "spec": {"type": "docker", "uri": "r.io/team", "username": "u", "password": "p4ssword"}}
    )
    assert Keychain.open(connection, None, context).docker_config().logins["r.io"].password == "p4ssword"


def test_config_is_read_from_docker_config_else_from_home(tmp_path: Path) -> None:
    named, home = tmp_path / "named", tmp_path / "home"
    for folder, user in ((named, "named"), (home / ".docker", "home")):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"auths": {"r.io": {"auth": basic(f"{user}:p")}}}))
    both = {"DOCKER_CONFIG": str(named), "HOME": str(home)}
    assert read_user_config(both).logins["r.io"].username == "named"
    assert read_user_config({"HOME": str(home)}).logins["r.io"].username == "home"
    assert read_user_config({**both, "DOCKER_CONFIG": str(tmp_path / "nowhere")}) == DockerConfig()
    assert read_user_config({"HOME": str(tmp_path)}) == DockerConfig()
    assert read_user_config({}) == DockerConfig()
    (tmp_path / "a-file").touch()
    assert read_user_config({"HOME": str(tmp_path / "a-file")}) == DockerConfig()
    with pytest.raises(UsageError, match=r"a-file is not a folder"):
        read_user_config({"DOCKER_CONFIG": str(tmp_path / "a-file")})


def test_unreadable_config_is_an_error_only_where_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UsageError, match="Permission denied"):
        read_user_config({"DOCKER_CONFIG": str(tmp_path)})
    assert read_user_config({"HOME": str(tmp_path)}) == DockerConfig()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_folder_instead_of_the_config_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        read_user_config({"DOCKER_CONFIG": str(tmp_path)})


def test_store_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auths": {"r.io": {}}, "credsStore": "desktop"}')
    config = read_user_config({"DOCKER_CONFIG": str(tmp_path)})
    assert config.store == "desktop"
    assert written(config.with_logins([])) == {"auths": {}}


ANSWER = json.dumps({"ServerURL": "x", "Username": "ann", "Secret": "s3cret"})


@dataclass
class FakeHelper:
    stdout: str = ANSWER
    returncode: int = 0
    missing: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    envs: list[dict[str, str]] = field(default_factory=list)
    bounds: list[tuple[float, int]] = field(default_factory=list)
    endless: str = ""

    def __call__(
        self, argv: list[str], *, env: dict[str, str], text: str, seconds: float, most: int, **_others: Any
    ) -> Completed:
        assert argv[1:] == ["get"]
        self.asked.append((argv[0], text))
        self.envs.append(env)
        self.bounds.append((seconds, most))
        if self.endless:
            raise OutOfBoundsError(self.endless)
        if self.missing:
            raise ToolMissingError("no such program")
        return Completed(argv=tuple(argv), returncode=self.returncode, output="", stdout=self.stdout)


def test_helper_of_a_host_is_replaced_by_its_login() -> None:
    run = FakeHelper()
    user = DockerConfig(helpers={"r.io": "desk", "other.io": "desk"})
    found = ask_helpers(user, ["r.io", "r.io"], {"HOME": "/h", "PACKAGER_PIP_INDEX_URL": "secret"}, run)
    assert found.logins == {"r.io": Credential(host="r.io", username="ann", password="s3cret")}
    assert found.helpers == {"other.io": "desk"}
    assert run.asked == [("docker-credential-desk", "r.io\n")]
    assert run.envs == [{"HOME": "/h"}]
    assert run.bounds == [(30, 1 << 20)]


def test_store_is_asked_for_hosts_without_a_login_and_left_out() -> None:
    run = FakeHelper()
    known = Credential(host="known.io", username="bob", password="x")
    found = ask_helpers(DockerConfig(store="pass", logins={"known.io": known}), ["known.io", "docker.io"], {}, run)
    assert run.asked == [("docker-credential-pass", "https://index.docker.io/v1/\n")]
    assert found.logins["known.io"] == known
    assert found.logins["docker.io"].username == "ann"
    assert found.store == ""


def test_helper_that_names_the_user_token_gives_an_identity_token() -> None:
    run = FakeHelper(stdout=json.dumps({"Username": "<token>", "Secret": "t0ken"}))
    (login,) = ask_helpers(DockerConfig(store="pass"), ["r.io"], {}, run).logins.values()
    assert (login.identity_token, login.password) == ("t0ken", "")


@pytest.mark.parametrize(
    ("run", "level", "words"),
    [
        (FakeHelper(missing=True), logging.WARNING, "docker-credential-pass, which is not installed"),
        (FakeHelper(stdout="credentials not found in native keychain", returncode=1), logging.DEBUG, "has no login"),
        (FakeHelper(stdout="error: s3cret store is locked", returncode=1), logging.WARNING, "exit code 1"),
        (
            FakeHelper(endless="it had not ended after 30 s"),
            logging.WARNING,
            "docker-credential-pass was stopped while it looked for the",
        ),
        (FakeHelper(stdout="[" * 100_000), logging.WARNING, "an invalid login"),
        (FakeHelper(stdout="s3cret"), logging.WARNING, "an invalid login"),
        (FakeHelper(stdout='{"Username": "s3cret"}'), logging.WARNING, "an invalid login"),
        (FakeHelper(stdout='["s3cret"]'), logging.WARNING, "an invalid login"),
    ],
)
def test_helper_without_a_login_is_reported_without_its_output(
    caplog: pytest.LogCaptureFixture, run: FakeHelper, level: int, words: str
) -> None:
    caplog.set_level(logging.DEBUG, logger="packager.registry.docker_config")
    assert ask_helpers(DockerConfig(store="pass"), ["r.io"], {}, run).logins == {}
    (record,) = caplog.records
    assert record.levelno == level
    assert words in record.getMessage()
    assert "s3cret" not in record.getMessage()


def test_helper_that_gives_no_secret_means_anonymous_access() -> None:
    run = FakeHelper(stdout=json.dumps({"Username": "", "Secret": ""}))
    assert ask_helpers(DockerConfig(store="pass"), ["r.io"], {}, run).logins == {}


def test_without_a_helper_no_program_runs() -> None:
    run = FakeHelper()
    assert ask_helpers(DockerConfig(), ["r.io"], {}, run) == DockerConfig()
    assert run.asked == []
