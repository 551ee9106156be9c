"""The service with tokens, a registry and a quick model; and the distribution's Chromium to look at its pages with."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from playwright.sync_api import sync_playwright

from packager.api.identity.tokens import add_token
from tests.integration.oci import pip_harness, push
from tests.integration.packagings import Place, put_entities, put_model, wait_until
from tests.integration.plain_http import PLAIN

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.integration.registry import Registry

# Where the pictures go that a test takes, for someone to look at.
_PATIENCE = 200.0  # seconds: many tests at once, on few processors
_PICTURES = os.environ.get("PACKAGER_TEST_PICTURES")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A running service.

    Attributes:
        base: The base image that its packagings take, so that nothing is fetched.
    """

    place: Place
    token: str
    reading_token: str
    base: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.place.port}"

    def packaging(self, packaging_id: str, connection: str = "registry") -> str:
        """A packaging as YAML."""
        return f"""\
kind: ModelPackaging
id: {packaging_id}
spec:
  integrationName: docker-rest
  artifactName: model.zip
  arguments:
    dockerfileBaseImage: {self.base}
    imageName: {packaging_id}:1
  targets:
    - name: docker-push
      connectionName: {connection}
"""


@contextmanager
def serve_site(folder: Path, storage: dict[str, str], tiny_base: str, registry: Registry) -> Iterator[Site]:
    """Run the service below a folder."""
    push(storage, tiny_base, registry.host, "site/base:1")
    base = f"{registry.host}/site/base:1"
    harness = pip_harness(folder, storage, base)
    put_model(harness.model, folder / "models")
    environ = {name: value for name, value in harness.environ.items() if name != "PACKAGER_WORK_DIR"}
    tokens = folder / "tokens"
    token, reading = add_token(tokens, "ada", may_write=True), add_token(tokens, "bob", may_write=False)
    place = Place(data=folder / "data", models=folder / "models", environ=environ)
    place.settings["TOKENS_FILE"] = str(tokens)
    store = place.open_store()
    put_entities(store, registry.connection("site"))
    store.close()
    try:
        process = place.start()
        site = Site(place=place, token=token, reading_token=reading, base=base)
        wait_until(lambda: _is_up(site, process), _PATIENCE)
        yield site
    finally:
        place.close()


def _is_up(site: Site, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, site.place.log()
    try:
        return httpx.get(f"{site.url}/health", verify=PLAIN).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Run Chromium, without its sandbox where there can be none (as root in a container)."""
    words = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=words)
        try:
            yield browser
        finally:
            browser.close()


def take_picture(page: Page, name: str) -> None:
    if _PICTURES:
        page.screenshot(path=Path(_PICTURES, f"{name}.png"))
