"""Conda environments solved and linked with py-rattler."""

from __future__ import annotations

import json
import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from rattler import (
    BuildString,
    Client,
    Config,
    Gateway,
    GenericVirtualPackage,
    MatchSpec,
    MultiSource,
    PackageName,
    Subdir,
    Version,
    install,
    solve,
)
from rattler import Channel as RattlerChannel
from rattler.exceptions import FetchRepoDataError, GatewayError, InvalidChannelError, SolverError

from packager.environment.channels import (
    Channel,
    Credential,
    configured_credentials,
    resolve_mirror,
    split_credential,
    without_credentials,
)
from packager.environment.disk import DISK_HINT
from packager.errors import ChannelError, DependenciesError, DiskFullError, InstallError, PackagerError, SolveError
from packager.image.runtime_layer import OLDEST_PYTHON
from packager.system.event_loop import future_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path, PurePosixPath

    from rattler import RepoDataRecord
    from rattler.install import InstallerReporter

    from packager.environment import ImageTarget
    from packager.environment.conda_file import CondaFile
    from packager.logs.progress import Reporter
    from packager.settings import Settings

_log = logging.getLogger(__name__)

_KERNEL = "5.10"  # the nodes' kernel, not the image's; no supported Kubernetes runs on older ones
_SOLVE_HINT = "change the versions or the channels in the model's conda file"
_BUILDS_HINT = (
    "the conda file pins builds, as a full `conda env export` does, and builds are specific to a platform: "
    "use `conda env export --from-history`, or remove the builds"
)


@dataclass(frozen=True, kw_only=True)
class LinkRequest:
    """An environment to link.

    Attributes:
        staging: The folder to fill.
        prefix: The path to write into the files.
        workspace: A private folder, which holds the credentials during the run.
        reporter: Receives the progress.
    """

    conda_file: CondaFile
    staging: Path
    prefix: PurePosixPath
    workspace: Path
    target: ImageTarget
    settings: Settings
    reporter: Reporter


@dataclass(frozen=True, kw_only=True)
class LinkedEnvironment:
    """A linked environment: its packages and their channels."""

    records: tuple[RepoDataRecord, ...]
    channels: tuple[Channel, ...]

    def record_of(self, name: str) -> RepoDataRecord | None:
        """Return the package of a name, or None."""
        return next((record for record in self.records if record.name.normalized == name), None)

    def public_url(self, url: str) -> str:
        """Return a package's or channel's URL as it may go into an image: no mirror, local path or secret."""
        for channel in self.channels:
            if url == channel.fetch_url or url.startswith(f"{channel.fetch_url}/"):
                return channel.public + url[len(channel.fetch_url) :]
        return split_credential(url)[0]


def link_environment(linking: LinkRequest) -> LinkedEnvironment:
    """Solve the conda file for the image's platform and link the packages into the staging folder.

    Raises:
        SolveError: No set of packages satisfies the file; the message contains the solver's explanation.
        ChannelError: A channel is unreachable.
        InstallError: A package could not be fetched or linked.
        DiskFullError: No space is left.
    """
    found = [resolve_mirror(url, linking.settings) for url in linking.conda_file.channels]
    credentials = (
        *(credential for _, credential in found if credential),
        *linking.conda_file.credentials,
        *configured_credentials(linking.settings),
    )
    channels = tuple(channel for channel, _ in found)
    if not channels:
        raise DependenciesError(
            "the conda file has no channels", hint="`nodefaults` removes the default channels: add another channel"
        )
    with _rattler_config(credentials, linking.workspace) as config, future_loop() as loop:
        return loop.run_until_complete(_solve_and_link(linking, channels, config))


async def _solve_and_link(linking: LinkRequest, channels: tuple[Channel, ...], config: Config) -> LinkedEnvironment:
    cache = linking.settings.cache_dir / "conda"
    client = Client.from_config(config)
    gateway = Gateway(cache_dir=cache / "repodata", client=client)
    hint = _BUILDS_HINT if any(MatchSpec(text).build for text in linking.conda_file.specs) else _SOLVE_HINT
    with linking.reporter.stage("solving the conda environment"), convert_rattler_errors(channels, hint):
        records = await _solve(linking, channels, gateway)
    _log.info("solved: %d packages", len(records))
    with (
        linking.reporter.stage(f"linking {len(records)} conda packages"),
        linking.reporter.task("conda packages", len(records), unit="packages") as advance,
        convert_rattler_errors(channels),
    ):
        await install(
            records,
            linking.staging,
            cache_dir=cache / "pkgs",
            client=client,
            config=config,
            platform=Subdir(linking.target.platform),
            execute_link_scripts=False,  # they would run on this machine, not in the image
            alternative_target_prefix=str(linking.prefix),
            reporter=cast("InstallerReporter", _Progress(advance)),
        )
    return LinkedEnvironment(
        records=tuple(sorted(records, key=lambda record: record.name.normalized)), channels=channels
    )


