"""The check before the push: the model is loaded in its environment and predicts its own example.

The environment runs from its staging folder, not from its path in the image; its Python finds the installed packages
there too. A failure that may be due to this machine (a library that the base image may have) doesn't fail the check.
"""

from __future__ import annotations

import logging
import platform
import re
import shutil
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from packager.check.confinement import confinement
from packager.check.report import CheckUnavailableError, log_output, parse_report, raise_for_report, report_args
from packager.check.sandbox import stage, watch_changes
from packager.errors import ModelCheckError, RegistryError, ToolMissingError, is_disk_full
from packager.image.planner import MODEL_FOLDER
from packager.image.runtime_layer import runtime_folder
from packager.logs.sanitize import sanitize
from packager.models.integrations import docker_rest
from packager.system.orphans import nothing_left
from packager.system.process import OutOfBoundsError, run_command, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import PurePosixPath

    from packager.check.confinement import Confinement
    from packager.environment.cache.local import LocalCache
    from packager.image.plan import ImagePlan, StoredLayer
    from packager.image.planner import Dependencies, PlanInputs
    from packager.logs.progress import Reporter
    from packager.registry.access import RegistryAccess
    from packager.settings import CheckMode, Settings
    from packager.system.process import Completed

log = logging.getLogger(__name__)

