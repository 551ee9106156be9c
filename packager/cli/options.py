"""The options that several commands share, with their help."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from packager.engines.selection import EngineName
from packager.errors import exit_codes
from packager.logs.console import LogFormat
from packager.models.integrations import INTEGRATION_TYPES
from packager.result import TERMINATION_LOG

# The \b keeps the help's formatter from joining the lines.
EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in exit_codes().items())


class JobEngineName(str, Enum):
    """The engines that packaging Jobs can use."""

    auto = "auto"
    kaniko = "kaniko"
    oci = "oci"


class TextFormat(str, Enum):
    """Output format for structured text."""

    yaml = "yaml"
    json = "json"


Model = Annotated[
    str,
    typer.Argument(
        help="The model: a GPPI zip, its unpacked folder, or a zip at s3://bucket/key, gs://bucket/key, "
        "az://container/key or https://host/path. Append #sha256=DIGEST to a URL to verify it."
    ),
]
RunWords = Annotated[
    list[str],
    typer.Argument(
        metavar="[MODEL] RESOURCE_FILE",
        help="MODEL: a GPPI zip, its unpacked folder, or a zip at s3://bucket/key, gs://bucket/key, "
        "az://container/key or https://host/path (append #sha256=DIGEST to verify it). Default: the model named by "
        "modelHolder and trainingZipName in RESOURCE_FILE. RESOURCE_FILE: the packaging manifest (mp.json).",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every command and its output.")]
Format = Annotated[
    LogFormat,
    typer.Option("--log-format", help="Log format. auto: progress bars on a terminal, plain lines elsewhere."),
]
EngineOption = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        help="Build engine. auto: oci unless the build has a RUN step; then kaniko in a cluster and buildah elsewhere.",
    ),
]
PlatformOption = Annotated[
    str | None,
    typer.Option("--platform", help="linux/amd64 or linux/arm64. Default: PACKAGER_PLATFORM, else this machine's."),
]
Refresh = Annotated[bool, typer.Option("--refresh-environment", help="Ignore cached environments and solve again.")]
Check = Annotated[
    bool | None,
    typer.Option(
        "--check/--no-check",
        help="Load the model and predict its example before the push. Default: the packaging's argument `check`. "
        "--check: fail where it cannot run. --no-check: skip it.",
    ),
]
ResultsDir = Annotated[
    Path | None, typer.Option("--results-dir", help="Folder for one file per result (Tekton, Argo).")
]
TerminationLog = Annotated[
    Path | None,
    typer.Option(
        "--termination-log", help=f"File for results or the error as JSON. Default: {TERMINATION_LOG} if it exists."
    ),
]
Packager = Annotated[
    str | None,
    typer.Option(
        "--packager", help=f"{' or '.join(INTEGRATION_TYPES)}. Default: from the packaging, else docker-rest."
    ),
]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file", "-f", help="File or folder with ModelPackaging, PackagingIntegration and Connection documents."
    ),
]
PackagingId = Annotated[str | None, typer.Option("--id", help="ID of the packaging, if the files hold several.")]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--argument", "-a", metavar="NAME=VALUE", help="Set a packager argument. Repeatable."),
]


JobEngineOption = Annotated[
    JobEngineName | None,
    typer.Option("--engine", help="auto, kaniko or oci. Default: from the Job settings, else auto."),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="YAML file with Job settings. Default: the ConfigMap packager-jobs."),
]
