"""Which tests can run here: `needs("buildah")` names the real programs that an integration test runs; `root` the user.

`index` is the package index that uv asks, and `python3.x` that interpreter, also where pyenv keeps it.
`conformance` (OCI's suite), `crane`, `distribution`, `helm` and `kaniko-executor` are those that local/go_program.sh
builds; the last one goes into the Job image and is never run outside of it.

A test whose programs are missing is left out, and the end of the run names it and why; nothing is ever skipped in
silence. With `STRICT=1` in the environment (as in CI) the run refuses to leave any test out, but for want of what
WITHOUT names (words, separated by spaces).
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import signal
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from uv import find_uv_bin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Debian puts runc and its like into folders that an ordinary user's PATH does not have.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
PROJECT = Path(__file__).parents[1]
LEFT_OUT: pytest.StashKey[dict[tuple[str, tuple[str, ...]], int]] = pytest.StashKey()
INDEX = "TESTS_INDEX_ANSWERS"  # set for the processes that tests are spread over: "yes" or "no"
GO_PROGRAMS = ("conformance", "crane", "distribution", "helm", "kaniko-executor")
TOLD: pytest.StashKey[dict[str, None]] = pytest.StashKey()  # by the processes that tests are spread over


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """The program's log as it was before, whatever a test that runs a command in this process has set up."""
    log = logging.getLogger("packager")
    handlers, level, propagate = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The answers to stop signals as they were before a test that runs a command in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def is_there(tool: str) -> bool:
    special: dict[str, Callable[[], bool]] = {
        "root": lambda: os.geteuid() == 0,
        "index": index_answers,
        "postgres": lambda: any(Path("/usr/lib/postgresql").glob("*/bin/postgres")),  # beside the PATH
        **{name: functools.partial(_is_built, name) for name in GO_PROGRAMS},
    }
    if tool in special:
        return special[tool]()
    if tool.startswith("python3."):
        return find_python(tool.removeprefix("python")) is not None
    return shutil.which(tool, path=SEARCH_PATH) is not None


@functools.cache
def index_answers() -> bool:
    """Whether uv can find a package that is not in its cache, in the time that a test run may wait for it."""
    if INDEX in os.environ:
        return os.environ[INDEX] == "yes"
    words = [find_uv_bin(), "pip", "compile", "--quiet", "--no-cache", "--no-header", "-"]
    environ = {**os.environ, "UV_HTTP_TIMEOUT": "30", "UV_HTTP_RETRIES": "3"}
    done = subprocess.run(words, input=b"six\n", env=environ, check=False, capture_output=True)
    return done.returncode == 0


@functools.cache
def find_python(version: str) -> str | None:
    """An interpreter of this version that runs: pyenv's, or the one on PATH."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [*sorted(root.glob(f"versions/{version}.*/bin/python")), Path(shutil.which(f"python{version}") or "")]
    return next((str(path) for path in candidates if path.is_file() and _runs(path)), None)


def _runs(python: Path) -> bool:
    return subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0


@functools.cache
def go_program(name: str) -> str | None:
    """Where local/go_program.sh has built a program."""
    words = [str(PROJECT / "local" / "go_program.sh"), "--built", name]
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip() or None


def _is_built(name: str) -> bool:
    by_image = name == "kaniko-executor" and os.environ.get("KANIKO_IMAGE")
    return bool(by_image) or go_program(name) is not None


def missing_tools(item: pytest.Item) -> tuple[str, ...]:
    tools = {str(tool) for mark in item.iter_markers("needs") for tool in mark.args}
    return tuple(sorted(tool for tool in tools if not is_there(tool)))


def sentences(config: pytest.Config) -> Iterator[str]:
    for (module, tools), count in config.stash.get(LEFT_OUT, {}).items():
        tests = "1 test" if count == 1 else f"{count} tests"
        yield f"LEFT OUT: {module} ({tests}): {', '.join(tools)} {'is' if len(tools) == 1 else 'are'} {_absence(tools)}"


def _absence(tools: tuple[str, ...]) -> str:
    return "out of reach" if "index" in tools else "not installed"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out: defaultdict[tuple[str, tuple[str, ...]], int] = defaultdict(int)
    without: list[pytest.Item] = []
    for item in items:
        if tools := missing_tools(item):
            left_out[item.path.relative_to(config.rootpath).as_posix(), tools] += 1
            without.append(item)
    if not without:
        return
    config.stash[LEFT_OUT] = dict(left_out)
    allowed = set(os.environ.get("WITHOUT", "").split())
    if os.environ.get("STRICT") and not all(allowed.issuperset(tools) for _, tools in left_out):
        raise pytest.UsageError("STRICT leaves nothing out:", *sentences(config))
    items[:] = [item for item in items if item not in without]
    config.hook.pytest_deselected(items=without)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["left_out"] = list(sentences(session.config))
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and LEFT_OUT in session.config.stash:
        session.exitstatus = pytest.ExitCode.OK


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Ask the index once, before the processes are started, which inherit this one's environment."""
    os.environ[INDEX] = "yes" if index_answers() else "no"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ARG001  (xdist's names)
    for line in getattr(node, "workeroutput", {}).get("left_out", ()):  # each of them has seen all tests
        node.config.stash.setdefault(TOLD, {})[line] = None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = [*sentences(config), *config.stash.get(TOLD, {})]
    for line in lines:
        terminalreporter.write_line(line, yellow=True)
    if lines and (report := os.environ.get("LEFT_OUT_FILE")):  # `make test` repeats them as its last lines
        with Path(report).open("a", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines)
