"""Image references and destinations, parsed when they are read.

The grammar is that of github.com/distribution/reference (`host[:port]/path[:tag][@digest]`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LAYOUT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+/-]{0,511}")  # opencontainers/image-spec, annotations.md
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_PATH_CHARACTERS = 255
_MAX_LABEL_CHARACTERS = 63  # RFC 1035
_MAX_HOST_CHARACTERS = 253
_MAX_PORT = 65535
LOCAL_STORAGE = "localhost"  # the host of images in an engine's local storage, never of a registry
DOCKER_HUB = "docker.io"
_LAYOUTS = ("oci", "oci-archive")
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


def _is_host(word: str) -> bool:
    return ("." in word or ":" in word or word == "localhost") and re.fullmatch(_HOST, word) is not None


def _refuse_host(word: str, text: str) -> None:
    """Reject a host name that can't be resolved.

    Raises:
        ValueError: A label of the name is empty or too long, or the port is invalid.
    """
    name, _, port = word.partition(":")
    if not word.startswith("[") and name.strip(".") and "" in name.split(".") and len(name.split(".")) > 1:
        raise ValueError(f"the host {word[:80]!r} in {text[:80]!r} has an empty part: two dots, or one at an end")
    if not _is_host(word) or word.startswith("["):
        return
    if len(name) > _MAX_HOST_CHARACTERS or any(len(part) > _MAX_LABEL_CHARACTERS for part in name.split(".")):
        raise ValueError(
            f"the host {word[:80]!r}… is too long: {_MAX_LABEL_CHARACTERS} characters between two dots, "
            f"{_MAX_HOST_CHARACTERS} in all"
        )
    if port and int(port[:6]) > _MAX_PORT:
        raise ValueError(f"the port of {word[:80]!r} is above {_MAX_PORT}")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An image reference with an explicit host.

    Attributes:
        host: `registry.example.com:5000`; `docker.io` if the text has none.
        path: The repository's path, without the host.
        tag: The tag, or None; in a layout, the image's whole name.
        digest: `sha256:…`, or None.
        layout: `oci:DIR` or `oci-archive:FILE` for an image on this machine, else empty; see `parse_base`.
    """

    host: str
    path: str
    tag: str | None = None
    digest: str | None = None
    layout: str = ""

    @classmethod
    def parse(cls, text: str, *, default_tag: str | None = "latest") -> Reference:
        """Parse a reference as the docker command line does: no host means Docker Hub.

        Raises:
            ValueError: The text is not a reference; the message names the invalid part.
        """
        if "://" in text:
            raise ValueError(f"{text!r} has a scheme; write host/path:tag")
        rest, _, digest = text.partition("@")
        if digest and not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a digest (sha256: and 64 hex digits)")
        head, slash, tail = rest.partition("/")
        if slash:
            _refuse_host(head, text)
        host, path = (head, tail) if slash and _is_host(head) else (DOCKER_HUB, rest)
        path, _, tag = path.partition(":")
        if host == DOCKER_HUB and path and "/" not in path:
            path = f"library/{path}"
        if not _PATH.fullmatch(path):
            raise ValueError(
                f"{path!r} in {text!r} is not a repository path: lower-case letters, digits, '/', '.', '_', '-' inside"
            )
        if len(path) > _MAX_PATH_CHARACTERS:
            raise ValueError(f"the repository path {path[:40]!r}… is longer than {_MAX_PATH_CHARACTERS} characters")
        if tag and not _TAG.fullmatch(tag):
            raise ValueError(f"{tag!r} in {text!r} is not a tag: at most 128 letters, digits, '_', '.', '-'")
        if ":" in rest[rest.rfind("/") + 1 :] and not tag:
            raise ValueError(f"{text!r} ends in an empty tag")
        return cls(host=host, path=path, tag=tag or (None if digest else default_tag), digest=digest or None)

    @classmethod
    def parse_base(cls, text: str) -> Reference:
        """Parse the name of a base image: a reference, or `oci:DIR[:NAME]` or `oci-archive:FILE[:NAME]`.

        NAME is the image's name in the layout's index: `localhost/wine:1.0`, `1.0`.

        `oci:5000` and `oci:5000/base` are references: a tag, and a host's port. Write `oci:./5000` for the folder.

        Raises:
            ValueError: As for `parse`, or the path is empty.
        """
        transport, colon, rest = text.partition(":")
        if not colon or transport not in _LAYOUTS or rest.partition("/")[0].isdigit():
            return cls.parse(text)
        path, _, tag = rest.partition(":")
        if not path:
            raise ValueError(f"{text!r} has no path; write {transport}:PATH or {transport}:PATH:NAME")
        if tag and not _LAYOUT_NAME.fullmatch(tag):
            raise ValueError(f"{tag!r} in {text!r} is not the name of an image in a layout, such as localhost/wine:1.0")
        layout = f"{transport}:{Path(path).absolute()}"
        return cls(host=LOCAL_STORAGE, path="layout", tag=tag or None, layout=layout)

    @property
    def repository(self) -> str:
        """The host and path: `host/path`."""
        return self.layout or f"{self.host}/{self.path}"

    @property
    def tagged(self) -> str:
        """The full name with a tag, `host/path:tag`, as in container storages."""
        return f"{self.repository}:{self.tag or 'latest'}"

    @property
    def is_loopback(self) -> bool:
        """True if the registry runs on this machine, so that plain HTTP is safe."""
        host = self.host if self.host.endswith("]") else self.host.rsplit(":", 1)[0]
        return host in LOOPBACK_HOSTS

    @property
    def in_local_storage(self) -> bool:
        """True if the image is in a container storage of this machine, not in a registry or a layout."""
        return self.host == LOCAL_STORAGE and not self.layout

    def with_digest(self, digest: str) -> str:
        """Return `host/path@sha256:…`."""
        return f"{self.repository}@{digest}"

    def __str__(self) -> str:
        """Return the full text, host included."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


Transport = Literal["docker", "oci", "oci-archive", "docker-archive"]


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The destination of an image: a registry, or a file or folder of this machine.

    Attributes:
        reference: The image's name; for a file or folder it is written into the layout's index.
        transport: `docker` (a registry), `oci` (an OCI layout folder), `oci-archive` (the same, tarred) or
            `docker-archive` (what `docker load` reads).
        path: The folder or file of the local transports; None for `docker`.
    """

    reference: Reference
    transport: Transport = "docker"
    path: Path | None = None

    @classmethod
    def parse(cls, text: str, reference: Reference) -> Destination:
        """Parse `--output`: `docker://REFERENCE`, `oci:DIR`, `oci-archive:FILE` or `docker-archive:FILE`.

        Raises:
            ValueError: The transport is unknown or its path is empty.
        """
        transport, colon, rest = text.partition(":")
        if transport == "docker" and rest.startswith("//"):
            return cls(reference=Reference.parse(rest[2:]))
        if colon and transport in (*_LAYOUTS, "docker-archive") and rest:
            return cls(reference=reference, transport=transport, path=Path(rest).absolute())  # type: ignore[arg-type]
        raise ValueError(
            f"{text!r} is not an output; write docker://HOST/PATH:TAG, oci:DIR, oci-archive:FILE or docker-archive:FILE"
        )

    def __str__(self) -> str:
        """Return the destination as `--output` takes it."""
        return f"docker://{self.reference}" if self.transport == "docker" else f"{self.transport}:{self.path}"
