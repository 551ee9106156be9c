"""Commands that only print: inspect, integrations, settings."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from pydantic import ByteSize

from packager import __version__
from packager.cli.options import Model, TextFormat, Verbose
from packager.cli.session import open_session
from packager.logs.console import LogFormat
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document
from packager.settings import PREFIX, Settings
from packager.sources.model import opened_model, workspace

if TYPE_CHECKING:
    from packager.sources.artifact import Artifact

DEFAULT_JOB_IMAGE = f"packager:{__version__}"


def inspect(
    model: Model,
    output: Annotated[TextFormat, typer.Option("--output", "-o", help="yaml or json.")] = TextFormat.yaml,
    verbose: Verbose = False,
) -> None:
    """Validate MODEL and show its manifest, dependencies and size."""
    with open_session(LogFormat.auto, verbose=verbose) as session, workspace(session.settings) as work:
        settings, found = session.settings, session.locate(model)
        with opened_model(
            found, work, settings=settings, environ=os.environ, reporter=session.reporter, lazy=False
        ) as artifact:
            _print(_describe(artifact), output)


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
    output: Annotated[TextFormat, typer.Option("--output", "-o", help="yaml or json.")] = TextFormat.yaml,
    default_image: Annotated[str, typer.Option(help="Image of the packaging Jobs.")] = DEFAULT_JOB_IMAGE,
) -> None:
    """Print the PackagingIntegration documents of docker-rest and docker-cli."""
    documents = [
        integration_document(integration_type, default_image) for integration_type in INTEGRATION_TYPES.values()
    ]
    if output is TextFormat.json:
        _print(documents, output)
    else:
        typer.echo(yaml.safe_dump_all(documents, sort_keys=False, width=120), nl=False)


def settings() -> None:
    """List every setting: environment variable, default and meaning."""
    for name, field in Settings.model_fields.items():
        if name in Settings.GROUPS:
            typer.echo(f"{'' if name == next(iter(Settings.GROUPS)) else chr(10)}{Settings.GROUPS[name]}\n")
        default = (
            "" if field.default_factory or field.default in (None, ()) else f" Default: {_readable(field.default)}."
        )
        typer.echo(f"  {PREFIX}{name.upper()}\n      {field.description}{default}")


def _readable(value: object) -> str:
    """Return a default as a user would write it."""
    if isinstance(value, ByteSize):
        return value.human_readable(separator=" ").replace(".0 ", " ")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _print(value: object, output: TextFormat) -> None:
    if output is TextFormat.json:
        typer.echo(json.dumps(value, indent=2))
    else:
        typer.echo(yaml.dump(value, Dumper=_BlockDumper, sort_keys=False, width=120), nl=False)


class _BlockDumper(yaml.SafeDumper):
    """Writes multi-line text as a block scalar."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_BlockDumper.add_representer(str, _represent_text)
