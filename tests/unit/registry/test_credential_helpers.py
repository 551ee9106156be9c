"""Credential helpers: which are asked, for which hosts, and what becomes of their answers."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from packager.errors import ToolMissingError
from packager.registry.credential_helpers import ask_helpers
from packager.registry.credentials import Credential
from packager.registry.docker_config import DockerConfig
from packager.system.process import Completed, OutOfBoundsError

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


def config(**values: Any) -> DockerConfig:
    return DockerConfig(**values)


def test_the_helper_of_a_host_is_asked_and_replaced_by_its_login() -> None:
    run = FakeHelper()
    user = config(helpers={"r.io": "desk", "other.io": "desk"})
    found = ask_helpers(user, ["r.io", "r.io"], {"HOME": "/h", "PACKAGER_PIP_INDEX_URL": "secret"}, run)
    assert found.logins == {"r.io": Credential(host="r.io", username="ann", password="s3cret")}
    assert found.helpers == {"other.io": "desk"}
    assert run.asked == [("docker-credential-desk", "r.io\n")]
    assert run.envs == [{"HOME": "/h"}]
    assert run.bounds == [(30, 1 << 20)]


def test_the_store_is_asked_for_hosts_without_a_login_and_then_left_out() -> None:
    run = FakeHelper()
    known = Credential(host="known.io", username="bob", password="x")
    found = ask_helpers(config(store="pass", logins={"known.io": known}), ["known.io", "docker.io"], {}, run)
    assert run.asked == [("docker-credential-pass", "https://index.docker.io/v1/\n")]
    assert found.logins["known.io"] == known
    assert found.logins["docker.io"].username == "ann"
    assert found.store == ""


def test_an_identity_token() -> None:
    run = FakeHelper(stdout=json.dumps({"Username": "<token>", "Secret": "t0ken"}))
    (login,) = ask_helpers(config(store="pass"), ["r.io"], {}, run).logins.values()
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
            "docker-credential-pass was asked for the",
        ),
        (FakeHelper(stdout="[" * 100_000), logging.WARNING, "something that is no login"),
        (FakeHelper(stdout="s3cret"), logging.WARNING, "something that is no login"),
        (FakeHelper(stdout='{"Username": "s3cret"}'), logging.WARNING, "something that is no login"),
        (FakeHelper(stdout='["s3cret"]'), logging.WARNING, "something that is no login"),
    ],
)
def test_what_gives_no_login_is_said_without_its_output(
    caplog: pytest.LogCaptureFixture, run: FakeHelper, level: int, words: str
) -> None:
    caplog.set_level(logging.DEBUG, logger="packager.registry.credential_helpers")
    assert ask_helpers(config(store="pass"), ["r.io"], {}, run).logins == {}
    (record,) = caplog.records
    assert record.levelno == level
    assert words in record.getMessage()
    assert "s3cret" not in record.getMessage()


def test_a_login_without_a_secret_is_anonymous() -> None:
    run = FakeHelper(stdout=json.dumps({"Username": "", "Secret": ""}))
    assert ask_helpers(config(store="pass"), ["r.io"], {}, run).logins == {}


def test_nobody_is_asked_where_there_is_no_helper() -> None:
    run = FakeHelper()
    assert ask_helpers(config(), ["r.io"], {}, run) == config()
    assert run.asked == []
