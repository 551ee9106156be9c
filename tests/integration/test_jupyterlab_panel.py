"""The panel in a real JupyterLab, installed from the wheel, before a real service."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect

from tests.integration.packagings import wait_until
from tests.integration.plain_http import PLAIN
from tests.integration.registry import free_port
from tests.integration.site import open_browser, serve_site, take_picture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.integration.registry import Registry
    from tests.integration.site import Site

pytestmark = [pytest.mark.needs("chromium", "buildah", "docker-registry", "htpasswd"), pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
LOGIN = "the-jupyter-servers-own-token"
_PATIENCE = 200.0


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A running JupyterLab, and the folder that it shows."""

    url: str
    folder: Path
    log: Path


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, storage: dict[str, str], tiny_base: str, registry: Registry
) -> Iterator[Site]:
    with serve_site(tmp_path_factory.mktemp("lab-site"), storage, tiny_base, registry) as running:
        yield running


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "build", "-q", "--wheel", "--out-dir", str(folder), str(PROJECT)], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(folder / "venv")], check=True)
    python = ["--python", str(folder / "venv/bin/python"), "-c", str(PROJECT / "requirements.lock")]
    subprocess.run([*uv, "pip", "install", "-q", *python, f"{wheel}[jupyterlab]"], check=True)
    (folder / "token").write_text(site.token + "\n")
    (folder / "work").mkdir()
    own = {"PACKAGER_API_URL": site.url, "PACKAGER_API_TOKEN_FILE": str(folder / "token"), "HOME": str(folder)}
    environ = {name: value for name, value in site.place.environ.items() if not name.startswith(("JUPYTER", "PYTHON"))}
    port = free_port()
    words = [
        "lab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        f"--IdentityProvider.token={LOGIN}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(folder / "venv/bin/jupyter"), *words, f"--ServerApp.root_dir={folder / 'work'}"],
            env={**environ, **own},
            stdout=log,
            stderr=log,
        )
    running = Lab(url=f"http://127.0.0.1:{port}", folder=folder / "work", log=folder / "log")

    def is_up() -> bool:
        assert process.poll() is None, running.log.read_text()
        try:
            return httpx.get(f"{running.url}/api", verify=PLAIN).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(is_up, _PATIENCE)
        yield running
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=_PATIENCE * 1000)
    with open_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """A page; what its browser was answered is written down in `answers.har` when it is closed."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, record_har_path=tmp_path / "answers.har", record_har_content="embed"
    )
    page = context.new_page()
    page.set_default_timeout(_PATIENCE * 1000)
    yield page
    context.close()


def open_lab(page: Page, lab: Lab, file: str = "") -> None:
    page.goto(f"{lab.url}/lab{f'/tree/{file}' if file else ''}?token={LOGIN}&reset")
    page.locator('li.lm-TabBar-tab[title="Packager"]').click()
    expect(page.locator("#packager-panel")).to_contain_text("docker-rest")


def test_file_is_submitted_shown_with_its_log_and_deleted(page: Page, lab: Lab, site: Site, tmp_path: Path) -> None:
    (lab.folder / "wine.yaml").write_text(site.packaging("lab-wine"))
    open_lab(page, lab, "wine.yaml")
    panel = page.locator("#packager-panel")
    expect(panel.locator('[data-id="registry"]')).to_contain_text("docker")
    expect(page.locator(".jp-FileEditor .cm-content")).to_contain_text("lab-wine")
    panel.get_by_label("Submit the open YAML file").click()
    shown = page.locator(".jp-packager-packaging")
    expect(shown.get_by_role("log")).to_contain_text("INFO")
    take_picture(page, "lab-running")
    expect(shown.get_by_role("heading")).to_contain_text("succeeded")
    expect(shown.get_by_role("log")).to_contain_text("done in")
    expect(shown.locator("code").first).to_contain_text("/site/lab-wine@sha256:")
    expect(panel.locator('[data-id="lab-wine"]')).to_contain_text("succeeded")
    take_picture(page, "lab-succeeded")
    panel.get_by_label("Delete lab-wine").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(panel.locator('[data-id="lab-wine"]')).to_have_count(0)
    expect(shown).to_have_count(0)
    page.context.close()
    told = (tmp_path / "answers.har").read_text()
    assert "/packager/submit" in told
    assert "/site/lab-wine@sha256:" in told
    assert site.token not in told
    assert site.token not in lab.log.read_text()


def test_template_is_created_as_a_file_and_opened(page: Page, lab: Lab) -> None:
    open_lab(page, lab)
    page.locator("#packager-panel").get_by_label("New file from a template").click()
    page.locator(".jp-Dialog select").select_option(label="packaging-docker-rest")
    page.locator(".jp-Dialog").get_by_role("button", name="Create").click()
    expect(page.locator(".jp-FileEditor .cm-content")).to_contain_text("kind: ModelPackaging")
    assert "integrationName: docker-rest" in (lab.folder / "packaging-docker-rest.yaml").read_text()
    take_picture(page, "lab-template")


def test_refused_submission_shows_the_message_of_the_service(page: Page, lab: Lab, site: Site) -> None:
    wrong = site.packaging("lab-wrong", "nowhere").replace("imageName: lab-wrong:1", "port: many")
    (lab.folder / "wrong.yaml").write_text(
        f"kind: Connection\nid: lab-ci\nspec: {{type: docker, uri: x:1}}\n---\n{wrong}"
    )
    open_lab(page, lab, "wrong.yaml")
    expect(page.locator(".jp-FileEditor .cm-content")).to_contain_text("lab-wrong")
    page.locator("#packager-panel").get_by_label("Submit the open YAML file").click()
    dialog = page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("created: Connection lab-ci")
    expect(dialog).to_contain_text("argument 'port': 'many' is not of type 'integer'")
    expect(dialog).to_contain_text('entity "nowhere" is not found')
    take_picture(page, "lab-refused")


def test_routes_are_limited_to_the_panel_and_authorized_users(lab: Lab) -> None:
    with httpx.Client(base_url=lab.url, timeout=60, verify=PLAIN) as client:
        assert client.get("/packager/connections").status_code == 403
        assert client.post("/packager/submit", json={"text": ""}).status_code == 403
        own = {"Authorization": f"token {LOGIN}"}
        assert [each["id"] for each in client.get("/packager/connections", headers=own).json()["items"]]
        shown = client.get("/packager/connections/registry", headers=own).json()
        assert shown["id"] == "registry"
        for path in ("connections/registry/decrypted", "connections/..%2f..%2fconfiguration", "nothing"):
            assert client.get(f"/packager/{path}", headers=own).status_code == 404
        missing = client.get("/packager/packagings/nothing/log", headers=own)
        assert (missing.status_code, missing.json()["message"]) == (404, 'entity "nothing" is not found')
        answer = client.post("/packager/submit", json={"text": "a: ["}, headers=own)
        assert (answer.status_code, answer.json()["message"][:8]) == (400, "line 1, ")


def test_panel_reports_an_unreachable_service(page: Page, lab: Lab, site: Site) -> None:
    open_lab(page, lab)
    for process in site.place.services:
        process.kill()
        process.wait()
    page.locator("#packager-panel").get_by_label("Refresh").click()
    expect(page.locator("#packager-panel").get_by_role("alert")).to_contain_text(
        f"the API service at {site.url} is unreachable"
    )
    take_picture(page, "lab-gone")
