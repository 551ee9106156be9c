from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
import yaml

from packager.api.web.rendering import age_of, security_headers, short_image
from packager.api.web.session import own_path
from packager.api.web.yaml_validation import read
from tests.unit.api_builders import encoded, furnish, make_client, make_service, packaging, token_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

OWN = {"Origin": "http://localhost"}
PACKAGING = yaml.safe_dump({"kind": "ModelPackaging", **packaging()})
LOGIN = f"username: ann, password: {encoded('hush')}"
CONNECTION = f"kind: Connection\nid: mine\nspec: {{type: docker, uri: 'localhost:1', {LOGIN}}}\n"
PAGES = ("/", "/ui/new", "/ui/connections", "/ui/integrations", "/ui/packagings/x", "/ui/packagings/x/log")
FORMS = ("/ui/new", "/ui/check", "/ui/delete/connection/registry")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """Where everyone may do everything."""
    with make_client(make_service(tmp_path)) as client:
        yield furnish(client)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[httpx.Client, str, str]]:
    """Where tokens are asked for; with one that may write and one that may not."""
    path, writing, reading = token_file(tmp_path)
    with make_client(make_service(tmp_path, tokens_file=path)) as client:
        yield client, writing, reading


def test_argument_without_a_type_is_shown(client: httpx.Client) -> None:
    properties = [{"name": "anything", "parameters": []}]
    spec = {"entrypoint": "x", "defaultImage": "y", "schema": {"arguments": {"properties": properties}}}
    assert client.post("/api/v1/packaging/integration", json={"id": "mine", "spec": spec}).status_code == 201
    page = client.get("/ui/integrations")
    assert (page.status_code, "anything" in page.text) == (200, True)


class TestSession:
    @pytest.mark.parametrize("cookie", ["", "nonsense", "ü"])
    def test_pages_without_a_token_show_the_login(self, guarded: tuple[httpx.Client, str, str], cookie: str) -> None:
        client, _, _ = guarded
        headers = [(b"cookie", f"packager_token={cookie}".encode())]
        for path in PAGES:
            answer = client.get(path, headers=headers)
            assert (answer.status_code, "<h1>Log in</h1>" in answer.text) == (401, True), path
        for path in FORMS:
            assert client.post(path, data={}, headers={**OWN, "Cookie": "packager_token=nonsense"}).status_code == 401

    def test_cookie_is_accepted_by_the_pages_but_not_by_the_api(self, guarded: tuple[httpx.Client, str, str]) -> None:
        client, token, _ = guarded
        headers = {**OWN, "X-Forwarded-Proto": "https"}
        answer = client.post(
            "/ui/login", data={"token": f" {token}\n", "target": "/ui/new?template=x"}, headers=headers
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/new?template=x")
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Secure", "Path=/"} <= set(cookie.split("; "))
        assert "max-age" not in cookie.lower()
        kept = {"Cookie": cookie.partition(";")[0]}
        assert client.get("/ui/new", headers=kept).status_code == 200
        for path in ("/api/v1/connection", "/api/v1/user/info"):
            assert client.get(path, headers=kept).status_code == 401
        assert 'packager_token=""' in client.post("/ui/logout", headers=OWN).headers["set-cookie"]

    @pytest.mark.parametrize(
        ("token", "said"),
        [("", "not a token"), ("a b", "not a token"), ("x" * 4000, "too long"), ("pkgr_x", "invalid")],
    )
    def test_login_with_an_invalid_token_is_refused(
        self, guarded: tuple[httpx.Client, str, str], token: str, said: str
    ) -> None:
        answer = guarded[0].post("/ui/login", data={"token": token}, headers=OWN)
        assert (answer.status_code, said in answer.text, "set-cookie" in answer.headers) == (401, True, False)

    def test_read_only_token_cannot_change_anything(self, guarded: tuple[httpx.Client, str, str]) -> None:
        client, writing, reading = guarded
        client.headers["Authorization"] = f"Bearer {writing}"
        furnish(client)
        headers = {**OWN, "Cookie": f"packager_token={reading}"}
        assert client.post("/ui/check", data={"text": PACKAGING}, headers=headers).status_code == 200
        for path in FORMS:
            if path != "/ui/check":
                answer = client.post(path, data={"text": PACKAGING}, headers=headers)
                assert (answer.status_code, "read-only" in answer.text) == (403, True)
        for path in ("/", "/ui/connections", "/ui/integrations"):
            assert not re.search("/ui/(edit|delete)/", client.get(path, headers=headers).text)

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Origin": "null"},
            {"Origin": "http://evil.test"},
            {"Origin": "http://localhost.evil.test"},
            {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "none"},
        ],
    )
    def test_forms_of_other_sites_are_refused(self, client: httpx.Client, headers: dict[str, str]) -> None:
        for path in (*FORMS, "/ui/login", "/ui/logout"):
            answer = client.post(path, data={"text": PACKAGING}, headers=headers)
            assert (answer.status_code, "another site" in answer.text) == (403, True)
        assert client.get("/api/v1/model/packaging").json() == []

    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            ("/", "/"),
            ("/ui/new?template=a", "/ui/new?template=a"),
            *((bad, "/") for bad in ("", "//evil.test", "/\\evil.test", "http://evil.test", "/a\nb", "/ b", "/ü")),
        ],
    )
    def test_redirect_target_is_a_path_of_this_site(self, target: str, expected: str) -> None:
        assert own_path(target) == expected


