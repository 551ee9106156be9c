from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from packager import __version__
from packager.cli import app
from packager.errors import PackagerError, exit_codes
from packager.models.documents import read_documents
from packager.pipeline import PackagingInput
from packager.settings import Settings
from tests.unit.archives import wine, write_zip

DOCUMENTED = {
    "docker-rest": {
        "imageName": ("string", "{{ Name }}-{{ Version }}:{{ RandomUUID }}"),
        "port": ("integer", 5000),
        "timeout": ("integer", 60),
        "workers": ("integer", 1),
        "threads": ("integer", 4),
        "host": ("string", "0.0.0.0"),
        "dockerfileBaseImage": ("string", "python:3.6"),
        "dockerfileAddCondaInstallation": ("boolean", True),
        "dockerfileCondaEnvsLocation": ("string", "/opt/conda/envs/"),
        "check": ("string", "auto"),  # ours
    },
}
DOCUMENTED["docker-rest"] |= {"batchMaxSize": ("integer", 1), "batchMaxLatencyMs": ("integer", 0)}  # ours
DOCUMENTED["docker-rest"] |= {
    "maxBodyBytes": ("integer", 67108864),
    "maxRows": ("integer", 1000000),
    "checkInput": ("boolean", True),
}
DOCUMENTED["docker-cli"] = {
    name: DOCUMENTED["docker-rest"][name]
    for name in (
        "imageName",
        "dockerfileBaseImage",
        "dockerfileAddCondaInstallation",
        "dockerfileCondaEnvsLocation",
        "check",
    )
}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PACKAGER_COLOR", "PACKAGER_GLIBC"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_the_integrations_are_the_documents(output: str) -> None:
    printed = CliRunner().invoke(app, ["integrations", "-o", output])
    assert printed.exit_code == 0
    documents = json.loads(printed.output) if output == "json" else list(yaml.safe_load_all(printed.output))
    for document in documents:
        properties = document["spec"]["schema"]["arguments"]["properties"]
        arguments = {each["name"]: {row["name"]: row["value"] for row in each["parameters"]} for each in properties}
        told = {name: (words["type"], words["default"]) for name, words in arguments.items()}
        assert told == DOCUMENTED[document["id"]]
        targets = [(each["name"], each["required"]) for each in document["spec"]["schema"]["targets"]]
        assert targets == [("docker-push", True), ("docker-pull", False)]


def test_the_integrations_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "integrations.yaml"
    path.write_text(CliRunner().invoke(app, ["integrations"]).output)
    integrations = read_documents([path]).integrations
    assert integrations["docker-rest"].defaults()["port"] == 5000
    assert integrations["docker-cli"].spec.entrypoint == "odahu-flow-pack-to-cli"


def test_every_exit_code_is_in_the_help() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for code, meaning in exit_codes().items():
        assert f"{code:>5}  {meaning}" in text


def test_every_setting_is_listed() -> None:
    text = CliRunner().invoke(app, ["settings"]).output
    for name in Settings.model_fields:
        assert f"PACKAGER_{name.upper()}\n    " in text


def test_an_archive_is_described(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "wine.zip", wine())
    printed = CliRunner().invoke(app, ["inspect", str(archive), "-o", "json"])
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.stdout)["model"]["name"] == "wine"


def test_an_error_is_a_message_and_its_exit_code(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["inspect", str(tmp_path / "nowhere.zip")])
    assert printed.exit_code == 10
    assert printed.stdout == ""
    assert "nowhere.zip" in printed.stderr
    assert "hint: " in printed.stderr


def test_a_wrong_setting_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PACKAGER_COLOR", "red")
    printed = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert printed.exit_code == 2
    assert "PACKAGER_COLOR" in printed.stderr


@pytest.mark.parametrize("log", ["/dev/full", "/nowhere/log"])
def test_a_termination_log_that_can_not_be_written_hides_no_error(tmp_path: Path, log: str) -> None:
    printed = CliRunner().invoke(app, ["build", str(tmp_path / "nowhere.zip"), "--termination-log", log])
    assert printed.exit_code == (10 if log == "/dev/full" else 2)
    assert "termination log" in printed.stderr
    assert printed.exception is None or isinstance(printed.exception, SystemExit)


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == __version__


def test_a_context_is_never_written_over(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["render", str(tmp_path), "--context", str(tmp_path)])
    assert printed.exit_code == 2
    assert "exists already" in printed.stderr


def test_the_usage_of_run_says_which_word_may_be_left_out() -> None:
    assert "run [OPTIONS] [MODEL] RESOURCE_FILE\n" in CliRunner().invoke(app, ["run", "--help"]).output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["wine.zip"], 2, "RESOURCE_FILE is missing"),
        (["s3://models/wine.zip"], 2, "RESOURCE_FILE is missing"),
        (["."], 2, "RESOURCE_FILE is missing"),
        (["a", "b", "c"], 2, "3 arguments are given"),
        (["nowhere.json"], 12, "nowhere.json: can't be read"),
        (["ftp://host/wine.zip", "mp.json"], 2, "scheme 'ftp'"),
        (["https://ann:pa55w0rd@host/wine.zip", "mp.json"], 2, "a user or a password"),
    ],
)
def test_the_words_of_run_are_checked_before_any_work(
    words: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = {"modelPackaging": {"spec": {"integrationName": "docker-rest"}}}
    (tmp_path / "mp.json").write_text(json.dumps(document))
    printed = CliRunner().invoke(app, ["run", *words])
    assert printed.exit_code == code, printed.stderr
    assert said in printed.stderr
    assert "pa55w0rd" not in printed.stderr


def test_an_image_is_named_after_the_archive_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PackagingInput] = []
    monkeypatch.setattr("packager.cli.builds.package_model", lambda packaging, *_others: made.append(packaging))
    location = "https://store.example/a/wine-1.0.zip?sig=5167a7ure"
    printed = CliRunner().invoke(app, ["build", location])
    assert printed.exit_code == 0, printed.stderr
    assert made[0].overrides.output == "oci-archive:wine-1.0.oci.tar"
    assert str(made[0].model) == "https://store.example/a/wine-1.0.zip"


def test_the_login_of_netrc_is_in_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine store.example login ann password pa55word\n")
    monkeypatch.setenv("NETRC", str(netrc))
    echoed = "Basic YW5uOnBhNTV3b3Jk"  # ann:pa55word
    printed = CliRunner().invoke(app, ["inspect", str(tmp_path / echoed)])
    assert printed.exit_code == 10
    assert "Basic *****" in printed.output
    assert "YW5u" not in printed.output


def test_the_exit_codes_are_the_same_whatever_is_loaded() -> None:
    before = exit_codes()

    class ElsewhereError(PackagerError):
        """Of a module that may be loaded or not."""

    assert ElsewhereError.exit_code in before
    assert exit_codes() == before
