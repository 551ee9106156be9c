from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from packager.api.application import create_app
from packager.api.config import ApiSettings
from packager.api.identity import UnknownCallerError
from packager.api.identity.base import IdentityUnavailableError
from packager.api.identity.oidc import OpenIdConnect
from packager.api.identity.tokens import TokenFile, add_token, digest_of
from packager.api.middleware import PUBLIC_PATHS
from packager.errors import UsageError
from packager.models.connection import Connection
from tests.unit.api_builders import connection, encoded, make_client, make_service, token_file

if TYPE_CHECKING:
    from pathlib import Path

ISSUER, AUDIENCE = "https://login.example/realms/ml", "packager"


def routes(folder: Path) -> list[tuple[str, str]]:
    """Return every method and path of the application, as it is asked."""
    app = create_app(make_service(folder))
    found = [
        (method, path.replace("{", "x").replace("}", ""))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    app.state.service.store.close()
    return [(method.upper(), path) for method, path in found if path not in PUBLIC_PATHS]


def test_routes_require_a_token_and_changes_a_read_write_token(tmp_path: Path) -> None:
    path, ann, ben = token_file(tmp_path)
    asked = routes(tmp_path)
    assert len(asked) >= 18
    with make_client(make_service(tmp_path, tokens_file=path)) as client:
        for method, url in asked:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {ann}"}):
                answer = client.request(
                    method, url, headers=headers, content=b"{"
                )  # refused before the body is looked at
                assert (answer.status_code, list(answer.json())) == (401, ["message"]), (method, url)
                assert answer.headers["WWW-Authenticate"] == "Bearer"
            answer = client.request(method, url, headers={"Authorization": f"Bearer {ben}"})
            reads = method == "GET" and not url.endswith("/decrypted")
            assert (answer.status_code == 403) is not reads, (method, url, answer.text)
            answer = client.request(method, url, headers={"Authorization": f"bearer {ann}"})
            assert answer.status_code in {200, 400, 404}, (method, url, answer.text)


@pytest.mark.parametrize("end", ["", "/", "%0A", "/%0A", "%0A/", "%20"])
def test_read_only_token_sees_no_secret_for_any_spelling_of_the_path(tmp_path: Path, end: str) -> None:
    path, _, reading = token_file(tmp_path)
    service = make_service(tmp_path, tokens_file=path)
    document = {"id": "store", "spec": {"type": "s3", "uri": "s3://models", "keySecret": "hush-hush"}}
    service.store.connections.create(Connection.model_validate(document))
    with make_client(service, reading) as client:
        answer = client.get(f"/api/v1/connection/store/decrypted{end}")
        assert answer.status_code in {403, 404}
        assert encoded("hush-hush") not in answer.text


def test_unknown_path_requires_a_token(tmp_path: Path) -> None:
    path, ann, _ = token_file(tmp_path)
    with make_client(make_service(tmp_path, tokens_file=path)) as client:
        assert client.get("/docs").status_code == 401
        assert client.get("/docs", headers={"Authorization": f"Bearer {ann}"}).status_code == 404


def test_probe_needs_no_token_but_an_invalid_token_is_refused(tmp_path: Path) -> None:
    path, ann, _ = token_file(tmp_path)
    with make_client(make_service(tmp_path, tokens_file=path)) as client:
        for url in ("/health", "/ready", "/metrics", "/openapi.json"):
            assert client.get(url).status_code == 200
        assert client.get("/health", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/health", headers={"Authorization": f"Bearer {ann}"}).status_code == 200


def test_user_is_the_owner_of_the_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, ann, _ = token_file(tmp_path)
    with make_client(make_service(tmp_path, tokens_file=path), ann) as client, caplog.at_level("INFO"):
        assert client.get("/api/v1/user/info").json() == {"username": "ann", "email": ""}
        client.post("/api/v1/connection", json=connection())
    assert "audit: ann created connection registry from 192.0.2.7" in caplog.text
    assert ann not in caplog.text


def known(tokens: TokenFile, token: str) -> bool:
    try:
        return asyncio.run(tokens.authenticate(token)).username != ""
    except UnknownCallerError:
        return False


def test_changed_token_file_is_read_again(tmp_path: Path) -> None:
    path, ann, ben = token_file(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert ann not in path.read_text()
    tokens = TokenFile(path)
    assert known(tokens, ann)
    assert not known(tokens, digest_of(ann))
    cleo = add_token(path, "cleo", may_write=False)
    assert known(tokens, cleo)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "ann" not in line))
    assert not known(tokens, ann)
    assert known(tokens, ben)
    path.write_text("broken")
    assert not known(tokens, ben)
    path.unlink()
    assert not known(tokens, ben)
    assert len(ann) > 40


@pytest.mark.parametrize("line", ["ann", "ann all " + "0" * 64, "ann read-only 12", "ann read-only " + "g" * 64, "ä"])
def test_invalid_token_file_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# ours\n\n{line}\n")
    with pytest.raises(UsageError, match="token file"):
        TokenFile(path)


def test_world_writable_token_file_is_refused(tmp_path: Path) -> None:
    path, ann, _ = token_file(tmp_path)
    tokens = TokenFile(path)
    assert known(tokens, ann)
    path.chmod(0o666)
    with pytest.raises(UsageError, match="every user can change"):
        TokenFile(path)
    path.chmod(0o644)
    assert known(TokenFile(path), ann)


def test_invalid_token_name_is_refused(tmp_path: Path) -> None:
    for name in ("", "a b", "a\nb read-write", "#a"):
        with pytest.raises(UsageError, match="invalid token name"):
            add_token(tmp_path / "tokens", name, may_write=True)
    assert not (tmp_path / "tokens").exists()


def test_taken_token_name_is_refused(tmp_path: Path) -> None:
    add_token(tmp_path / "tokens", "ann", may_write=False)
    with pytest.raises(UsageError, match="already has a token of 'ann'"):
        add_token(tmp_path / "tokens", "ann", may_write=True)


KEYS = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in ("one", "two")}


