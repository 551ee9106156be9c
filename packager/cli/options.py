"""The options that several commands share, with their help."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from packager.applications import APPLICATIONS
from packager.console import LogFormat
from packager.errors import exit_codes
from packager.result import TERMINATION_LOG

# The \b keeps the help's formatter from joining the lines.
EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in exit_codes().items())


class EngineName(str, Enum):
    """The engines that can be asked for."""

    buildah = "buildah"
    kaniko = "kaniko"


class JobEngineName(str, Enum):
    """The engines that packaging Jobs can use."""

    kaniko = "kaniko"
    oci = "oci"


class TextFormat(str, Enum):
    """How structured text is printed."""

    yaml = "yaml"
    json = "json"


Model = Annotated[Path, typer.Argument(help="The model archive: a GPPI zip, or the same tree unpacked.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every command and its output.")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="auto: bars at a terminal, plain lines elsewhere.")]
EngineOption = Annotated[
    EngineName | None,
    typer.Option("--engine", help="What builds the image; default: kaniko in the Job image, buildah elsewhere."),
]
ResultsDir = Annotated[
    Path | None, typer.Option("--results-dir", help="A folder for one file a result (Tekton, Argo).")
]
TerminationLog = Annotated[
    Path | None,
    typer.Option("--termination-log", help=f"Default: {TERMINATION_LOG} where it exists. Also written on failure."),
]
Packager = Annotated[
    str | None,
    typer.Option("--packager", help=f"{' or '.join(APPLICATIONS)}; default: the packaging's, else docker-rest."),
]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file", "-f", help="A file or folder of ModelPackaging, PackagingIntegration and Connection documents."
    ),
]
PackagingId = Annotated[str | None, typer.Option("--id", help="Which of the packagings in the files.")]
Arguments = Annotated[
    list[str] | None, typer.Option("--argument", "-a", metavar="NAME=VALUE", help="An argument of the packager.")
]


JobEngineOption = Annotated[
    JobEngineName | None, typer.Option("--engine", help="kaniko or oci; default: the cluster's settings, else kaniko.")
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="A YAML file with the settings of Jobs; default: the ConfigMap packager-jobs."),
]
ResourceFile = Annotated[Path, typer.Argument(help="The packaging manifest of the platform (mp.json).")]