# docs.kernel.org: cgroup-v2, "memory.max"; cgroup-v1/memory, "memory.limit_in_bytes".
_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
_AVAILABLE = re.compile(r"^MemAvailable: +(\d+) kB$", re.MULTILINE)


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the available memory of machine and container in bytes; None if unknown.

    `root` is the parent of `proc` and `sys`.
    """
    found = []
    with suppress(OSError):
        found += [1024 * int(number) for number in _AVAILABLE.findall((root / "proc/meminfo").read_text())]
    for name in _LIMITS:
        with suppress(OSError, ValueError):  # "max": no limit
            found.append(int((root / name).read_text()))
    return min(found, default=None)


PASSED, SKIPPED = "passed", "skipped: "
_MAX_BYTES = 1 << 20  # of the report
_GRACE = 2.0
USER_ID = int(docker_rest.USER.partition(":")[0])
_PASSED_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_HOST_SPECIFIC = re.compile(
    r"PATH|HOME|TMPDIR|LD_.*|PYTHON(PATH|HOME|USERBASE)|CONDA_.*|VIRTUAL_ENV|.*_PROXY", re.IGNORECASE
)
_NO_HOME = "/nonexistent"  # as in an image, where the runtime chooses a home
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MACHINES = {"linux-64": ("x86_64", "amd64"), "linux-aarch64": ("aarch64", "arm64")}


def choose_mode(setting: CheckMode, argument: CheckMode) -> CheckMode:
    """Return the setting, or the packaging's argument if the setting is `auto`.

    Raises:
        ModelCheckError: The packaging requires a check that the setting disables.
    """
    if (setting, argument) == ("never", "always"):
        raise ModelCheckError(
            "the model can't be checked here: the packaging has `check: always`, but PACKAGER_CHECK disables it",
            hint="set the argument to auto or never, or change PACKAGER_CHECK",
        )
    return argument if setting == "auto" else setting


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """Checks models before their images are pushed.

    Attributes:
        environ: The source of certificates and proxies without a password; the model gets nothing else of it.
        workspace: A private folder.
        access: The access to the registry of a cached environment.
        mode: `auto`, `always` or `never`.
        environments: The cache of unpacked environments on this machine.
        in_image: Whether the engine checks images with RUN steps itself.
        run: The runner of commands, `run_command` by default.
    """

    settings: Settings
    environ: Mapping[str, str]
    reporter: Reporter
    workspace: Path
    access: RegistryAccess
    mode: CheckMode
    environments: LocalCache
    in_image: bool = False
    run: Callable[..., Completed] = run_command

    def check(self, plan: ImagePlan, prepared: PlanInputs) -> str:
        """Check that the model can serve, if possible; return `passed`, or `skipped: ` and the reason.

        Raises:
            ModelCheckError: The model can't serve, or the check is not possible and the mode is `always`.
        """
        if self.mode == "never":
            log.info("the model is not checked, as requested")
            return f"{SKIPPED}disabled (check: never)"
        if plan.run_steps and self.in_image:
            log.info("the model will be checked in the built image")
            return PASSED
        try:
            _check_memory(sum(prepared.sizes.values()))
            self._check_platform()
            with ExitStack() as stack:
                folder = Path(
                    stack.enter_context(
                        TemporaryDirectory(prefix="check-", dir=self.workspace, ignore_cleanup_errors=True)
                    )
                )
                complete = stack.enter_context(self._with_environment(prepared, folder))
                scratch = folder / "tmp"
                scratch.mkdir()
                confined = stack.enter_context(confinement([scratch], USER_ID))
                python = _python_command(complete.dependencies)
                with self.reporter.stage("Checking that the model serves"):
                    self._check(python, plan, complete, folder, confined)
        except CheckUnavailableError as error:
            if self.mode == "always":
                raise ModelCheckError(
                    f"the model can't be checked here: {error}",
                    hint="use `check: auto` without --check and PACKAGER_CHECK to package it without the check",
                ) from error
            log.warning("the model is not checked: %s", error)
            return f"{SKIPPED}{sanitize(str(error))}"
        return PASSED

    def _check_platform(self) -> None:
        if platform.machine() not in _MACHINES[self.settings.platform]:
            raise CheckUnavailableError(
                f"its image is for {self.settings.platform}, but this machine is {platform.machine()}"
            )

    def _check_python_runs(self, python: list[str], confined: Confinement) -> None:
        """Start the image's Python without the model, confined as the model was.

        Raises:
            CheckUnavailableError: It can't run on this machine.
        """
        done = self.run([*python, "-c", "pass"], env={}, cwd=self.workspace, capture=True, confine=confined.enter)
        if done.returncode != 0:
            raise CheckUnavailableError(f"its Python doesn't run here: {done.output or done.returncode}")

    def _check(
        self, python: list[str], plan: ImagePlan, prepared: PlanInputs, folder: Path, confined: Confinement
    ) -> None:
        ours = self.workspace.resolve() in prepared.model.resolve().parents
        home, scratch = folder / "image", folder / "tmp"
        model = home / "model"
        home.mkdir()
        with self._convert_disk_full():
            stage(prepared.model, prepared.packed, model, linked=ours)
        paths = _PathMap(pairs=tuple(_path_pairs(prepared.dependencies, model)))
        env = self._environment(plan, prepared, paths, scratch)
        argv = [*python, str(runtime_folder()), *report_args(plan.config)]
        roots = [model] if prepared.dependencies.root is None else [prepared.dependencies.root, model]
        # An environment has thousands of folders, which other runs may use at the same time.
        locked = [home, *(root for root in roots if root == model or not confined.protects(root))]
        with watch_changes([*roots, prepared.model], read_only=locked), unreadable(), nothing_left():
            done = self._run(argv, env, model, paths, confined)
        if not parse_report(done.stdout):
            self._check_python_runs(python, confined)
        report = raise_for_report(done, to_image=paths.to_image, pip=prepared.dependencies.packages is not None)
        if confined.ruleset is None:
            log.info("the check can't keep the model from writing outside its own folders: no Landlock on this machine")
        if report.get("uid") != confined.uid:
            log.info("the check ran the model as the current user: no user namespaces on this machine")

    @contextmanager
    def _with_environment(self, prepared: PlanInputs, folder: Path) -> Iterator[PlanInputs]:
        """Provide the files of an environment that is in a registry, from the cache folder or downloaded."""
        dependencies = prepared.dependencies
        stored, prefix = dependencies.stored, dependencies.prefix
        if stored is None or prefix is None:
            yield prepared
            return
        with ExitStack() as stack:
            root = stack.enter_context(self.environments.use(stored, prefix))
            if root is None:
                if dependencies.packages is not None:
                    _matching_python(dependencies.python_version)  # raises before anything is downloaded
                fetched = self._fetch(stored, prefix, folder / "environment")
                self.environments.save(stored, prefix, fetched)
                root = stack.enter_context(self.environments.use(stored, prefix)) or fetched
            yield replace(prepared, dependencies=replace(dependencies, root=root, stored=None))

    def _fetch(self, layer: StoredLayer, prefix: PurePosixPath, folder: Path) -> Path:
        size, most = layer.descriptor.size, self.settings.check_fetch_max_bytes
        if size > most and self.mode != "always":
            raise CheckUnavailableError(
                f"its cached environment has {size / 1e6:,.0f} MB in the registry, more than "
                f"PACKAGER_CHECK_FETCH_MAX_BYTES ({most / 1e6:,.0f} MB)"
            )
        from packager.environment.cache.download import EnvironmentTooLargeError, download_environment  # noqa: PLC0415  (imported when needed)

        try:
            with (
                self.reporter.stage("Downloading the cached environment"),
                self._convert_disk_full(),
            ):
                return download_environment(layer, prefix, self.access, folder)
        except EnvironmentTooLargeError as error:
            raise CheckUnavailableError(str(error)) from error
        except RegistryError as error:
            if self.mode == "always":
                raise
            raise CheckUnavailableError(f"its environment can't be downloaded: {error.message}") from error

    @contextmanager
    def _convert_disk_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise CheckUnavailableError(f"not enough disk space for its files in {self.workspace}") from error

    def _run(
        self, argv: list[str], env: dict[str, str], model: Path, paths: _PathMap, confined: Confinement
    ) -> Completed:
        seconds = self.settings.check_seconds
        lines: list[str] = []

        def take(line: str) -> None:
            lines.append(paths.to_image(line))
            del lines[:-200]
            log.debug("model: %s", lines[-1])

        try:
            return self.run(
                argv,
                env=env,
                cwd=model,
                on_line=take,
                capture=True,
                grace=_GRACE,
                seconds=seconds,
                most=_MAX_BYTES,
                confine=confined.enter,
            )
        except ToolMissingError as error:
            raise CheckUnavailableError(f"its Python doesn't run here: {error.message}") from error
        except OutOfBoundsError as error:
            log_output(lines)
            raise ModelCheckError(
                f"the model can't serve: {error} of loading and predicting its example",
                hint="raise the limit with PACKAGER_CHECK_SECONDS, or skip the check with --no-check",
            ) from error

    def _environment(self, plan: ImagePlan, prepared: PlanInputs, paths: _PathMap, scratch: Path) -> dict[str, str]:
        """Return the model's whole environment: that of its image, and no secret of ours."""
        ours = {
            name: value
            for name, value in self.environ.items()
            if name.upper() in _PASSED_VARIABLES and value and "@" not in value
        }
        base = {name: value for name, value in prepared.base.env if not _HOST_SPECIFIC.fullmatch(name)}
        image = {name: paths.to_local(value) for name, value in plan.config.env if name != "PATH"}
        root = prepared.dependencies.root
        programs = f"{root / 'bin'}:" if root is not None and prepared.dependencies.packages is None else ""
        return {
            "HOME": _NO_HOME,
            "TMPDIR": str(scratch),  # /tmp is shared on this machine
            **base,
            **ours,
            **image,
            "PATH": programs + _PATH,
        }


