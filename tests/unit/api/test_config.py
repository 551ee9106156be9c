from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from packager.api.config import ApiSettings
from packager.api.server import find_sealer, open_service
from packager.cli import app
from packager.errors import Interrupted, UsageError
from packager.settings import Settings
from tests.unit.api_builders import KEY, token_file

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn


def test_the_defaults_are_for_this_machine_alone() -> None:
    settings = ApiSettings.from_env({"PATH": "/bin", "PACKAGER_CACHE_DIR": "/x"})
    assert (settings.host, settings.port, settings.has_identity) == ("127.0.0.1", 8080, False)
    assert "127.0.0.1" in settings.hosts
    assert settings.logs_dir.parent == settings.data_dir


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "localhost:0", "[::1]:8080", "127.1.2.3:8080"])
def test_without_identities_loopback_is_allowed(listen: str) -> None:
    assert ApiSettings.from_env({"PACKAGER_API_LISTEN": listen}).listen == listen


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:8080", "[::]:80", "example.org:80", "10.0.0.1:80", "localhost.evil.org:80"]
)
def test_without_identities_nothing_else_is(listen: str) -> None:
    with pytest.raises(UsageError, match="loopback addresses only"):
        ApiSettings.from_env({"PACKAGER_API_LISTEN": listen})
    with_tokens = ApiSettings.from_env({"PACKAGER_API_LISTEN": listen, "PACKAGER_API_TOKENS_FILE": "/tokens"})
    assert with_tokens.hosts == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LISTEN", "8080", "PACKAGER_API_LISTEN: is not HOST:PORT"),
        ("LISTEN", "127.0.0.1:99999", "is not HOST:PORT"),
        ("COLOUR", "red", "PACKAGER_API_COLOUR"),
        ("OIDC_ISSUER", "https://x", "PACKAGER_API_OIDC_ISSUER and OIDC_AUDIENCE: give both"),
        ("OIDC_ISSUER", "http://example.org/x", "is no https:// address"),
        ("OIDC_WRITE_CLAIM", "groups", "PACKAGER_API_OIDC_WRITE_CLAIM"),
        ("ALLOWED_HOSTS", "a.org b:80", "PACKAGER_API_ALLOWED_HOSTS: 'b:80' is no host name"),
        ("ALLOWED_HOSTS", "*x", "PACKAGER_API_ALLOWED_HOSTS"),
        ("EXECUTOR", "docker", "PACKAGER_API_EXECUTOR"),
        ("WORKERS", "0", "PACKAGER_API_WORKERS"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, problem: str) -> None:
    with pytest.raises(UsageError) as raised:
        ApiSettings.from_env({f"PACKAGER_API_{name}": value})
    assert problem in raised.value.message


def test_what_kubernetes_sets_for_a_service_is_no_setting() -> None:
    links = {"PACKAGER_API_PORT": "tcp://10.0.0.1:80", "PACKAGER_API_SERVICE_HOST": "10.0.0.1"}
    assert ApiSettings.from_env(links).port == 8080


def test_the_programs_own_settings_leave_the_services_alone() -> None:
    assert Settings.from_env({"PACKAGER_API_KEY": "x"}).secrets() == []


def test_secrets_are_in_no_text_of_the_settings() -> None:
    settings = ApiSettings.from_env(
        {"PACKAGER_API_KEY": "s3cret-1", "PACKAGER_API_DATABASE_URL": "postgresql://u:s3cret-2@h/x"}
    )
    assert "s3cret" not in f"{settings!r} {settings}"


def test_the_key_is_made_for_the_embedded_database_alone(tmp_path: Path) -> None:
    sealed = find_sealer(ApiSettings(data_dir=tmp_path)).seal({"a": "b"})
    assert find_sealer(ApiSettings(data_dir=tmp_path)).open(sealed) == {"a": "b"}
    for url in ("postgresql://h/x", f"sqlite:///{tmp_path}/other.db"):
        with pytest.raises(UsageError, match="there is no key"):
            find_sealer(ApiSettings.model_validate({"data_dir": tmp_path, "database_url": url}))
    assert find_sealer(ApiSettings.model_validate({"key": f"{KEY},{KEY}", "database_url": "postgresql://h/x"}))
    (tmp_path / "keys").write_text(f"{KEY}\n")
    (tmp_path / "keys").chmod(0o600)
    assert find_sealer(ApiSettings(key_file=tmp_path / "keys"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be made"):
        open_service(ApiSettings(data_dir=tmp_path / "file" / "x"), None, lambda _secrets: None)


def test_the_command_makes_tokens_and_lists_settings(tmp_path: Path) -> None:
    path, _, _ = token_file(tmp_path)
    run = CliRunner()
    made = run.invoke(app, ["api", "token", "cleo", "--file", str(path)])
    assert made.exit_code == 0
    assert made.stdout.strip() not in path.read_text()
    assert "cleo read-write" in path.read_text()
    assert run.invoke(app, ["api", "token", "c d", "--file", str(path)]).exit_code == 2
    listed = run.invoke(app, ["api", "settings"]).stdout
    for name in ApiSettings.model_fields:
        assert f"PACKAGER_API_{name.upper()}\n" in listed


def test_the_command_refuses_an_open_address(tmp_path: Path) -> None:
    environ = {"PACKAGER_API_DATA_DIR": str(tmp_path), "PACKAGER_API_TOKENS_FILE": ""}
    refused = CliRunner().invoke(app, ["api", "--listen", "0.0.0.0:0"], env=environ)
    assert refused.exit_code == 2
    assert "loopback addresses only" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_stop_while_the_service_starts_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> NoReturn:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("packager.api.server.open_service", opened)
    environ = {"PACKAGER_API_DATA_DIR": str(tmp_path), "PACKAGER_API_TOKENS_FILE": ""}
    stopped = CliRunner().invoke(app, ["api"], env=environ)
    assert stopped.exit_code == 0
    assert "stopped by SIGTERM" in stopped.stderr
    assert "built" not in stopped.stderr