async def _solve(linking: LinkRequest, channels: tuple[Channel, ...], gateway: Gateway) -> list[RepoDataRecord]:
    rattler_channels = [RattlerChannel(channel.fetch_url) for channel in channels]
    platforms = [Subdir(linking.target.platform), Subdir("noarch")]
    fetch_urls = {channel.url: channel.fetch_url for channel in channels}
    specs = []
    for text in linking.conda_file.specs:
        channel, colons, rest = text.rpartition("::")
        specs.append(MatchSpec(f"{fetch_urls.get(channel, channel)}::{rest}" if colons else rest))
    # uv installs the pip section, so a channel without pip is fine. Where a channel has pip, it stays required, because
    # it brings setuptools, which models may import without declaring it.
    if any(spec.name.normalized == "pip" for spec in specs):
        candidates = await gateway.query(rattler_channels, platforms, ["pip"], recursive=False)
        if not any(candidates):
            _log.info("no channel has pip: skipping it (the pip section doesn't need it)")
            specs = [spec for spec in specs if spec.name.normalized != "pip"]
    return await solve(
        sources=_ranked(channels, linking.conda_file.defaults),
        specs=specs,
        constraints=[MatchSpec(f"python>={OLDEST_PYTHON}")],
        gateway=gateway,
        platforms=platforms,
        virtual_packages=virtual_packages(linking.target),
    )


def _ranked(channels: tuple[Channel, ...], defaults: tuple[str, ...]) -> list[RattlerChannel | MultiSource]:
    """Return the channels by descending priority, with those of `defaults` as one channel."""
    group = list(dict.fromkeys(channel.fetch_url for channel in channels if channel.url in defaults))
    ranked: list[RattlerChannel | MultiSource] = []
    for channel in channels:
        if channel.fetch_url not in group:
            ranked.append(RattlerChannel(channel.fetch_url))
        elif channel.fetch_url == group[0]:
            ranked.append(MultiSource("defaults", group))
    return ranked


def virtual_packages(target: ImageTarget) -> list[GenericVirtualPackage]:
    """Return the virtual packages of the image's platform (docs.conda.io: "Managing virtual packages")."""
    architecture = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}[target.platform]
    described = (
        ("__unix", "0", "0"),
        ("__linux", _KERNEL, "0"),
        ("__glibc", target.glibc, "0"),
        ("__archspec", "1", architecture),
    )
    return [
        GenericVirtualPackage(PackageName(name), Version(version), BuildString(build))
        for name, version, build in described
    ]


@contextmanager
def _rattler_config(credentials: tuple[Credential, ...], workspace: Path) -> Iterator[Config]:
    """Provide rattler's configuration, with the credentials in a private file that is removed afterwards.

    Files are copied from the cache, never linked, so that changes by the pip section or a later stage can't affect the
    next model.
    """
    private = workspace / "conda-auth"
    private.mkdir(mode=0o700)
    try:
        auth = private / "auth.json"
        entries: dict[str, object] = {}
        for credential in credentials:  # the settings come last and win
            entries[credential.host.partition(":")[0]] = credential.as_auth_entry()
        with os.fdopen(os.open(auth, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(entries, file)
        yield Config.from_toml(
            f"authentication-override-file = {json.dumps(str(auth))}\n"
            'tls-root-certs = "system"\nallow-hard-links = false\n'
        )
    finally:
        shutil.rmtree(private, ignore_errors=True)


@contextmanager
def convert_rattler_errors(channels: tuple[Channel, ...], hint: str = _SOLVE_HINT) -> Iterator[None]:
    """Convert rattler's errors into ours."""
    try:
        yield
    except PackagerError:
        raise
    except SolverError as error:
        message = without_credentials(str(error)).removeprefix("Cannot solve the request because of: ").strip()
        raise SolveError(
            f"cannot solve the conda packages for the image's platform:\n{message}",
            hint=hint,
        ) from error
    except (GatewayError, FetchRepoDataError, InvalidChannelError) as error:
        text = without_credentials(str(error))
        named = [channel for channel in channels if channel.fetch_url in text] or list(channels)
        raise ChannelError(
            f"the conda channel {' or '.join(_described(channel) for channel in named)} can't be read: {text}",
            hint="check the channel in the conda file; PACKAGER_CONDA_MIRRORS=CHANNEL_URL=MIRROR_URL sets a mirror, "
            "PACKAGER_CONDA_CREDENTIALS its credentials",
        ) from error
    except Exception as error:  # rattler's classes of errors have no common base class
        text = without_credentials(str(error))
        if "os error 28" in text or "No space left" in text:
            raise DiskFullError(f"no space left while linking the conda environment: {text}", hint=DISK_HINT) from error
        raise InstallError(
            f"cannot fetch or link a conda package: {text}",
            hint="run it again; if it fails the same way, the channel's file is damaged, or its copy in "
            "PACKAGER_CACHE_DIR/conda/pkgs",
        ) from error


def _described(channel: Channel) -> str:
    return channel.url if channel.fetch_url == channel.url else f"{channel.url} (mirror {channel.fetch_url})"


class _Progress:
    """A progress reporter that counts packages; rattler calls the methods that exist."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def on_transaction_operation_complete(self, operation: int) -> None:  # noqa: ARG002  (rattler's signature)
        self._advance(1)