class Provider(httpx.BaseTransport):
    """An identity provider on the wire."""

    def __init__(self) -> None:
        self.names = ["one"]
        self.others: list[dict[str, str]] = []
        self.asked: list[str] = []
        self.broken = False
        self.issuer = ISSUER

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.broken:
            raise httpx.ConnectError("refused")
        if request.url.path.endswith("openid-configuration"):
            return httpx.Response(200, json={"issuer": self.issuer, "jwks_uri": f"{ISSUER}/keys"})
        keys = [
            {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEYS[name].public_key())), "kid": name, "use": "sig"}
            for name in self.names
        ]
        return httpx.Response(200, json={"keys": [*keys, *self.others]})


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def provider(**settings: Any) -> tuple[OpenIdConnect, Provider, Clock]:
    wire, clock = Provider(), Clock()
    made = ApiSettings.model_validate({"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, **settings})
    return OpenIdConnect(made, wire, clock), wire, clock


def signed(key: str = "one", *, algorithm: str = "RS256", **claims: Any) -> str:
    own = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "u-1",
        "exp": time.time() + 300,
        "preferred_username": "ann",
        **claims,
    }
    held = {name: value for name, value in own.items() if value is not None}
    return jwt.encode(held, KEYS[key], algorithm=algorithm, headers={"kid": key})


def test_provider_token_is_accepted_and_keys_are_cached() -> None:
    oidc, wire, _ = provider()

    async def twice() -> None:
        for _ in range(2):
            caller = await oidc.authenticate(signed(email="ann@example.org"))
            assert (caller.username, caller.email, caller.may_write) == ("ann", "ann@example.org", True)

    asyncio.run(twice())
    assert wire.asked == ["/realms/ml/.well-known/openid-configuration", "/realms/ml/keys"]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        signed(aud="other"),
        signed(aud=["other"]),
        signed(iss="https://evil.example"),
        signed(exp=time.time() - 60),
        signed(exp=None),
        signed(sub=None),
        signed(nbf=time.time() + 600),
        signed("two"),
        signed().rpartition(".")[0] + ".AAAA",
        jwt.encode(
            {"iss": ISSUER, "aud": AUDIENCE, "sub": "u", "exp": 4e9}, "", algorithm="none", headers={"kid": "one"}
        ),
        jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "u", "exp": 4e9}, "k" * 64, "HS256", headers={"kid": "one"}),
        base64.urlsafe_b64encode(b"[" * 60_000).decode() + ".b.c",
    ],
    ids=[f"token-{number}" for number in range(15)],
)
def test_invalid_provider_token_is_refused(token: str) -> None:
    oidc, _, _ = provider()
    with pytest.raises(UnknownCallerError):
        asyncio.run(oidc.authenticate(token))


