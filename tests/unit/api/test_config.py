from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from packager.api.config import ApiSettings
from packager.api.server import cipher_from, open_service
from packager.cli import app
from packager.errors import Interrupted, UsageError
from packager.settings import Settings
from tests.unit.api_builders import KEY, token_file

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn


def test_default_settings_listen_on_loopback_only() -> None:
    settings = ApiSettings.from_env({"PATH": "/bin", "PACKAGER_CACHE_DIR": "/x"})
    assert (settings.host, settings.port, settings.has_identity) == ("127.0.0.1", 8080, False)
    assert "127.0.0.1" in settings.hosts
    assert settings.logs_dir.parent == settings.data_dir


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "localhost:0", "[::1]:8080", "127.1.2.3:8080"])
def test_loopback_address_needs_no_authentication(listen: str) -> None:
    assert ApiSettings.from_env({"PACKAGER_API_LISTEN": listen}).listen == listen


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:8080", "[::]:80", "example.org:80", "10.0.0.1:80", "localhost.evil.org:80"]
)
def test_other_address_without_authentication_is_refused(listen: str) -> None:
    with pytest.raises(UsageError, match="only loopback addresses are allowed"):
        ApiSettings.from_env({"PACKAGER_API_LISTEN": listen})
    with_tokens = ApiSettings.from_env({"PACKAGER_API_LISTEN": listen, "PACKAGER_API_TOKENS_FILE": "/tokens"})
    assert with_tokens.hosts == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LISTEN", "8080", "PACKAGER_API_LISTEN: is not HOST:PORT"),
        ("LISTEN", "127.0.0.1:99999", "is not HOST:PORT"),
        ("COLOUR", "red", "PACKAGER_API_COLOUR"),
        ("OIDC_ISSUER", "https://x", "PACKAGER_API_OIDC_ISSUER and OIDC_AUDIENCE: set both"),
        ("OIDC_ISSUER", "http://example.org/x", "is not an https:// URL"),
        ("OIDC_WRITE_CLAIM", "groups", "PACKAGER_API_OIDC_WRITE_CLAIM"),
        ("ALLOWED_HOSTS", "a.org b:80", "PACKAGER_API_ALLOWED_HOSTS: 'b:80' is not a host name"),
        ("ALLOWED_HOSTS", "*x", "PACKAGER_API_ALLOWED_HOSTS"),
        ("EXECUTOR", "docker", "PACKAGER_API_EXECUTOR"),
        ("WORKERS", "0", "PACKAGER_API_WORKERS"),
    ],
)
def test_invalid_setting_is_named(name: str, value: str, problem: str) -> None:
    with pytest.raises(UsageError) as raised:
        ApiSettings.from_env({f"PACKAGER_API_{name}": value})
    assert problem in raised.value.message


def test_service_link_variables_of_kubernetes_are_ignored() -> None:
    links = {"PACKAGER_API_PORT": "tcp://10.0.0.1:80", "PACKAGER_API_SERVICE_HOST": "10.0.0.1"}
    assert ApiSettings.from_env(links).port == 8080


def test_program_settings_ignore_api_variables() -> None:
    assert Settings.from_env({"PACKAGER_API_KEY": "x"}).secrets() == []


def test_repr_of_settings_contains_no_secret() -> None:
    settings = ApiSettings.from_env(
        {"PACKAGER_API_KEY": "s3cret-1", "PACKAGER_API_DATABASE_URL": "postgresql://u:s3cret-2@h/x"}
    )
    assert "s3cret" not in f"{settings!r} {settings}"


def test_key_is_created_for_the_embedded_database_only(tmp_path: Path) -> None:
    encrypted = cipher_from(ApiSettings(data_dir=tmp_path)).encrypt({"a": "b"})
    assert cipher_from(ApiSettings(data_dir=tmp_path)).decrypt(encrypted) == {"a": "b"}
    for url in ("postgresql://h/x", f"sqlite:///{tmp_path}/other.db"):
        with pytest.raises(UsageError, match="no encryption key"):
            cipher_from(ApiSettings.model_validate({"data_dir": tmp_path, "database_url": url}))
    assert cipher_from(ApiSettings.model_validate({"key": f"{KEY},{KEY}", "database_url": "postgresql://h/x"}))
    (tmp_path / "keys").write_text(f"{KEY}\n")
    (tmp_path / "keys").chmod(0o600)
    assert cipher_from(ApiSettings(key_file=tmp_path / "keys"))


def test_uncreatable_data_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot create the folder"):
        open_service(ApiSettings(data_dir=tmp_path / "file" / "x"), None, lambda _secrets: None)


def test_api_token_creates_a_token_and_api_settings_lists_every_setting(tmp_path: Path) -> None:
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
    assert listed.startswith("Server\n\n  PACKAGER_API_LISTEN\n      ")
    assert "\n\nLogs\n\n  PACKAGER_API_LOG_BYTES\n" in listed
    assert "Maximum size of a request body. Default: 1 MiB.\n" in listed


@pytest.mark.parametrize(("text", "size"), [("256 MiB", 256 << 20), ("1000000", 1_000_000), ("1 GB", 10**9)])
def test_sizes_may_have_units(text: str, size: int) -> None:
    assert ApiSettings.from_env({"PACKAGER_API_LOG_BYTES": text}).log_bytes == size


def test_api_command_refuses_a_public_address_without_authentication(tmp_path: Path) -> None:
    environ = {"PACKAGER_API_DATA_DIR": str(tmp_path), "PACKAGER_API_TOKENS_FILE": ""}
    refused = CliRunner().invoke(app, ["api", "--listen", "0.0.0.0:0"], env=environ)
    assert refused.exit_code == 2
    assert "only loopback addresses are allowed" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_signal_during_the_start_exits_with_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> NoReturn:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("packager.api.server.open_service", opened)
    environ = {"PACKAGER_API_DATA_DIR": str(tmp_path), "PACKAGER_API_TOKENS_FILE": ""}
    stopped = CliRunner().invoke(app, ["api"], env=environ)
    assert stopped.exit_code == 0
    assert "stopped by SIGTERM" in stopped.stderr
    assert "built" not in stopped.stderr
