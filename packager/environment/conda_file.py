"""The model's conda file, parsed and validated without contacting any channel."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import yaml
from rattler import MatchSpec, Subdir, Version, VersionSpec
from rattler.exceptions import InvalidMatchSpecError

from packager.environment.channels import Credential, channel_urls, split_credential, without_credentials
from packager.environment.requirements import Requirements, read_requirements
from packager.environment.text import read_text_file
from packager.errors import DependenciesError
from packager.image.runtime_layer import OLDEST_PYTHON
from packager.logs.sanitize import sanitize
from packager.models.yaml_text import CONTROL, TextLoader, reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from packager.settings import Settings

_log = logging.getLogger(__name__)
_MAX_NAME_LENGTH = 100
_MAX_NUMBER_LENGTH = 80  # characters; parsing a number takes quadratic time
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HINT = "correct the model's conda file; docs/reference/dependency-files.md lists what it may contain"
_EXPORT_HINT = "take an environment file: `conda env export --from-history`, with the pip section added"
_SUBDIRS = {str(subdir) for subdir in Subdir.all()}
_PATCHES, _MINORS = 40, 20  # above Python's patch releases; minor releases to come
_URL_KEY = re.compile(r"\burl\s*=")
_EXPORTED = re.compile(r"[\w.-]+=[^=\s]+=[^=\s]+")  # a line of `conda list --export`


@dataclass(frozen=True, kw_only=True)
class CondaFile:
    """The content of a conda file.

    Attributes:
        name: The environment's name, safe as a path component.
        channels: URLs by descending priority, without credentials.
        defaults: The URLs of the channel `defaults`, which are one channel to the solver, as for conda.
        specs: Conda match specs; a channel in one is a URL, or `defaults`.
        requirements: The pip section.
        variables: Environment variables that the file sets.
        names_python: Whether the file requires a Python itself.
        credentials: The credentials from the channels' URLs.
    """

    name: str
    channels: tuple[str, ...]
    defaults: tuple[str, ...] = ()
    specs: tuple[str, ...]
    requirements: Requirements
    variables: tuple[tuple[str, str], ...] = ()
    names_python: bool = True
    credentials: tuple[Credential, ...] = field(default=(), repr=False)

    def to_yaml(self) -> str:
        """Return a self-contained conda file for the base image's own conda, without secrets and included files.

        Raises:
            DependenciesError: The pip section refers to the model archive, which the build can't access.
        """
        places = [place for place in self.requirements.find_links if "://" not in place]
        local = [line for line in self.pip_requirements if "file://" in line] + places
        if local:
            raise DependenciesError(
                f"the conda file's pip section refers to a file of the model archive: {local[0].rpartition('/')[2]}",
                hint="set `dockerfileAddCondaInstallation: true`",
            )
        dependencies: list[object] = list(self.specs if self.names_python else self.specs[:-1])
        if self.pip_requirements:
            dependencies.append({"pip": [without_credentials(line) for line in self.requirements.to_lines()]})
        document = {"name": self.name, "channels": [*self.channels, "nodefaults"], "dependencies": dependencies}
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)

    @property
    def pip_requirements(self) -> tuple[str, ...]:
        """The lines of the pip section."""
        return self.requirements.lines


def read_conda_file(path: Path, settings: Settings, *, artifact_root: Path | None = None) -> CondaFile:
    """Read a conda environment file (docs.conda.io: "Creating an environment file manually").

    `defaults`, or no channels at all, mean the settings' default channels; `nodefaults` removes them. Without a Python
    in the file, the settings' default Python is added. Files that the pip section refers to must be below
    `artifact_root`, by default the file's own folder.

    Raises:
        DependenciesError: The file is missing, is not a YAML environment file, or has an invalid entry.
    """
    document = _load(path)
    channels = _Channels(path=path, settings=settings)
    specs, pip_lines = [], []
    for entry in _list(path, document, "dependencies"):
        if isinstance(entry, str):
            specs.append(_spec(path, entry, channels))
        elif isinstance(entry, dict) and list(entry) == ["pip"]:
            pip_lines += [_text(path, "pip", line) for line in _list(path, entry, "pip")]
        else:
            raise _error(path, f"dependencies: {_shown(entry)} is neither a package nor a pip list")
    names_python = any(MatchSpec(spec).name.normalized == "python" for spec in specs)
    if not names_python:
        _log.info("%s has no Python: using the default, %s", path.name, settings.default_python)
        specs.append(f"python={settings.default_python}")
    _check_python(path, specs)
    channels.add_from(_list(path, document, "channels"))
    return CondaFile(
        name=_name(path, document.get("name")),
        channels=tuple(dict.fromkeys(channels.listed + channels.in_specs)),
        defaults=tuple(dict.fromkeys(channels.defaults)),
        specs=tuple(specs),
        requirements=read_requirements(pip_lines, file=path, root=artifact_root or path.parent),
        variables=_variables(path, document.get("variables")),
        names_python=names_python,
        credentials=tuple(channels.credentials),
    )


class _Loader(TextLoader):
    """A YAML loader without anchors and aliases, like the manifest's, but with numbers and other scalar types."""

    yaml_implicit_resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    yaml_constructors = yaml.SafeLoader.yaml_constructors

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:  # noqa: FBT001, FBT002  (PyYAML's)
        """Reject numbers that take long to parse."""
        if node.tag != "tag:yaml.org,2002:str" and isinstance(node, yaml.ScalarNode):  # noqa: SIM102  (one condition each)
            if len(node.value) > _MAX_NUMBER_LENGTH:
                raise yaml.MarkedYAMLError(problem="a number is too long", problem_mark=node.start_mark)
        return super().construct_object(node, deep=deep)


