"""Commands that only print: `inspect`, `integrations`, `settings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from packager import __version__
from packager.cli.options import Model, TextFormat, TextOutput, Verbose

if TYPE_CHECKING:
    from packager.sources.artifact import Artifact

DEFAULT_JOB_IMAGE = f"packager:{__version__}"


def inspect(ctx: typer.Context, model: Model, output: TextOutput = TextFormat.yaml, verbose: Verbose = False) -> None:
    """Validate MODEL and show its manifest, dependencies and size."""
    import os

    from packager.cli.printing import print_documents
    from packager.cli.session import open_session
    from packager.logs.progress import LogFormat
    from packager.sources.model import opened_model

    with open_session(LogFormat.auto, verbose=verbose, working=ctx) as session:
        settings, work, found = session.settings, session.work, session.locate(model)
        with opened_model(
            found, work, settings=settings, environ=os.environ, reporter=session.reporter, lazy=False
        ) as artifact:
            print_documents([_describe(artifact)], output)


def _describe(artifact: Artifact) -> dict[str, Any]:
    binaries = artifact.manifest.binaries
    dependencies = artifact.root / str(binaries.conda_path or binaries.requirements_path)
    sizes = [path.lstat().st_size for path in artifact.root.rglob("*") if not path.is_dir()]
    return {
        **artifact.manifest.model_dump(by_alias=True, mode="json", exclude_none=True),
        "created": artifact.created.isoformat(),
        "files": len(sizes),
        "bytes": sum(sizes),
        "dependenciesFile": dependencies.read_text(encoding="utf-8", errors="replace"),
    }


def integrations(
    output: TextOutput = TextFormat.yaml,
    default_image: Annotated[str, typer.Option(help="Image of the packaging Jobs.")] = DEFAULT_JOB_IMAGE,
) -> None:
    """Print the PackagingIntegration documents of docker-rest and docker-cli."""
    from packager.cli.printing import print_documents
    from packager.models.integrations import INTEGRATION_TYPES
    from packager.models.integrations.schema import integration_document

    print_documents(
        [integration_document(application, default_image) for application in INTEGRATION_TYPES.values()], output
    )


def settings() -> None:
    """List every setting: environment variable, default and meaning."""
    from packager.settings import PREFIX, Settings, describe_settings

    typer.echo(describe_settings(Settings, Settings.GROUPS, PREFIX))
