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
def test_integrations_match_the_documented_arguments(output: str) -> None:
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


def test_printed_integrations_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "integrations.yaml"
    path.write_text(CliRunner().invoke(app, ["integrations"]).output)
    integrations = read_documents([path]).integrations
    assert integrations["docker-rest"].defaults()["port"] == 5000
    assert integrations["docker-cli"].spec.entrypoint == "odahu-flow-pack-to-cli"


def test_every_setting_is_listed() -> None:
    text = CliRunner().invoke(app, ["settings"]).output
    for name in Settings.model_fields:
        assert f"PACKAGER_{name.upper()}\n    " in text


def test_inspect_describes_an_archive(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "wine.zip", wine())
    printed = CliRunner().invoke(app, ["inspect", str(archive), "-o", "json"])
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.stdout)["model"]["name"] == "wine"


def test_error_is_a_message_on_stderr_and_an_exit_code(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["inspect", str(tmp_path / "nowhere.zip")])
    assert printed.exit_code == 10
    assert printed.stdout == ""
    assert "nowhere.zip" in printed.stderr
    assert "hint: " in printed.stderr


def test_invalid_setting_is_reported_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PACKAGER_COLOR", "red")
    printed = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert printed.exit_code == 2
    assert "PACKAGER_COLOR" in printed.stderr


@pytest.mark.parametrize("log", ["/dev/full", "/nowhere/log"])
def test_unwritable_termination_log_hides_no_error(tmp_path: Path, log: str) -> None:
    printed = CliRunner().invoke(app, ["build", str(tmp_path / "nowhere.zip"), "--termination-log", log])
    assert printed.exit_code == (10 if log == "/dev/full" else 2)
    assert "termination log" in printed.stderr
    assert printed.exception is None or isinstance(printed.exception, SystemExit)


def test_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == __version__


def test_existing_context_is_not_overwritten(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["render", str(tmp_path), "--context", str(tmp_path)])
    assert printed.exit_code == 2


def test_usage_of_run_marks_the_optional_argument() -> None:
    assert "run [OPTIONS] [MODEL] RESOURCE_FILE\n" in CliRunner().invoke(app, ["run", "--help"]).output


@pytest.mark.parametrize(
    ("args", "code", "subject"),
    [
        (["wine.zip"], 2, "RESOURCE_FILE"),
        (["s3://models/wine.zip"], 2, "RESOURCE_FILE"),
        (["."], 2, "RESOURCE_FILE"),
        (["a", "b", "c"], 2, "RESOURCE_FILE"),
        (["nowhere.json"], 12, "nowhere.json"),
        (["ftp://host/wine.zip", "mp.json"], 2, "'ftp'"),
        (["https://ann:pa55w0rd@host/wine.zip", "mp.json"], 2, "MODEL"),
    ],
)
def test_arguments_of_run_are_checked_before_any_work(
    args: list[str], code: int, subject: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = {"modelPackaging": {"spec": {"integrationName": "docker-rest"}}}
    (tmp_path / "mp.json").write_text(json.dumps(document))
    printed = CliRunner().invoke(app, ["run", *args])
    assert printed.exit_code == code, printed.stderr
    assert subject in printed.stderr
    assert "pa55w0rd" not in printed.stderr


def test_default_output_is_named_after_the_archive_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PackagingInput] = []
    monkeypatch.setattr("packager.cli.builds.package_model", lambda packaging, *_others: made.append(packaging))
    location = "https://store.example/a/wine-1.0.zip?sig=5167a7ure"
    printed = CliRunner().invoke(app, ["build", location])
    assert printed.exit_code == 0, printed.stderr
    assert made[0].overrides.output == "oci-archive:wine-1.0.oci.tar"
    assert str(made[0].model) == "https://store.example/a/wine-1.0.zip"


def test_netrc_credentials_are_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine store.example login ann password pa55word\n")
    monkeypatch.setenv("NETRC", str(netrc))
    echoed = "Basic YW5uOnBhNTV3b3Jk"  # ann:pa55word
    printed = CliRunner().invoke(app, ["inspect", str(tmp_path / echoed)])
    assert printed.exit_code == 10
    assert "Basic *****" in printed.output
    assert "YW5u" not in printed.output


def test_exit_codes_do_not_depend_on_loaded_modules() -> None:
    before = exit_codes()

    class ElsewhereError(PackagerError):
        """Of a module that may be loaded or not."""

    assert ElsewhereError.exit_code in before
    assert exit_codes() == before