@dataclass(frozen=True, kw_only=True)
class _PathMap:
    """Pairs of a path in the image and the local path of its files."""

    pairs: tuple[tuple[str, str], ...]

    def to_local(self, text: str) -> str:
        for image, here in self.pairs:
            text = text.replace(image, here)
        return text

    def to_image(self, text: str) -> str:
        for image, here in self.pairs:
            text = text.replace(here, image)
        return text


def _path_pairs(dependencies: Dependencies, model: Path) -> Iterator[tuple[str, str]]:
    yield str(MODEL_FOLDER), str(model)
    if dependencies.prefix is not None and dependencies.root is not None:
        yield str(dependencies.prefix), str(dependencies.root)


def _check_memory(size: int) -> None:
    """Skip a model whose files exceed the memory: it would get the whole container killed."""
    memory = available_memory()
    if memory is not None and size > memory:
        raise CheckUnavailableError(
            f"its files have {size / 1e6:,.0f} MB, but only {memory / 1e6:,.0f} MB of memory are available"
        )


def _python_command(dependencies: Dependencies) -> list[str]:
    """Return the command that runs the image's Python on this machine."""
    if dependencies.root is None:
        raise CheckUnavailableError("the base image's own conda creates its environment during the image build")
    if dependencies.packages is None:
        return [str(dependencies.root / "bin" / "python"), "-B"]
    return [_matching_python(dependencies.python_version), "-B", "-I", "-S"]


def _matching_python(version: str) -> str:
    """Return a local Python of the base image's version: this one, or one on the PATH."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        raise CheckUnavailableError(f"the base image's Python {version} is not on this machine")
    return found
