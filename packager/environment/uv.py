"""Installation of pip requirements with uv."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uv import find_uv_bin

from packager.environment.channels import without_credentials
from packager.environment.disk import DISK_HINT
from packager.errors import ChannelError, DependenciesError, DiskFullError, InstallError, PackagerError, SolveError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from packager.environment import ImageTarget
    from packager.environment.requirements import Requirements
    from packager.settings import Settings
    from packager.system.process import Runner

_log = logging.getLogger(__name__)

_PASSED_ON = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NEWEST_MANYLINUX, _OLDEST_MANYLINUX = 40, 28  # minor versions that uv has platform names for, besides 17
_SHOWN_LINES = 40


@dataclass(frozen=True, kw_only=True)
class Uv:
    """A configured uv.

    Attributes:
        workspace: A private folder for input and temporary files.
        folder: The working directory.
        file: The name of the user's file, for messages.
        environ: The source of certificates, proxies and PATH; uv gets nothing else of it.
    """

    run: Runner
    settings: Settings
    target: ImageTarget
    workspace: Path
    folder: Path
    file: str
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def install(self, requirements: Requirements, *options: str) -> None:
        """Install requirements to the target of `options`.

        The indexes with their credentials and the requirements are in private files, so they appear neither in the
        process list nor in the environment of builds that uv starts. The best version of all indexes is installed, as
        pip does.

        Raises:
            SolveError: The requirements conflict, or a package doesn't exist.
            ChannelError: An index is unreachable or denies access.
            InstallError: A package can't be fetched or built.
            DependenciesError: A line is invalid.
            DiskFullError: No space is left.
        """
        private = self.workspace / "uv"
        for folder in (private, private / "home", private / "tmp"):
            folder.mkdir(mode=0o700)
        wanted = _write(private / "requirements.txt", [*requirements.formats, *requirements.lines])
        constraints = _write(private / "constraints.txt", requirements.constraints)
        config = _write(private / "uv.toml", self.config(requirements))
        arguments = [find_uv_bin(), "pip", "install", "--config-file", str(config)]  # uv reads no other
        arguments += ["--no-progress", "--link-mode", "copy", *options]
        arguments += ["--python-platform", python_platform(self.target), "--requirement", str(wanted)]
        arguments += ["--constraint", str(constraints)] if requirements.constraints else []
        arguments += ["--no-index"] if "--no-index" in requirements.switches else []
        arguments += ["--prerelease", "allow"] if "--pre" in requirements.switches else []
        arguments += ["--require-hashes"] if "--require-hashes" in requirements.switches else []
        try:
            done = self.run(
                arguments,
                env=self.environment(requirements.trusted_hosts, private),
                cwd=self.folder,
                on_line=_log.debug,
            )
        finally:
            shutil.rmtree(private, ignore_errors=True)
        if done.returncode:
            raise _error(self.in_users_words(done.output))

    def in_users_words(self, output: str) -> str:
        """Replace our private files' names by the user's file, and remove the workspace's path."""
        for written in ("requirements.txt", "constraints.txt"):  # the position refers to our file
            ours = re.escape(str(self.workspace / "uv" / written))
            output = re.sub(
                rf"{ours}(`? at position \d+)?", lambda found: self.file + ("`" if found[1] else ""), output
            )
        return output.replace(f"{self.workspace}/", "")

    def config(self, requirements: Requirements) -> list[str]:
        """Return the lines of uv's configuration file: the indexes with their credentials.

        Source: docs.astral.sh/uv/reference/settings. Earlier indexes have priority, the default one comes last.
        """
        settings = self.settings
        index = requirements.index_url or (settings.pip_index_url.get_secret_value() if settings.pip_index_url else "")
        extra = [*requirements.extra_index_urls, *(url.get_secret_value() for url in settings.pip_extra_index_urls)]
        links = [
            place if "://" in place else str(self.folder / place)
            for place in (*requirements.find_links, *(link.get_secret_value() for link in settings.pip_find_links))
        ]
        return [
            f"find-links = {_toml(links)}",
            *(f"[[index]]\nurl = {_toml(url)}" for url in extra),
            *([f"[[index]]\nurl = {_toml(index)}\ndefault = true"] if index else []),
        ]

    def environment(self, trusted_hosts: tuple[str, ...], private: Path) -> dict[str, str]:
        """Return the whole environment of uv and the builds it starts."""
        settings = self.settings
        passed_on = {name: value for name, value in self.environ.items() if name.upper() in _PASSED_ON and value}
        trusted = {"UV_INSECURE_HOST": " ".join(trusted_hosts)} if trusted_hosts else {}
        return {
            **passed_on,
            **trusted,
            "PATH": self.environ.get("PATH") or _PATH,
            "HOME": str(private / "home"),
            "TMPDIR": str(private / "tmp"),
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SOURCE_DATE_EPOCH": str(settings.source_date_epoch or 315_532_800),  # 1980, the earliest time in a zip
            "GIT_TERMINAL_PROMPT": "0",
            "UV_CACHE_DIR": str(settings.cache_dir / "uv"),
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_PYTHON_DOWNLOADS": "never",
        }


def python_platform(target: ImageTarget) -> str:
    """Return uv's name of the image's platform: the newest manylinux that the image's glibc satisfies."""
    architecture = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}[target.platform]
    minor = min(int(target.glibc.split(".")[1]), _NEWEST_MANYLINUX)
    if minor < _OLDEST_MANYLINUX:
        minor = 17
    elif minor in (29, 30):
        minor = 28
    return f"{architecture}-manylinux_2_{minor}"


def _write(path: Path, lines: list[str] | tuple[str, ...]) -> Path:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


def _toml(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)  # toml.io: JSON strings and arrays are valid TOML


def _error(output: str) -> PackagerError:
    text = without_credentials("\n".join(output.strip().splitlines()[-_SHOWN_LINES:]))
    if "No space left on device" in text or "os error 28" in text:
        return DiskFullError(f"no space left while installing the pip requirements:\n{text}", hint=DISK_HINT)
    if "Couldn't parse requirement" in text:
        return DependenciesError(
            f"a pip requirement is invalid:\n{text}",
            hint="correct the line; see dependency specifiers on packaging.python.org",
        )
    if any(words in text for words in ("usable wheels", "no wheels", "Building source distributions")):
        return InstallError(
            f"a pip requirement has no wheel for the image:\n{text}",
            hint="pip environments support only wheels; `dependencies: conda` can also build from source",
        )
    refused = ("401 Unauthorized", "403 Forbidden", "could not be queried")
    unreachable = ("Failed to fetch", "error sending request", "Could not connect", "dns error")
    if any(words in text for words in (*refused, *unreachable)):
        return ChannelError(
            f"a package index is unreachable or denies access:\n{text}",
            hint="PACKAGER_PIP_INDEX_URL replaces PyPI; credentials go into it as https://USER:PASSWORD@HOST/…",
        )
    if "No solution found" in text or "unsatisfiable" in text:
        return SolveError(f"cannot satisfy the pip requirements:\n{text}", hint="change the model's requirements")
    return InstallError(f"cannot install a pip requirement:\n{text}")
