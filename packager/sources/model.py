"""The workspace of a run, and the opened model."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import ArtifactError, DiskFullError, UsageError, is_disk_full
from packager.sources.artifact import Artifact, ArtifactLimits, open_artifact
from packager.system.signals import private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from packager.logs.progress import Reporter
    from packager.settings import Settings
    from packager.sources.stores.location import RemoteModel


@contextmanager
def opened_model(  # noqa: PLR0913  (a stage's inputs)
    model: Path | RemoteModel,
    work: Path,
    *,
    settings: Settings,
    environ: Mapping[str, str],
    reporter: Reporter,
    lazy: bool = True,
) -> Iterator[Artifact]:
    """Download a remote model, and open it for the block; with `lazy`, large files stay in its zip.

    Raises:
        ArtifactError, ManifestError, DependenciesError: The model is missing or invalid.
        StorageError, RequestError: The download failed.
        DiskFullError: The disk is full.
    """
    with ExitStack() as stack:
        with reporter.stage(f"Reading the model {model}"):
            path = (
                model
                if isinstance(model, Path)
                else stack.enter_context(_fetched(model, work, settings=settings, environ=environ, reporter=reporter))
            )
            limits = ArtifactLimits.from_settings(settings)
            artifact = open_artifact(path, work, limits=limits, reporter=reporter, lazy=lazy)
        if not artifact.packed:
            stack.close()  # the downloaded zip is no longer needed
        yield artifact


@contextmanager
def _fetched(
    model: RemoteModel, work: Path, *, settings: Settings, environ: Mapping[str, str], reporter: Reporter
) -> Iterator[Path]:
    from packager.sources.stores.download import fetched  # noqa: PLC0415  (slow to import)

    with fetched(model, work, settings=settings, environ=environ, reporter=reporter) as path, _named(model, path):
        yield path


@contextmanager
def _named(model: RemoteModel, path: Path) -> Iterator[None]:
    """Replace the downloaded file's name by the user's model in errors of the archive."""
    try:
        yield
    except ArtifactError as error:
        message = error.message
        for name in (str(path.absolute()), str(path)):
            message = message.replace(name, str(model))
        if message == error.message:
            raise
        what = "the server may have answered with a login or error page" if model.is_web else "look at the object there"
        raise ArtifactError(message, hint=f"check that it is the complete zip of a trained model: {what}") from error


@contextmanager
def workspace(settings: Settings) -> Iterator[Path]:
    """Create a private temporary folder for the block.

    Raises:
        DiskFullError: The disk is full.
        UsageError: Its parent folder can't be used.
    """
    below = settings.work_dir or Path(tempfile.gettempdir())
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(private_folder("packager-", below))
        except OSError as error:
            if is_disk_full(error):
                raise DiskFullError(
                    f"no space left in {below}", hint="set PACKAGER_WORK_DIR to a folder on a larger disk"
                ) from error
            raise UsageError(
                f"cannot create a temporary folder in {below}: {error.strerror}",
                hint="set PACKAGER_WORK_DIR to a writable folder",
            ) from error
        yield folder