def _load(path: Path) -> dict[str, Any]:
    try:
        text = read_text_file(path)
    except FileNotFoundError as error:
        raise _error(
            path, "is missing", hint="add it to the archive, or correct `binaries.conda_path` in the model's manifest"
        ) from error
    except OSError as error:
        raise _error(path, f"can't be read: {error.strerror or error}") from error
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    if "@EXPLICIT" in lines:
        raise _error(path, "lists package files of one platform (`conda list --explicit`)", hint=_EXPORT_HINT)
    if lines and all(map(_EXPORTED.fullmatch, lines)):
        raise _error(path, "lists builds of one platform (`conda list --export`)", hint=_EXPORT_HINT)
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  (it is a SafeLoader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise _error(path, f"can't be read as YAML: {reason(error)}") from error
    if not isinstance(document, dict) or "dependencies" not in document:
        raise _error(
            path,
            "is not a conda environment file: it has no `dependencies`",
            hint="for a pip requirements file, set `binaries.dependencies: pip` and `binaries.requirements_path`",
        )
    return document


def _list(path: Path, document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _error(path, f"`{key}` is not a list")
    return value


def _text(path: Path, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _error(path, f"{key}: {_shown(value)} is not a string")
    return value


def _name(path: Path, value: object) -> str:
    if value is None:
        return "model"
    text = value if isinstance(value, str) else sanitize(repr(value))
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
    if "/" in text or "\0" in text or not slug.strip(".") or len(slug) > _MAX_NAME_LENGTH:
        raise _error(
            path, f"`name` {text[:200]!r} is not a valid folder name", hint="use letters, digits, '-', '_' and '.'"
        )
    return slug


def _variables(path: Path, value: object) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise _error(path, "`variables` is not a mapping")
    return tuple((_variable(path, name), _value(path, name, text)) for name, text in value.items() if text is not None)


def _variable(path: Path, name: object) -> str:
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        raise _error(
            path, f"variables: {sanitize(repr(name))} is not a variable name", hint="use letters, digits and '_'"
        )
    return name


def _value(path: Path, name: object, value: object) -> str:
    if not isinstance(value, str | int | float | date):
        raise _error(path, f"variables: {sanitize(repr(name))} is not a string", hint="quote the value")
    text = str(value)
    if CONTROL.search(text):
        raise _error(path, f"variables: {sanitize(repr(name))} contains a line break or another control character")
    return text


@dataclass(frozen=True, kw_only=True)
class _Channels:
    path: Path
    settings: Settings
    listed: list[str] = field(default_factory=list)
    in_specs: list[str] = field(default_factory=list)
    defaults: list[str] = field(default_factory=list)
    credentials: list[Credential] = field(default_factory=list)

    def urls(self, channel: str) -> list[str]:
        base, _, subdir = channel.rstrip("/").rpartition("/")
        if base and subdir in _SUBDIRS:
            self.check_subdir(channel, subdir)
            channel = base
        urls = []
        for url in channel_urls(channel, file=self.path, settings=self.settings):
            clean, credential = split_credential(url)
            if credential:
                self.credentials.append(credential)
            urls.append(clean.rstrip("/"))
        if channel == "defaults":
            self.defaults.extend(urls)
        return urls

    def check_subdir(self, text: str, subdir: str) -> None:
        if subdir not in (self.settings.platform, "noarch"):
            raise _error(
                self.path,
                f"{_shown(text)} is for {subdir}, but the image is for {self.settings.platform}",
                hint="remove the platform from the channel or package",
            )

    def add_from(self, entries: list[Any]) -> None:
        names = [_text(self.path, "channels", entry).strip() for entry in entries]
        if "nodefaults" in names:
            names = [name for name in names if name not in ("nodefaults", "defaults")]
        elif not names:
            names = ["defaults"]
        for name in names:
            self.listed.extend(self.urls(name))


def _spec(path: Path, entry: str, channels: _Channels) -> str:
    """Validate a match spec, and replace the channel before its `::` by the channel's URL."""
    channel, colons, rest = (part.strip() for part in entry.rpartition("::"))
    try:
        spec = MatchSpec(rest)
    except InvalidMatchSpecError as error:
        reason = sanitize(without_credentials(str(error)))
        raise _error(path, f"dependencies: {_shown(entry)} is not a valid match spec: {reason}") from error
    if spec.channel is not None or "://" in rest or _URL_KEY.search(rest) or rest.startswith("-"):
        raise _error(
            path,
            f"dependencies: {_shown(entry)} is not a package's name and version",
            hint="write CHANNEL::PACKAGE for another channel; put files and URLs into the pip section",
        )
    if spec.build == "pypi_0":
        raise _error(
            path,
            f"dependencies: {_shown(entry)} was installed by pip",
            hint="move it into the pip section as NAME==VERSION",
        )
    if spec.subdir is not None:
        channels.check_subdir(entry, spec.subdir)
    if not colons:
        return rest
    urls = channels.urls(channel)
    channels.in_specs.extend(urls)
    return f"{channel if channel == 'defaults' else urls[0]}::{rest}"


def _check_python(path: Path, specs: list[str]) -> None:
    """Reject a file that requires a Python older than the runtime supports."""
    wanted = {text: spec for text in specs if (spec := MatchSpec(text)).name.normalized == "python"}
    versions = [VersionSpec(spec.version) for spec in wanted.values() if spec.version]
    oldest = int(OLDEST_PYTHON.partition(".")[2])

    def allowed(minors: Iterable[str]) -> bool:
        candidates = (Version(f"{minor}.{patch}") for minor in minors for patch in range(_PATCHES))
        return any(all(version.matches(candidate) for version in versions) for candidate in candidates)

    older = ["2.7", *(f"3.{minor}" for minor in range(oldest))]
    newer = [f"3.{minor}" for minor in range(oldest, oldest + _MINORS)]
    if allowed(older) and not allowed(newer):
        asked = sanitize(" and ".join(wanted))
        raise _error(
            path,
            f"requires {asked}, but the serving runtime needs Python {OLDEST_PYTHON} or later",
            hint=f"require python>={OLDEST_PYTHON}, and save the model again if it can't be loaded with that Python",
        )


def _shown(value: object) -> str:
    return (
        sanitize(repr(without_credentials(value)))
        if isinstance(value, str)
        else sanitize(without_credentials(repr(value)))
    )


def _error(path: Path, problem: str, *, hint: str = _HINT) -> DependenciesError:
    return DependenciesError(f"{path.name}: {problem}", hint=hint)
