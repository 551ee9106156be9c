"""The runtime layer: the serving runtime and its HTTP server, from the files of this installation.

gunicorn is the packager's own pinned copy; granian, compiled for the image's Python, is fetched before planning
(`packager.environment.http_server`). A release of the packager pins one version of each.
"""

from __future__ import annotations

from importlib import metadata
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from packager.errors import DependenciesError, PackagerError
from packager.image.plan import Content

if TYPE_CHECKING:
    from collections.abc import Iterator

VENDORED = ("gunicorn",)
OLDEST_PYTHON = "3.8"  # the oldest version that the runtime supports and is tested on
_LEFT_OUT = {"__pycache__", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def check_python(version: str) -> None:
    """Reject a base image whose Python is too old for the runtime.

    Raises:
        DependenciesError: The Python is too old.
    """
    if _numbers(version) < _numbers(OLDEST_PYTHON):
        raise DependenciesError(
            f"the base image has Python {version}, but the serving runtime needs {OLDEST_PYTHON} or later",
            hint=f"use a base image with Python {OLDEST_PYTHON} or later, or a model with `dependencies: conda`",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def gunicorn_version() -> str:
    """Return the version of gunicorn for images.

    Raises:
        PackagerError: This installation is damaged: gunicorn is missing.
    """
    return _distribution("gunicorn").version


def runtime_folder() -> Path:
    """Return the folder with the runtime's files in this installation."""
    return Path(str(files("packager") / "runtime"))


def runtime_contents(destination: PurePosixPath, vendor: Path | None = None) -> tuple[Content, ...]:
    """Return the sorted files of the runtime layer for a folder of the image; those in `vendor` go beside gunicorn.

    Raises:
        PackagerError: This installation is damaged: a part of the runtime is missing.
    """
    contents = [*_folder(runtime_folder(), destination), *_vendored(destination / "vendor")]
    if vendor is not None:
        contents += _folder(vendor, destination / "vendor")
    return tuple(sorted(contents, key=lambda content: content.destination))


def _folder(folder: Path, destination: PurePosixPath) -> Iterator[Content]:
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if path.is_file() and not _LEFT_OUT.intersection(inside.parts):
            yield Content(source=path, destination=destination / inside.as_posix(), is_file=True)


def _vendored(destination: PurePosixPath) -> Iterator[Content]:
    for name in VENDORED:
        distribution = _distribution(name)
        for path in distribution.files or ():
            if ".." not in path.parts and not _LEFT_OUT.intersection(path.parts):
                source = Path(str(distribution.locate_file(path)))
                yield Content(source=source, destination=destination / path.as_posix(), is_file=True)


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise PackagerError(f"{name} is not installed beside the packager", hint="reinstall the packager") from error
