"""The options of the commands with their help. It imports nothing that a command needs for its work.

Typer reads options from the parameters of a function only. `with_options` turns the fields of a dataclass into such
parameters, so that commands share groups of options.
"""

from __future__ import annotations

import inspect
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from packager.engines.selection import EngineName
from packager.errors import exit_codes
from packager.logs.progress import LogFormat

if TYPE_CHECKING:
    from collections.abc import Callable

# The \b keeps the help's formatter from joining the lines.
EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in exit_codes().items())
_MODELS = "a GPPI zip, its unpacked folder, or a zip at s3://bucket/key, gs://bucket/key, az://container/key or "
_MODELS += "https://host/path"


class JobEngineName(str, Enum):
    """The engines that packaging Jobs can use."""

    auto = "auto"
    kaniko = "kaniko"
    oci = "oci"


class TextFormat(str, Enum):
    """Output format for structured text."""

    yaml = "yaml"
    json = "json"


# Options of every kind of command
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every command and its output.")]
TextOutput = Annotated[TextFormat, typer.Option("--output", "-o", help="yaml or json.")]

# Models
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help=f"The model: {_MODELS}. Append #sha256=DIGEST to a URL to verify its digest."),
]
RunArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="[MODEL] RESOURCE_FILE",
        help=f"MODEL: {_MODELS} (append #sha256=DIGEST to verify its digest). Default: the model named by modelHolder "
        "and trainingZipName in RESOURCE_FILE. RESOURCE_FILE: the packaging manifest (mp.json).",
    ),
]

# Entities in a cluster
OutputFormat = Annotated[
    str, typer.Option("--output-format", "-o", help="yaml, json, table or jsonpath=EXPRESSION (of the list).")
]
IgnoreNotFound = Annotated[
    bool, typer.Option("--ignore-not-found/--not-ignore-not-found", help="Succeed if there is nothing to delete.")
]
IgnoreExists = Annotated[bool, typer.Option("--ignore-if-exists", help="Succeed if it already exists.")]
EntityFile = Annotated[Path | None, typer.Option("--file", "-f", help="File that holds the entity.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Default: from the context, or the pod's own.")
]


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Which cluster and namespace a command works in, and how much it logs."""

    kubeconfig: Annotated[
        Path | None,
        typer.Option("--kubeconfig", help="Default: KUBECONFIG, ~/.kube/config, else the pod's service account."),
    ] = None
    context: Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")] = None
    namespace: Namespace = None
    verbose: Verbose = False


@dataclass(frozen=True, kw_only=True)
class PackagingOptions:
    """Which packaging of which files runs in a cluster, and with which settings."""

    files: Annotated[
        list[Path],
        typer.Option(
            "--file",
            "-f",
            metavar="PATH",
            help="File or folder with the packaging, and optionally its connections. Repeatable.",
        ),
    ]
    packaging_id: Annotated[
        str | None,
        typer.Option(
            "--id", "--pack-id", help="Select a packaging by ID, or override the ID when the files hold only one."
        ),
    ] = None
    artifact_name: Annotated[
        str | None, typer.Option("--artifact-name", help="Override the model archive of the file.")
    ] = None
    engine: Annotated[
        JobEngineName | None,
        typer.Option("--engine", help="auto, kaniko or oci. Default: from the Job settings, else auto."),
    ] = None
    settings_file: Annotated[
        Path | None,
        typer.Option("--settings", help="YAML file with Job settings. Default: the ConfigMap packager-jobs."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """The documents and arguments of a packaging on this machine."""

    packager: Annotated[
        str | None,
        typer.Option("--packager", help="docker-rest or docker-cli. Default: from the packaging, else docker-rest."),
    ] = None
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="PATH",
            help="File or folder with ModelPackaging, PackagingIntegration and Connection documents. Repeatable.",
        ),
    ] = None
    packaging_id: Annotated[
        str | None, typer.Option("--id", help="ID of the packaging, if the files hold several.")
    ] = None
    arguments: Annotated[
        list[str] | None,
        typer.Option("--argument", "-a", metavar="NAME=VALUE", help="Set a packager argument. Repeatable."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What makes the image, and for which platform."""

    engine: Annotated[
        EngineName,
        typer.Option(
            "--engine",
            help="Build engine. auto: oci unless the build has a RUN step; then kaniko in a cluster and buildah "
            "elsewhere.",
        ),
    ] = EngineName.auto
    platform: Annotated[
        str | None,
        typer.Option("--platform", help="linux/amd64 or linux/arm64. Default: PACKAGER_PLATFORM, else this machine's."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class BuildOptions(EngineOptions):
    """How the image is made."""

    refresh_environment: Annotated[
        bool, typer.Option("--refresh-environment", help="Ignore cached environments and solve again.")
    ] = False
    check: Annotated[
        bool | None,
        typer.Option(
            "--check/--no-check",
            help="Load the model and predict its example before the push. Default: the packaging's argument `check`. "
            "--check: fail where it cannot run. --no-check: skip it.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """Where results are written besides standard output."""

    results_dir: Annotated[
        Path | None, typer.Option("--results-dir", help="Folder for one file per result (Tekton, Argo).")
    ] = None
    termination_log: Annotated[
        Path | None,
        typer.Option(
            "--termination-log",
            help="File for results or the error as JSON. Default: /dev/termination-log if it exists.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """How the log is written."""

    log_format: Annotated[
        LogFormat,
        typer.Option("--log-format", help="Log format. auto: progress bars on a terminal, plain lines elsewhere."),
    ] = LogFormat.auto
    verbose: Verbose = False


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function for Typer: each parameter that is a dataclass becomes one option per field."""
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for each in inspect.signature(function).parameters.values():
        hint = hints[each.name]
        parameter = each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint)
        if not is_dataclass(hint):
            parameters.append(parameter)
            continue
        groups[each.name] = hint
        annotations = get_type_hints(hint, include_extras=True)
        for option in fields(hint):
            default = inspect.Parameter.empty if option.default is MISSING else option.default
            parameters.append(parameter.replace(name=option.name, annotation=annotations[option.name], default=default))

    @wraps(function)
    def command(**values: Any) -> None:  # noqa: ANN401  (whatever types the options have)
        given = {
            name: group(**{option.name: values.pop(option.name) for option in fields(group)})
            for name, group in groups.items()
        }
        function(**values, **given)

    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def command_group(about: str) -> typer.Typer:
    """Create a command group."""
    return typer.Typer(help=about, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