def test_published_symmetric_key_is_ignored() -> None:
    oidc, wire, _ = provider()
    known = base64.urlsafe_b64encode(b"k" * 64).rstrip(b"=").decode()
    wire.others = [{"kty": "oct", "k": known, "kid": "open", "use": "sig", "alg": "HS256"}]
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u", "exp": 4e9}
    with pytest.raises(UnknownCallerError, match="does not publish"):
        asyncio.run(oidc.authenticate(jwt.encode(claims, "k" * 64, "HS256", headers={"kid": "open"})))


@pytest.mark.parametrize(
    ("claim", "claims", "may_write"),
    [
        ("groups=packagers", {"groups": ["packagers"]}, True),
        ("groups=packagers", {"groups": ["packagers2"]}, False),
        ("groups=packagers", {"groups": "packagers2"}, False),
        ("groups=packagers", {}, False),
        ("realm_access.roles=writer", {"realm_access": {"roles": ["writer"]}}, True),
        ("https://a.b/role=w", {"https://a.b/role": "w"}, True),
    ],
)
def test_write_claim_decides_who_may_write(claim: str, claims: dict[str, Any], may_write: bool) -> None:
    oidc, _, _ = provider(oidc_write_claim=claim)
    assert asyncio.run(oidc.authenticate(signed(**claims))).may_write is may_write


def test_unknown_key_refreshes_the_keys_at_a_limited_rate() -> None:
    oidc, wire, clock = provider()

    async def story() -> None:
        await oidc.authenticate(signed())
        wire.names = ["two"]
        for _ in range(5):
            with pytest.raises(UnknownCallerError):
                await oidc.authenticate(signed("two"))
        assert len(wire.asked) == 2
        clock.now += 11
        await oidc.authenticate(signed("two"))
        assert len(wire.asked) == 4
        with pytest.raises(UnknownCallerError):
            await oidc.authenticate(signed("one"))

    asyncio.run(story())


def test_cached_keys_work_while_the_provider_is_down() -> None:
    oidc, wire, clock = provider()

    async def story() -> None:
        wire.broken = True
        with pytest.raises(IdentityUnavailableError):
            await oidc.authenticate(signed())
        wire.broken = False
        clock.now += 11
        await oidc.authenticate(signed())
        wire.broken = True
        clock.now += 1000
        await oidc.authenticate(signed())
        clock.now += 12 * 300 - 1000 + 1
        with pytest.raises(IdentityUnavailableError):
            await oidc.authenticate(signed())
        wire.broken = False
        clock.now += 11
        await oidc.authenticate(signed())

    asyncio.run(story())


def test_metadata_of_another_issuer_is_refused() -> None:
    oidc, wire, _ = provider()
    wire.issuer = "https://evil.example"
    with pytest.raises(IdentityUnavailableError):
        asyncio.run(oidc.authenticate(signed()))


def test_file_and_provider_tokens_work_together(tmp_path: Path) -> None:
    path, ann, _ = token_file(tmp_path)
    settings = {"tokens_file": path, "oidc_issuer": ISSUER, "oidc_audience": AUDIENCE}
    wire = Provider()
    with make_client(make_service(tmp_path, wire, **settings)) as client:
        for token, code in ((ann, 200), (signed(), 200), ("wrong", 401)):
            answer = client.get("/api/v1/user/info", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == code
        wire.broken = True
    with make_client(make_service(tmp_path, wire, **settings)) as client:
        answer = client.get("/api/v1/user/info", headers={"Authorization": f"Bearer {signed()}"})
        assert (answer.status_code, list(answer.json())) == (503, ["message"])
