"""The model of a run, fetched where that is needed, and opened."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import ArtifactError
from packager.sources.artifact import Artifact, ArtifactLimits, open_artifact

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
    """Fetch a model if it's not on this machine, and open it for the block; with `lazy`, large files stay in its zip.

    Raises:
        ArtifactError, ManifestError, DependenciesError: It is missing or wrong.
        StorageError, RequestError: It can't be fetched.
        DiskFullError: There is no room for it.
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
            stack.close()  # nothing is read from the fetched zip any more
        yield artifact


@contextmanager
def _fetched(
    model: RemoteModel, work: Path, *, settings: Settings, environ: Mapping[str, str], reporter: Reporter
) -> Iterator[Path]:
    from packager.sources.stores.download import fetched  # noqa: PLC0415  (the stores' libraries take long to import)

    with fetched(model, work, settings=settings, environ=environ, reporter=reporter) as path, _named(model, path):
        yield path


@contextmanager
def _named(model: RemoteModel, path: Path) -> Iterator[None]:
    """Let errors in the archive name the model that the user gave, not the file that it was fetched into."""
    try:
        yield
    except ArtifactError as error:
        message = error.message
        for name in (str(path.absolute()), str(path)):
            message = message.replace(name, str(model))
        if message == error.message:
            raise
        what = "the server may have answered with a login or error page" if model.is_web else "look at the object there"
        raise ArtifactError(
            message, hint=f"check that the zip of a trained model is there, and whole: {what}"
        ) from error
