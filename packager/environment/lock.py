"""The exact packages of an environment as text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path, PurePosixPath

    from packager.environment.conda_solver import LinkedEnvironment


@dataclass(frozen=True, kw_only=True, order=True)
class PipPackage:
    """A package installed by uv; `digest` covers its RECORD, and so each of its files."""

    name: str
    version: str
    digest: str

    @classmethod
    def from_folder(cls, folder: Path) -> PipPackage | None:
        """Read a `.dist-info` folder; return None if it is incomplete."""
        metadata, record = folder / "METADATA", folder / "RECORD"
        if not (metadata.is_file() and record.is_file()):
            return None
        headers = HeaderParser().parsestr(metadata.read_text(encoding="utf-8", errors="replace"))
        digest = hashlib.sha256("\n".join(sorted(record.read_text(encoding="utf-8").splitlines())).encode()).hexdigest()
        return cls(name=str(headers["Name"]), version=str(headers["Version"]), digest=digest)


def pip_packages(site_packages: Path) -> tuple[PipPackage, ...]:
    """Return the packages that uv installed, sorted by name."""
    folders = [path for path in site_packages.glob("*.dist-info") if _is_uvs(path)]
    return tuple(sorted(package for path in folders if (package := PipPackage.from_folder(path))))


def _is_uvs(folder: Path) -> bool:
    installer = folder / "INSTALLER"
    return installer.is_file() and installer.read_text(encoding="utf-8").strip() == "uv"


def lock_text(platform: str, linked: LinkedEnvironment | None, packages: Iterable[PipPackage]) -> str:
    """Return the lock in conda's explicit format, `URL#sha256`, with the pip packages as comments.

    `conda create --file` and `micromamba create --file` read it. Channels have the URLs of the model's file, without
    credentials and mirrors. A channel in a folder appears as `file:///` and the folder's name: the same environment
    must have the same lock on every machine.
    """
    lines = [
        "# The exact packages of this environment, as conda's explicit form.",
        f"# platform: {platform}",
        "@EXPLICIT",
    ]
    if linked:
        lines += [_explicit(linked.public_url(record.url), record.sha256 or record.md5) for record in linked.records]
    lines += [f"# pip: {package.name}=={package.version} record-sha256:{package.digest}" for package in packages]
    return "".join(f"{line}\n" for line in lines)


def _explicit(url: str, digest: bytes | None) -> str:
    return f"{url}#{digest.hex()}" if digest else url


def lock_digest(lock: str, platform: str, prefix: PurePosixPath) -> str:
    """Return the digest of everything that determines an environment's bytes: `sha256:…`."""
    text = "\0".join((lock, platform, str(prefix)))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
