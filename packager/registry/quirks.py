"""How registries differ from the distribution specification and from each other, each with its public report.

A newly found difference goes here, as a constant or as a function of a response, and gets a row in docs/registries.md.
The specification is github.com/opencontainers/distribution-spec. Pure.
"""

from __future__ import annotations

import re
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

from packager.models.image import INDEXES, MANIFESTS
from packager.models.reference import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})  # RFC 9110 and RFC 6585

# Answers to HEAD for a blob that leave its existence open: some registries allow pushes, but not this.
NO_ANSWER = frozenset(range(400, 500)) - RETRYABLE_STATUSES

# Answers to a PATCH from a registry that only takes whole blobs, or from a proxy that wants to know their length
# (nginx before Harbor: 411, goharbor/harbor#12373).
NO_PATCH = (404, 405, 411, 501)

# Answers from a registry that has lost an upload, or whose upload holds other bytes than we think.
UPLOAD_LOST = (400, 404, 416)
UPLOAD_UNKNOWN = (404, 416)

# Statuses with which registries refuse a manifest for good.
MANIFEST_REFUSED = (400, 403, 405, 409, 412, 415, 422)

# distribution 2 answers so to a manifest while another program sends one of its blobs to the same repository.
_HALF_WRITTEN = ("DIGEST_INVALID",)

# Registries that don't let a tag be replaced: Amazon ECR (moby/buildkit#3776), Harbor (412, goharbor/harbor#18792),
# Nexus (GoogleContainerTools/jib#3057), Docker Hub (403, docker/hub-feedback#2466).
_IMMUTABLE = "immutab"
_KEEPS_TAGS = (_IMMUTABLE, "cannot be overwritten", "does not allow updating", "already exists")
_KEEPS_TAGS_STATUSES = (409, 412)

# oracle/smith#25
_WRONG_FORMAT = ("media type", "mediatype", "content type", "content-type", "schema version")

# A token service that knows no refresh tokens, and gets the password.
NO_REFRESH_TOKENS = (404, 405)

_API_HOSTS = {DOCKER_HUB: "registry-1.docker.io"}
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


def api_host(host: str) -> str:
    """Return the host that serves the API for images of a host."""
    return _API_HOSTS.get(host, host)


def no_cookies() -> CookieJar:
    """Return a jar that keeps no cookie, as docker (distribution/distribution#1818).

    Harbor takes a client that keeps its session's cookie for a browser, and refuses requests that a browser may not
    send (dotnet/sdk-container-builds#418).
    """
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def accept_headers(path: str) -> dict[str, str]:
    """Return the Accept header for a manifest, and none for anything else.

    Artifactory refuses one that doesn't fit (dotnet/sdk-container-builds#382).
    """
    return {"Accept": ", ".join((*MANIFESTS, *INDEXES))} if path.startswith("manifests/") else {}


def scopes(repository: str, actions: Sequence[str], offered: str) -> list[str]:
    """Return the scopes of a token: those that the repository needs, and the others of the challenge.

    Some challenges name no scope, or only a pull's before a push (containerd/containerd#1465, helm/helm#32156).
    """
    own = f"repository:{repository}"
    more = []
    for scope in offered.split():
        name, _, wanted = scope.rpartition(":")
        if name != own or not set(wanted.split(",")) <= set(actions):
            more.append(scope)
    return [f"{own}:{','.join(actions)}", *more]


def stored_bytes(headers: Mapping[str, str]) -> int | None:
    """Return how many bytes of an upload a registry has by its Range header; None where it doesn't say.

    An upload of no bytes and one of one byte look the same (`0-0`); it counts as one of no bytes, which is common. The
    answer to a PATCH isn't read: Amazon ECR's keeps the first part's range (aws/containers-roadmap#2831).
    """
    found = _RANGE.fullmatch(headers.get("Range", ""))
    if found is None:
        return None
    return 0 if found[1] == "0" else int(found[1]) + 1


def other_digest(headers: Mapping[str, str], digest: str) -> str:
    """Return the digest that a registry has stored instead of the one that was sent, or an empty text.

    It need not name one, and may name one of another algorithm.
    """
    given = headers.get("Docker-Content-Digest", "")
    return given[:80] if given.startswith("sha256:") and given != digest else ""


def is_half_written(code: str) -> bool:
    """Tell whether a manifest was refused because one of its blobs is being written by another client."""
    return code in _HALF_WRITTEN


def keeps_tags(status: int, code: str, message: str) -> bool:
    """Tell whether a manifest may have been refused because its tag names another one and can't be replaced."""
    text = message.lower()
    return any(words in text for words in _KEEPS_TAGS) or (
        (status in _KEEPS_TAGS_STATUSES or code == "TAG_INVALID") and "quota" not in text
    )


def says_immutable(message: str) -> bool:
    """Tell whether a registry calls its tags immutable."""
    return _IMMUTABLE in message.lower()


def refuses_format(status: int, message: str) -> bool:
    """Tell whether a manifest was refused for its media type."""
    return status == 415 or any(words in message.lower() for words in _WRONG_FORMAT)  # noqa: PLR2004  (RFC 9110)
