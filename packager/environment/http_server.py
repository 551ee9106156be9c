"""The HTTP server of a REST image: chosen by the image's Python, and fetched for it.

granian is compiled and has a wheel for every Python and platform, so this installation's copy can't go into images; the
same holds for orjson, which parses and writes its JSON. `server.txt` pins their versions and the digests of their
wheels, so every index gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from packager.environment import ImageTarget
from packager.environment.cache.local import check_cache
from packager.environment.disk import full_disk
from packager.environment.requirements import Requirements
from packager.environment.uv import Uv
from packager.errors import ChannelError, DependenciesError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from packager.logs.progress import Reporter
    from packager.settings import Settings
    from packager.system.process import Runner

_OLDEST, _NEWEST = (3, 10), (3, 14)  # the CPython versions that this granian has wheels for
_GLIBC = "2.17"  # required by its wheels; every image satisfies it
_COMPILED_PARTS = ("granian/_granian*.so", "orjson/orjson*.so")  # the other files are not used


@dataclass(frozen=True, kw_only=True)
class HttpServer:
    """The HTTP server of an image.

    Attributes:
        name: `granian` (in gunicorn's workers), or `gunicorn` alone.
        version: The version of that package.
        vendor: A folder with content for the runtime's vendor folder, or None.
    """

    name: Literal["granian", "gunicorn"]
    version: str
    vendor: Path | None = None

    def __str__(self) -> str:
        """Return the text for the log and the label."""
        return f"{self.name} {self.version}"


def choose_server(wanted: Literal["auto", "granian", "gunicorn"], python: str) -> Literal["granian", "gunicorn"]:
    """Choose by the setting and the image's Python (`3.11`; empty if unknown before the build).

    Raises:
        DependenciesError: granian is configured, but doesn't support this Python.
    """
    known = bool(python) and _OLDEST <= tuple(int(part) for part in python.split(".")[:2]) <= _NEWEST
    if wanted == "granian" and not known:
        oldest, newest = (".".join(map(str, version)) for version in (_OLDEST, _NEWEST))
        raise DependenciesError(
            f"granian runs on Python {oldest} to {newest}; the image has {python or 'an unknown version'}",
            hint="set PACKAGER_SERVER=auto, or require another Python in the conda file",
        )
    return "granian" if known and wanted != "gunicorn" else "gunicorn"


def fetch_granian(  # noqa: PLR0913  (a stage's inputs, as for the environment)
    python: str,
    *,
    workspace: Path,
    settings: Settings,
    run: Runner,
    reporter: Reporter,
    environ: Mapping[str, str],
) -> HttpServer:
    """Fetch granian for the image's Python into the cache; later runs need no index.

    Raises:
        ChannelError: The index is unreachable.
        InstallError: The index has no wheel for this Python, or one with another digest.
        UsageError: The cache folder is not writable.
        DiskFullError: No space is left.
    """
    lines = (files("packager.environment") / "server.txt").read_text(encoding="utf-8")
    pins = [word for word in lines.split() if "==" in word]
    version = pins[0].partition("==")[2]
    cached = settings.cache_dir / "server" / "-".join([*pins, python, settings.platform]).replace("==", "-")
    if not _is_complete(cached):
        with full_disk("fetching the server"), reporter.stage(f"fetching {' and '.join(pins)} for Python {python}"):
            check_cache(settings, "uv", "server")
            staging = workspace / "server"
            target = ImageTarget(platform=settings.platform, glibc=_GLIBC, python=python)
            uv = Uv(
                run=run,
                settings=settings,
                target=target,
                workspace=workspace.resolve(),
                folder=workspace,
                file="server.txt",
                environ=environ,
            )
            where = ["--target", str(staging), "--python", sys.executable, "--python-version", python]
            asked = Requirements(
                lines=tuple(lines.replace("\\\n", " ").splitlines()), switches=frozenset({"--require-hashes"})
            )
            try:
                uv.install(asked, *where, "--only-binary", ":all:", "--no-deps")
            except ChannelError as error:
                raise ChannelError(
                    f"cannot fetch the image's HTTP server: {error}",
                    hint=f"{error.hint}; or set PACKAGER_SERVER=gunicorn, which is slower and needs no index",
                ) from error
            _save(staging, cached)
    return HttpServer(name="granian", version=version, vendor=cached)


def _save(installed: Path, cached: Path) -> None:
    """Copy the compiled parts and their licences into the cache; safe with concurrent runs."""
    part = cached.with_name(f"{cached.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for pattern in (*_COMPILED_PARTS, "*.dist-info/licenses/*"):
            for path in sorted(installed.glob(pattern)):
                inside = path.relative_to(installed)
                target = part / inside.parts[0].partition("-")[0] / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        part.rename(cached)
    except OSError:
        if not _is_complete(cached):  # otherwise another run was faster
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_complete(cached: Path) -> bool:
    return all(any(cached.glob(pattern)) for pattern in _COMPILED_PARTS)
