"""The check before anything is pushed: the model's environment loads it, and it predicts its own example.

The environment runs at the place where it was made, which is not its place in the image; its Python and what is
installed find each other all the same. What can't be told from here (a library that the base image may have) is no
failure.
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
from packager.check.report import UnavailableError, judge, report_words, show
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
    from packager.environment.cache.local import LocalEnvironments
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
    """Return the bytes that the machine can give and our container may take; None where nothing tells.

    `root` is where `proc` and `sys` lie.
    """
    found = []
    with suppress(OSError):
        found += [1024 * int(number) for number in _AVAILABLE.findall((root / "proc/meminfo").read_text())]
    for name in _LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number
            found.append(int((root / name).read_text()))
    return min(found, default=None)


PASSED, SKIPPED = "passed", "skipped: "
_MOST_BYTES = 1 << 20  # of the report
_GRACE = 2.0
USER_ID = int(docker_rest.USER.partition(":")[0])
_PRINT_UID = "import os; print(os.getuid())"
_PASSED_ON = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_OF_THE_PLACE = re.compile(
    r"PATH|HOME|TMPDIR|LD_.*|PYTHON(PATH|HOME|USERBASE)|CONDA_.*|VIRTUAL_ENV|.*_PROXY", re.IGNORECASE
)
_NO_HOME = "/nonexistent"  # as in an image, where the runtime finds a home itself
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MACHINES = {"linux-64": ("x86_64", "amd64"), "linux-aarch64": ("aarch64", "arm64")}


def choose_mode(setting: CheckMode, argument: CheckMode) -> CheckMode:
    """Choose between the setting, which comes first unless it is `auto`, and the packaging's argument.

    Raises:
        ModelCheckError: The packaging asks for a check that the setting leaves out.
    """
    if (setting, argument) == ("never", "always"):
        raise ModelCheckError(
            "the model can't be checked here: the packaging has `check: always`, and PACKAGER_CHECK leaves it out",
            hint="change the argument to auto or never, or PACKAGER_CHECK",
        )
    return argument if setting == "auto" else setting


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """What a model is checked with.

    Attributes:
        environ: Where certificates and proxies without a password are taken from; nothing else of it reaches the model.
        workspace: A private folder.
        access: How the registry of a kept environment is reached.
        mode: `auto`, `always` or `never`.
        environments: Those that are unpacked on this machine.
        in_image: Whether the engine checks an image that it has run commands in.
        run: Runs a command as `run_command` does.
    """

    settings: Settings
    environ: Mapping[str, str]
    reporter: Reporter
    workspace: Path
    access: RegistryAccess
    mode: CheckMode
    environments: LocalEnvironments
    in_image: bool = False
    run: Callable[..., Completed] = run_command

    def check(self, plan: ImagePlan, prepared: PlanInputs) -> str:
        """See that the model can serve, where that can be done; return `passed`, or `skipped: ` and why.

        Raises:
            ModelCheckError: It can't serve; or it can't be checked here, and the mode is `always`.
        """
        if self.mode == "never":
            log.info("the model is not checked, as asked for")
            return f"{SKIPPED}left out (check: never)"
        if plan.run_steps and self.in_image:
            log.info("the model is checked in the image, when that is built")
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
                whole = stack.enter_context(self._with_files(prepared, folder))
                scratch = folder / "tmp"
                scratch.mkdir()
                confined = stack.enter_context(confinement([scratch], USER_ID))
                python = self._python(whole.dependencies, confined)
                with self.reporter.stage("Checking that the model serves"):
                    self._check(python, plan, whole, folder, confined)
        except UnavailableError as error:
            if self.mode == "always":
                raise ModelCheckError(
                    f"the model can't be checked here: {error}",
                    hint="`check: auto`, without --check and PACKAGER_CHECK, packages it unchecked and says so",
                ) from error
            log.warning("the model is not checked: %s", error)
            return f"{SKIPPED}{sanitize(str(error))}"
        return PASSED

    def _check_platform(self) -> None:
        if platform.machine() not in _MACHINES[self.settings.platform]:
            raise UnavailableError(f"its image is for {self.settings.platform}, and this is {platform.machine()}")

    def _python(self, dependencies: Dependencies, confined: Confinement) -> list[str]:
        """Return the command that runs the image's Python on this machine, confined as the model will be."""
        if dependencies.root is None:
            raise UnavailableError("the base's own conda makes its environment, when the image is built")
        if dependencies.packages is None:
            command = [str(dependencies.root / "bin" / "python"), "-B"]
        else:
            command = [_own_python(dependencies.python_version), "-B", "-I", "-S"]
        try:
            done = self.run(
                [*command, "-c", _PRINT_UID], env={}, cwd=self.workspace, capture=True, confine=confined.enter
            )
        except ToolMissingError as error:
            raise UnavailableError(f"its Python doesn't run here: {error.message}") from error
        if done.returncode != 0:
            raise UnavailableError(f"its Python doesn't run here: {done.output or done.returncode}")
        if confined.ruleset is None:
            log.info(
                "the check can't stop the model from writing outside its own folders: this machine has no Landlock"
            )
        if done.stdout.strip() != str(confined.uid):
            log.info("the check runs the model as this machine's user: it has no user namespaces for us")
        return command

    def _check(
        self, python: list[str], plan: ImagePlan, prepared: PlanInputs, folder: Path, confined: Confinement
    ) -> None:
        ours = self.workspace.resolve() in prepared.model.resolve().parents
        home, scratch = folder / "image", folder / "tmp"
        model = home / "model"
        home.mkdir()
        with self._room():
            stage(prepared.model, prepared.packed, model, linked=ours)
        moved = _Moved(places=tuple(_places(prepared.dependencies, model)))
        env = self._environment(plan, prepared, moved, scratch)
        argv = [*python, str(runtime_folder()), *report_words(plan.config)]
        roots = [model] if prepared.dependencies.root is None else [prepared.dependencies.root, model]
        # An environment has thousands of folders, and other runs may use it.
        locked = [home, *(root for root in roots if root == model or not confined.protects(root))]
        with watch_changes([*roots, prepared.model], read_only=locked), unreadable(), nothing_left():
            done = self._run(argv, env, model, moved, confined)
        judge(done, back=moved.back, pip=prepared.dependencies.packages is not None)

    @contextmanager
    def _with_files(self, prepared: PlanInputs, folder: Path) -> Iterator[PlanInputs]:
        """Give the files of an environment that lies in a registry: from the cache folder, else fetched."""
        dependencies = prepared.dependencies
        stored, prefix = dependencies.stored, dependencies.prefix
        if stored is None or prefix is None:
            yield prepared
            return
        with ExitStack() as stack:
            root = stack.enter_context(self.environments.use(stored, prefix))
            if root is None:
                if dependencies.packages is not None:
                    _own_python(dependencies.python_version)  # else nothing is fetched
                fetched = self._fetch(stored, prefix, folder / "environment")
                self.environments.keep(stored, prefix, fetched)
                root = stack.enter_context(self.environments.use(stored, prefix)) or fetched
            yield replace(prepared, dependencies=replace(dependencies, root=root, stored=None))

    def _fetch(self, layer: StoredLayer, prefix: PurePosixPath, folder: Path) -> Path:
        size, most = layer.descriptor.size, self.settings.check_fetch_max_bytes
        if size > most and self.mode != "always":
            raise UnavailableError(
                f"its environment is kept in the registry and has {size / 1e6:,.0f} MB packed, more than "
                f"PACKAGER_CHECK_FETCH_MAX_BYTES ({most / 1e6:,.0f} MB)"
            )
        from packager.environment.cache.unpack import TooLargeError, fetch_files  # noqa: PLC0415  (only what is needed)

        try:
            with self.reporter.stage("Fetching the environment that is kept in the registry"), self._room():
                return fetch_files(layer, prefix, self.access, folder)
        except TooLargeError as error:
            raise UnavailableError(str(error)) from error
        except RegistryError as error:
            if self.mode == "always":
                raise
            raise UnavailableError(f"its environment can't be fetched: {error.message}") from error

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise UnavailableError(f"there is no room for its files in {self.workspace}") from error

    def _run(
        self, argv: list[str], env: dict[str, str], model: Path, moved: _Moved, confined: Confinement
    ) -> Completed:
        seconds = self.settings.check_seconds
        lines: list[str] = []

        def take(line: str) -> None:
            lines.append(moved.back(line))
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
                most=_MOST_BYTES,
                confine=confined.enter,
            )
        except OutOfBoundsError as error:
            show(lines)
            raise ModelCheckError(
                f"the model can't serve: {error} of loading and predicting its example",
                hint="PACKAGER_CHECK_SECONDS gives it more time, --no-check packages it unchecked",
            ) from error

    def _environment(self, plan: ImagePlan, prepared: PlanInputs, moved: _Moved, scratch: Path) -> dict[str, str]:
        """Everything that the model gets to see: what its image will have, and nothing of ours that is secret."""
        ours = {
            name: value
            for name, value in self.environ.items()
            if name.upper() in _PASSED_ON and value and "@" not in value
        }
        base = {name: value for name, value in prepared.base.env if not _OF_THE_PLACE.fullmatch(name)}
        image = {name: moved.there(value) for name, value in plan.config.env if name != "PATH"}
        root = prepared.dependencies.root
        programs = f"{root / 'bin'}:" if root is not None and prepared.dependencies.packages is None else ""
        return {
            "HOME": _NO_HOME,
            "TMPDIR": str(scratch),  # instead of /tmp, which is shared here
            **base,
            **ours,
            **image,
            "PATH": programs + _PATH,
        }


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """Paths in the image, and where their files lie meanwhile."""

    places: tuple[tuple[str, str], ...]

    def there(self, text: str) -> str:
        for image, here in self.places:
            text = text.replace(image, here)
        return text

    def back(self, text: str) -> str:
        for image, here in self.places:
            text = text.replace(here, image)
        return text


def _places(dependencies: Dependencies, model: Path) -> Iterator[tuple[str, str]]:
    yield str(MODEL_FOLDER), str(model)
    if dependencies.prefix is not None and dependencies.root is not None:
        yield str(dependencies.prefix), str(dependencies.root)


def _check_memory(size: int) -> None:
    """Leave a model alone whose files alone don't fit: it would take the whole container down."""
    memory = available_memory()
    if memory is not None and size > memory:
        raise UnavailableError(f"its files have {size / 1e6:,.0f} MB, and there are {memory / 1e6:,.0f} MB of memory")


def _own_python(version: str) -> str:
    """Find a Python like the base image's, whose files are not here: it is this one, or one on the PATH."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        raise UnavailableError(f"the base image's Python {version} is not on this machine")
    return found
