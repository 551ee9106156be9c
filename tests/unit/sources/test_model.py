from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from packager.errors import ArtifactError
from packager.logs.progress import SilentReporter
from packager.settings import Settings
from packager.sources.model import opened_model
from packager.sources.stores.location import parse_model
from tests.unit.archives import wine, zip_bytes

URL = "https://store.example/models/wine.zip"
LOGIN_PAGE = b"<html><title>Sign in</title></html>"


def serve(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    def answer(_transport: httpx.HTTPTransport, _request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Length": str(len(body))}, stream=httpx.ByteStream(body))

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)


def open_fetched(work: Path) -> str:
    model = parse_model(f"{URL}?sig=5167a7ure")
    environ = {"NETRC": str(work / "no-netrc")}
    with opened_model(model, work, settings=Settings(), environ=environ, reporter=SilentReporter()) as artifact:
        return artifact.manifest.model.name


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (LOGIN_PAGE, f"{URL} is an HTML page, not a zip archive"),
        (zip_bytes(wine())[:-30], f"the archive {URL} is truncated: the directory at its end is missing"),
    ],
)
@pytest.mark.parametrize("relative", [True, False])
def test_a_fetched_archive_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, said: str, relative: bool
) -> None:
    serve(monkeypatch, body)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        open_fetched(Path() if relative else tmp_path)
    assert caught.value.message == said
    assert "login or error page" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_other_errors_in_a_fetched_archive_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = wine()
    serve(monkeypatch, zip_bytes([*members, members[0]]))
    with pytest.raises(ArtifactError) as caught:
        open_fetched(tmp_path)
    assert URL not in caught.value.message
    assert "login" not in caught.value.hint


def test_a_fetched_archive_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, zip_bytes(wine()))
    assert open_fetched(tmp_path) == "wine"
