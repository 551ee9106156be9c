"""The server that a REST image runs on: chosen by the image's Python, and fetched for it.

granian is compiled, so its wheel is another for every Python and platform, and can't be this installation's own; the
same holds for orjson, which reads and writes its JSON. Their versions and the digests of their wheels stand in
`server.txt`, once: whatever index answers, the bytes are the same.
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

_OLDEST, _NEWEST = (3, 10), (3, 14)  # the CPythons that this granian has wheels for
_GLIBC = "2.17"  # what its wheels ask for, which every image satisfies
_COMPILED_PARTS = ("granian/_granian*.so", "orjson/orjson*.so")  # the compiled parts alone: the rest of them isn't used


@dataclass(frozen=True, kw_only=True)
class HttpServer:
    """What answers HTTP in the image.

    Attributes:
        name: granian, which works inside gunicorn's workers, or gunicorn alone.
        version: Of that.
        vendor: A folder whose content goes beside the runtime's gunicorn, or None.
    """

    name: Literal["granian", "gunicorn"]
    version: str
    vendor: Path | None = None

    def __str__(self) -> str:
        """Return what the log and the label say."""
        return f"{self.name} {self.version}"


def choose_server(wanted: Literal["auto", "granian", "gunicorn"], python: str) -> Literal["granian", "gunicorn"]:
    """Choose by the setting and the image's Python (`3.11`, or empty where only the image knows).

    Raises:
        DependenciesError: granian is wanted, and there is none for this Python.
    """
    known = bool(python) and _OLDEST <= tuple(int(part) for part in python.split(".")[:2]) <= _NEWEST
    if wanted == "granian" and not known:
        oldest, newest = (".".join(map(str, version)) for version in (_OLDEST, _NEWEST))
        raise DependenciesError(
            f"granian runs on Python {oldest} to {newest}; the image's is {python or 'not known before the build'}",
            hint="set PACKAGER_SERVER=auto, or ask for another Python in the conda file",
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
    """Fetch granian for the image's Python, once: later runs find it in the cache and need no index.

    Raises:
        ChannelError: The index can't be reached; InstallError: it has other bytes, or none for this Python.
        UsageError: The cache folder can't be written.
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
                    f"the image's server can't be fetched: {error}",
                    hint=f"{error.hint}; or set PACKAGER_SERVER=gunicorn, which is slower and needs no index",
                ) from error
            _save(staging, cached)
    return HttpServer(name="granian", version=version, vendor=cached)


def _save(installed: Path, cached: Path) -> None:
    """Put the compiled parts and their licences into the cache; two runs at once may do so."""
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
        if not _is_complete(cached):  # else the other run was faster
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_complete(cached: Path) -> bool:
    return all(any(cached.glob(pattern)) for pattern in _COMPILED_PARTS)
