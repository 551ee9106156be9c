"""The service's pages in a real browser, with real packagings behind them."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.integration.front import serve_front
from tests.integration.packagings import wait_until
from tests.integration.plain_http import PLAIN
from tests.integration.site import open_browser, serve_site, take_picture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

    from tests.integration.registry import Registry
    from tests.integration.site import Site

pytestmark = [pytest.mark.needs("chromium", "buildah", "docker-registry", "htpasswd"), pytest.mark.timeout(600)]

MARKER = "marker-in-a-connection"
EVIL = "<img src=x onerror=alert(1)>"
_PATIENCE = 60_000.0
_COLLECT = """() => {
  window.said = [];
  const hear = changes => changes.forEach(change => window.said.push(change.target.textContent));
  new MutationObserver(hear).observe(document.body, { childList: true, subtree: true });
}"""
_SCRIPT = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
_SUBMIT = """() => {
  document.querySelector('.editor').requestSubmit();
  return [document.querySelector('.editor button').disabled, document.getElementById('text').readOnly];
}"""


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, storage: dict[str, str], tiny_base: str, registry: Registry
) -> Iterator[Site]:
    with serve_site(tmp_path_factory.mktemp("site"), storage, tiny_base, registry) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=_PATIENCE)
    with open_browser() as running:
        yield running


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained about: scripts that failed, what the pages' policy forbade, other sites asked."""
    return []


@pytest.fixture
def context(browser: Browser, site: Site, complaints: list[str]) -> Iterator[BrowserContext]:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(_PATIENCE)

    def hear(said: ConsoleMessage) -> None:
        if "Content Security" in said.text:
            complaints.append(said.text)

    def watch(asked: Request) -> None:
        if not asked.url.startswith((site.url, "data:")):
            complaints.append(asked.url)

    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("console", hear)
    context.on("request", watch)
    yield context
    context.close()
    assert complaints == []


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Page:
    return logged_in(context, site, site.token)


def logged_in(context: BrowserContext, site: Site, token: str) -> Page:
    page = context.new_page()
    page.goto(site.url)
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Packagings")).to_be_visible()
    return page


def write(page: Page, site: Site, text: str) -> None:
    page.goto(f"{site.url}/ui/new")
    page.get_by_role("textbox").fill(text)


def client_of(site: Site, token: str) -> httpx.Client:
    return httpx.Client(base_url=site.url, cookies={"packager_token": token}, timeout=60, verify=PLAIN)


def test_token_opens_the_pages_until_logout(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.goto(f"{site.url}/ui/connections?page=0")
    page.get_by_label("Token").fill("pkgr_nobodys")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("invalid")
    take_picture(page, "login")
    page.get_by_label("Token").fill(site.token)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Connections")).to_be_visible()  # where one wanted to go
    (cookie,) = context.cookies()
    assert (cookie.get("httpOnly"), cookie.get("sameSite"), cookie.get("expires")) == (True, "Strict", -1)
    assert site.token not in page.content()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert context.cookies() == []


def test_packaging_is_created_in_the_editor_and_built(page: Page, site: Site, registry: Registry) -> None:
    password = base64.b64encode(MARKER.encode()).decode()
    with serve_front(registry) as front:
        front.stalled.set()  # the packaging doesn't end before the page has shown that it runs
        connection = {"type": "docker", "uri": front.host + "/pages", "username": "ada", "password": password}
        write(page, site, f"kind: Connection\nid: pages\nspec: {connection}\n---\n{site.packaging('wine', 'pages')}")
        expect(page.locator("#messages")).to_contain_text("No problems found.")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("heading", name="wine")).to_contain_text(re.compile("scheduling|running"))
        expect(page.get_by_role("log")).to_contain_text("INFO")
        take_picture(page, "running")
        front.stalled.clear()
        expect(page.get_by_role("heading", name="wine")).to_contain_text("succeeded")
    expect(page.get_by_role("log")).to_contain_text("done in")
    image = f"{front.host}/pages/wine@{registry.digest('pages/wine', '1')}"
    page.evaluate(_COLLECT)
    page.get_by_role("button", name=f"Copy {image}").click()
    wait_until(lambda: "Copied" in page.evaluate("() => window.said"))  # for a moment
    assert page.evaluate("() => navigator.clipboard.readText()") == image
    page.get_by_text("Arguments and resources").click()
    expect(page.get_by_text(site.base, exact=True)).to_be_visible()
    take_picture(page, "succeeded")
    for path in ("/ui/connections", "/ui/edit/connection/pages"):
        page.goto(site.url + path)
        expect(page.locator("main")).to_contain_text("pages")
        assert not re.search(f"{MARKER}|{password}", page.content())
    expect(page.get_by_role("textbox")).to_have_value(re.compile(r"password: '\*{5}'"))
    page.get_by_role("button", name="Submit").click()  # masked, so it stays as it is
    expect(page.get_by_role("heading", name="Connections")).to_be_visible()
    store = site.place.open_store()
    assert store.connections.find_all(["pages"])["pages"].spec.password.get_secret_value() == MARKER
    store.close()


