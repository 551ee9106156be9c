"""The options that several commands share, with their help."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from packager.applications import APPLICATIONS
from packager.console import LogFormat
from packager.engines.choice import EngineName
from packager.errors import exit_codes
from packager.result import TERMINATION_LOG

# The \b keeps the help's formatter from joining the lines.
EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in exit_codes().items())


class JobEngineName(str, Enum):
    """The engines that packaging Jobs can use."""

    auto = "auto"
    kaniko = "kaniko"
    oci = "oci"


class TextFormat(str, Enum):
    """How structured text is printed."""

    yaml = "yaml"
    json = "json"


Model = Annotated[
    str,
    typer.Argument(
        help="The model archive: a GPPI zip, the same tree unpacked, or a zip at s3://bucket/key, gs://bucket/key, "
        "az://container/key or https://host/path; #sha256=DIGEST may follow a location."
    ),
]
RunWords = Annotated[
    list[str],
    typer.Argument(
        metavar="[MODEL] RESOURCE_FILE",
        help="MODEL: a GPPI zip, the same tree unpacked, or a zip at s3://bucket/key, gs://bucket/key, "
        "az://container/key or https://host/path (#sha256=DIGEST may follow). Without it, the model is taken from the "
        "manifest's modelHolder and trainingZipName. RESOURCE_FILE: the packaging manifest of the platform (mp.json).",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every command and its output.")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="auto: bars at a terminal, plain lines elsewhere.")]
EngineOption = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        help="What makes the image; auto: oci where no command must run during the build, else kaniko in a cluster and "
        "buildah elsewhere.",
    ),
]
PlatformOption = Annotated[
    str | None,
    typer.Option("--platform", help="linux/amd64 or linux/arm64; default: PACKAGER_PLATFORM, else this machine's."),
]
Refresh = Annotated[
    bool, typer.Option("--refresh-environment", help="Solve the dependencies anew, whatever is kept of earlier runs.")
]
Check = Annotated[
    bool | None,
    typer.Option(
        "--check/--no-check",
        help="Load the model and predict its example before anything is pushed. Default: where this machine can run "
        "the image's Python, a result that says why not elsewhere; --check makes that an error. They come before the "
        "packaging's argument `check`.",
    ),
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
    JobEngineName | None,
    typer.Option("--engine", help="auto, kaniko or oci; default: the cluster's settings, else auto."),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="A YAML file with the settings of Jobs; default: the ConfigMap packager-jobs."),
]