class TestPages:
    def test_pages_have_security_headers_and_no_inline_script(self, client: httpx.Client) -> None:
        client.post("/api/v1/model/packaging", json=packaging("x")).raise_for_status()
        for path in PAGES[:-1]:
            answer = client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
            assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == (
                "nosniff",
                "no-store",
            )
            assert not re.search(r"<script>|<style|\son[a-z]+=|\sstyle=|https?://(?!www\.w3)", answer.text)
        swagger = client.get("/swagger/index.html").headers["content-security-policy"]
        assert "script-src 'self'; style-src 'self' 'unsafe-inline'" in swagger
        assert security_headers(img_src="'none'")["Content-Security-Policy"].count("img-src") == 1

    def test_static_files_are_cached_by_etag(self, client: httpx.Client) -> None:
        for path in ("/static/pages.css", "/static/pages.js", "/favicon.ico", "/swagger/swagger-ui-bundle.js"):
            first = client.get(path)
            assert first.status_code == 200
            assert client.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        for path in ("/static/nothing", "/static/..%2frendering.py", "/swagger/nothing", "/swagger/__init__.py"):
            assert client.get(path).status_code == 404

    def test_submission_stores_all_entities_or_none(self, client: httpx.Client) -> None:
        wrong = PACKAGING.replace("wine-1.zip", "../x.zip")
        answer = client.post("/ui/new", data={"text": f"{CONNECTION}---\r\n{wrong}"}, headers=OWN)
        assert answer.status_code == 400
        assert client.get("/api/v1/model/packaging").json() == []
        answer = client.post("/ui/new", data={"text": f"{CONNECTION}---\r\n{PACKAGING}"}, headers=OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/packagings/wine")
        assert "will be replaced" in client.post("/ui/check", data={"text": PACKAGING}, headers=OWN).text

    def test_masked_secret_in_the_editor_keeps_the_old_one(self, client: httpx.Client) -> None:
        client.post("/ui/new", data={"text": CONNECTION}, headers=OWN)
        page = client.get("/ui/edit/connection/mine").text
        assert encoded("hush") not in page
        text = page.partition("<textarea")[2].partition(">\n")[2].partition("</textarea>")[0].replace("&#39;", "'")
        assert yaml.safe_load(text)["spec"]["password"] == "*****"
        answer = client.post("/ui/new", data={"text": text.replace("localhost:1", "localhost:2")}, headers=OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/connections")
        kept = client.get("/api/v1/connection/mine/decrypted").json()["spec"]
        assert (kept["uri"], kept["password"]) == ("localhost:2", encoded("hush"))

    def test_packaging_page_shows_the_result_of_the_model_check(self, client: httpx.Client) -> None:
        client.post("/api/v1/model/packaging", json=packaging("x")).raise_for_status()
        results = [{"name": "image", "value": "r.io/x:1"}, {"name": "modelCheck", "value": "skipped: <too large>"}]
        client.put("/api/v1/model/packaging/x/result", json=results).raise_for_status()
        page = client.get("/ui/packagings/x").text
        assert "<dt>modelCheck</dt><dd><code>skipped: &lt;too large&gt;</code></dd>" in page

    def test_deletion_needs_a_confirmation(self, client: httpx.Client) -> None:
        assert "Delete the connection registry?" in client.get("/ui/delete/connection/registry").text
        assert client.get("/api/v1/connection/registry").status_code == 200
        answer = client.post("/ui/delete/connection/registry", headers=OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/connections")
        assert client.get("/api/v1/connection/registry").status_code == 404
        assert client.post("/ui/delete/connection/registry", headers=OWN).status_code == 404
        assert client.get("/ui/delete/secret/registry").status_code == 400

    def test_openapi_document_describes_tokens_if_authentication_is_on(
        self, client: httpx.Client, guarded: tuple[httpx.Client, str, str]
    ) -> None:
        assert "securitySchemes" not in client.get("/openapi.json").json()["components"]
        for _ in range(2):
            document = guarded[0].get("/openapi.json").json()
            assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
            assert document["paths"]["/api/v1/user/info"]["get"]["security"] == [{"token": []}]
            assert not [path for path in document["paths"] if path.startswith(("/ui", "/static", "/swagger"))]


class TestChecking:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("a: [", [(1, "invalid YAML")]),
            ("", [(1, "write an entity of one of the kinds")]),
            ("---\n- 1\n", [(2, "kind: must be one of")]),
            ("id: x\nkind: Pod\n", [(2, "kind: must be one of")]),
            ("kind: [x]\n", [(1, "kind: must be one of")]),
            ("kind: Connection\nid: x\nspec:\n  uri: y\n", [(3, "spec.type: field required")]),
            ("kind: Connection\nid: 5\nspec:\n  type: git\n", [(2, "id: input should be a valid string")]),
            ("kind: Connection\nid: x\nspec: &a {type: git}\n", [(3, "invalid YAML: anchors")]),
            (
                "kind: Connection\nid: x\nspec: {type: 2024-01-01}\n",
                [(1, "contains a value that JSON does not support")],
            ),
            ("kind: Connection\nid: x\nspec: {type: .nan}\n", [(1, "contains a value that JSON does not support")]),
            ("kind: Connection\nid: !!python/object:os.system x\n", [(2, "invalid YAML")]),
            ("kind: ModelPackaging\nid: x\nspec:\n  targets:\n  - {}\n", [(5, "spec.targets.0.name: field required")]),
            ("[" * 5000, [(1, "invalid YAML")]),
        ],
    )
    def test_each_problem_has_its_line(self, text: str, expected: list[tuple[int, str]]) -> None:
        documents, problems = read(text)
        assert documents == []
        assert [problem.line for problem in problems] == [line for line, _ in expected]
        for problem, (_, said) in zip(problems, expected, strict=True):
            assert problem.text.startswith(said)


def test_long_text_is_not_parsed() -> None:
    documents, problems = read("a: b\n" * 50_000)
    assert documents == []
    assert [problem.text for problem in problems] == ["the text is longer than 200000 characters: submit it in parts"]


def test_ages_and_images_are_shortened() -> None:
    now = datetime(2026, 1, 2, tzinfo=timezone.utc)
    ages = {"2026-01-01T23:59:58.500Z": "1 s", "2026-01-01T22:00:00Z": "2 h", "2025-12-01T00:00:00Z": "32 d"}
    assert {time: age_of(time, now) for time in ages} == ages
    assert age_of("", now) == ""
    assert short_image("r/x@sha256:" + "a" * 64) == "r/x@sha256:" + "a" * 12 + "…"
    assert short_image("r/x:1") == "r/x:1"
