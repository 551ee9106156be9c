from __future__ import annotations

from pathlib import Path

import pytest

from packager.errors import UsageError
from packager.settings import Settings


def test_defaults_need_no_environment() -> None:
    settings = Settings.from_env({"PATH": "/bin", "PACKAGER_GLIBC": ""})
    assert settings.platform == "linux-64"
    assert settings.glibc is None
    assert settings.secrets() == []


def test_values_of_every_type_are_read() -> None:
    settings = Settings.from_env(
        {
            "PACKAGER_CACHE_DIR": "/cache",
            "PACKAGER_ARTIFACT_MAX_BYTES": "1000",
            "PACKAGER_CONDA_DEFAULT_CHANNELS": "a, b c",
            "PACKAGER_CONDA_MIRRORS": "https://x/y=file:///z https://q?a=b",
            "PACKAGER_CONDA_CREDENTIALS": "host=ann:secret-1 other=token-2",
            "PACKAGER_PIP_INDEX_URL": "https://bob:secret-3@index/simple",
            "SOURCE_DATE_EPOCH": "12",
        }
    )
    assert settings.cache_dir == Path("/cache")
    assert settings.conda_default_channels == ("a", "b", "c")
    mirrors = {channel: mirror.get_secret_value() for channel, mirror in settings.conda_mirrors.items()}
    assert mirrors == {"https://x/y": "file:///z", "https://q?a": "b"}
    assert settings.source_date_epoch == 12
    assert {"secret-1", "token-2", "secret-3"} < set(settings.secrets())
    assert "secret" not in repr(settings)


def test_credentials_in_urls_are_secrets() -> None:
    settings = Settings.from_env(
        {
            "PACKAGER_PIP_FIND_LINKS": "https://u:s3cret-a@host/links /wheels",
            "PACKAGER_CONDA_MIRRORS": "conda-forge=https://u:s3cret-b@mirror",
            "PACKAGER_CONDA_CHANNEL_ALIAS": "https://alias/t/s3cret-c/",
            "PACKAGER_CONDA_CREDENTIALS": "host=s3cret-d other=u:s3cret-e",
        }
    )
    assert {f"s3cret-{letter}" for letter in "abcde"} <= set(settings.secrets())
    assert "/wheels" not in settings.secrets()
    for text in (repr(settings), str(settings), settings.model_dump_json(include={"pip_find_links", "conda_mirrors"})):
        assert "s3cret-a" not in text
        assert "s3cret-b" not in text


def test_user_without_a_home_has_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert Settings.from_env({}).cache_dir.name.startswith("packager-cache-")


@pytest.mark.parametrize("made", [(), ("home",), ("home/.cache",), ("home/.cache/packager",)], ids=str)
def test_cache_folder_is_in_an_existing_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for name in made:
        (tmp_path / name).mkdir(parents=True)
    found = Settings.from_env({}).cache_dir
    assert (found == tmp_path / "home/.cache/packager") is bool(made)
    assert found.name.startswith("packager")


def test_service_variables_of_kubernetes_are_ignored() -> None:
    words = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR", "API_PORT")
    more = ("API_SERVICE_HOST", "API_PORT_443_TCP_PROTO")
    assert Settings.from_env(
        {f"PACKAGER_{word}": "tcp://10.0.0.1:80" for word in (*words, *more)}
    ) == Settings.from_env({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PACKAGER_COLOR", "red"),
        ("PACKAGER_GLIBC", "new"),
        ("PACKAGER_ARTIFACT_MAX_BYTES", "-1"),
        ("PACKAGER_PLATFORM", "win-64"),
        ("SOURCE_DATE_EPOCH", "yesterday"),
    ],
)
def test_invalid_or_unknown_setting_is_named_without_its_value(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        Settings.from_env({name: value})
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("value", "mode"),
    [("", "auto"), ("auto", "auto"), ("always", "always"), ("true", "always"), ("1", "always"), ("False", "never")],
)
def test_check_is_a_mode_or_a_boolean(value: str, mode: str) -> None:
    assert Settings.from_env({"PACKAGER_CHECK": value}).check == mode


def test_unknown_mode_of_the_check_is_refused() -> None:
    with pytest.raises(UsageError, match="PACKAGER_CHECK"):
        Settings.from_env({"PACKAGER_CHECK": "sometimes"})