def test_list_updates_itself_and_keeps_the_focus(page: Page, site: Site) -> None:
    with httpx.Client(headers={"Authorization": f"Bearer {site.token}"}, verify=PLAIN) as api:
        spec = {"integrationName": "docker-rest", "artifactName": "none.zip", "targets": [target("registry")]}
        api.post(f"{site.place.url}/model/packaging", json={"id": "none", "spec": spec}).raise_for_status()
    row = page.get_by_role("row", name="none")
    expect(row).to_contain_text("failed")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_role("link", name="none", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("none.zip")
    take_picture(page, "failed")
    page.get_by_role("link", name="Delete").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Packagings")).to_be_visible()
    expect(page.get_by_role("row", name="none")).to_have_count(0)


def target(connection: str) -> dict[str, str]:
    return {"name": "docker-push", "connectionName": connection}


def test_editor_shows_problems_by_line(page: Page, site: Site) -> None:
    text = site.packaging("Wrong_id", "nowhere").replace("imageName: Wrong_id:1", "port: many")
    write(page, site, text)
    problems = page.locator(".problems li")
    expect(problems).to_contain_text(["Line 2 id: ", "Line 8 argument 'port'", "Line 9 target 'docker"])
    expect(page.locator("#numbers .wrong")).to_have_text([re.compile("2"), re.compile("8"), re.compile("9")])
    take_picture(page, "wrong")
    problems.nth(1).get_by_role("link").click()
    assert page.evaluate("() => getSelection().toString()").strip() == "port: many"
    with page.expect_navigation():
        page.get_by_role("button", name="Submit").click()
    expect(problems).to_have_count(3)  # nothing was made
    page.get_by_role("textbox").fill("kind: Connection\nid: [\n")
    expect(problems).to_contain_text(["Line 3 invalid YAML"])
    page.get_by_role("textbox").fill(site.packaging("wine"))
    expect(page.locator("#messages")).to_contain_text(re.compile("No problems found"))


def test_form_is_locked_while_it_is_submitted(page: Page, site: Site) -> None:
    write(page, site, site.packaging("Wrong_id"))
    expect(page.locator(".problems li")).to_have_count(1)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.is_navigation_request() else None)
    with page.expect_navigation():
        page.get_by_role("button", name="Submit").dblclick()
    assert page.evaluate(_SUBMIT) == [True, True]
    expect(page.get_by_role("textbox")).to_be_editable()  # after the answer
    assert sent == [f"{site.url}/ui/new"] * 2


def test_failed_check_is_reported_and_retried(page: Page, site: Site) -> None:
    write(page, site, site.packaging("Wrong_id"))
    expect(page.locator(".problems li")).to_have_count(1)
    page.route("**/ui/check", lambda route: route.abort())
    page.get_by_role("textbox").fill(site.packaging("wine"))
    expect(page.locator("#messages")).to_have_text(re.compile("^Not checked: .* Retrying"))
    expect(page.locator("#numbers .wrong")).to_have_count(0)
    page.unroute("**/ui/check")
    page.route("**/ui/check", lambda route: route.fulfill(status=401))
    expect(page.locator("#messages")).to_contain_text("logged out")
    page.unroute("**/ui/check")
    expect(page.locator("#messages")).to_contain_text("No problems found")


def test_foreign_text_is_escaped(page: Page, site: Site) -> None:
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    spec = {"type": "docker", "uri": "localhost:1", "description": EVIL}
    write(page, site, f"kind: Connection\nid: evil\nspec: {spec}\n")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text(EVIL)).to_be_visible()
    page.goto(f"{site.url}/ui/packagings/{EVIL}")
    expect(page.get_by_role("alert")).to_contain_text("is not found")
    write(page, site, f"kind: {EVIL!r}")
    expect(page.locator(".problems")).to_contain_text("kind: must be one of")


def test_read_only_token_offers_no_changes(context: BrowserContext, site: Site) -> None:
    page = logged_in(context, site, site.reading_token)
    expect(page.get_by_text("bob (read-only)")).to_be_visible()
    write(page, site, site.packaging("not-mine", "nowhere"))
    expect(page.locator(".problems")).to_contain_text('entity "nowhere" is not found')
    expect(page.get_by_role("button", name="Submit")).to_have_count(0)
    own = {"Origin": site.url}
    with client_of(site, site.reading_token) as client:
        for path, form in (("/ui/new", {"text": site.packaging("x")}), ("/ui/delete/connection/registry", {})):
            answer = client.post(path, data=form, headers=own)
            assert (answer.status_code, "read-only" in answer.text) == (403, True)


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_pages_fit_a_phone_in_light_and_dark_mode(
    browser: Browser, page: Page, context: BrowserContext, site: Site, scheme: Any, dark: bool
) -> None:
    state = context.storage_state()
    phone = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme, storage_state=state)
    small = phone.new_page()
    page.goto(site.url)
    first = page.locator("tbody a").first.get_attribute("href") or "/"
    for number, path in enumerate((first, "/", "/ui/connections", "/ui/integrations", "/ui/new")):
        small.goto(site.url + path)
        assert small.evaluate(_SCRIPT) == 0, path
        take_picture(small, f"phone-{scheme}-{number}")
    back, text = small.evaluate(
        "() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (_brightness(back) < _brightness(text)) == dark
    phone.close()


def _brightness(color: str) -> int:
    return sum(int(part) for part in re.findall(r"\d+", color)[:3])


def test_swagger_ui_loads_nothing_from_other_sites(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/swagger/index.html")
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("auth-bearer-value").or_(page.locator("input[type=text]")).first.fill(site.token)
    page.locator(".auth-btn-wrapper").get_by_role("button", name=re.compile("Apply|Authorize")).first.click()
    page.locator(".btn-done").click()
    block = page.locator(".opblock", has_text="/api/v1/user/info")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table")).to_contain_text('"username": "ada"')
    take_picture(page, "swagger")
