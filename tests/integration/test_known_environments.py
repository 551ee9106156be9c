"""A model whose environment is kept in a real registry is checked all the same, or its result says why not."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from packager.kube.status import results_of
from tests.integration.test_model_check import CANT_SERVE, IN_INIT, base, conda, package, pip, put

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.packaging import PackagingHarness, Ran
    from tests.integration.registry import Registry

__all__ = ["base", "conda", "pip"]  # fixtures

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")

FETCHING = "Downloading the cached environment"
BROKEN = "import module_that_is_missing\n"


@pytest.fixture
def known(request: pytest.FixtureRequest, conda: PackagingHarness, registry: Registry) -> str:
    """The image of a model whose environment is kept from now on; the cache of conda's packages is the session's."""
    del conda.environ["PACKAGER_ENVIRONMENT_CACHE"]
    session = conda.environ["PACKAGER_CACHE_DIR"]
    conda.environ["PACKAGER_CACHE_DIR"] = str(conda.folder / "cache")
    (conda.folder / "cache").mkdir()
    (conda.folder / "cache/conda").symlink_to(f"{session}/conda")
    (conda.folder / "cache/bytecode").symlink_to(f"{session}/bytecode")
    conda.environ["PACKAGER_LAYER_COMPRESSION"] = getattr(request, "param", "auto")
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower()).strip("-")
    to = f"docker://{registry.host}/known/{name}:1"
    put(conda, "")
    assert result(package(conda, to, *OUTPUTS), conda.folder) == "passed"
    put(conda, "another = 1\n")
    return to


OUTPUTS = ("--result-file", "result.json", "--results-dir", "results", "--termination-log", "termination-log")


def result(ran: Ran, folder: Path) -> str:
    """The check's outcome, as each output of the run says it."""
    assert ran.code == 0, ran.err
    results = json.loads((folder / "result.json").read_text())
    assert results == json.loads((folder / "termination-log").read_text())
    assert results == {path.name: path.read_text() for path in (folder / "results").iterdir()}
    assert f"modelCheck: {results['modelCheck']}" in ran.err
    return str(results["modelCheck"])


def forget(harness: PackagingHarness) -> None:
    shutil.rmtree(harness.folder / "cache/environments")


def assert_broken(ran: Ran) -> None:
    assert ran.code == CANT_SERVE, ran.err
    assert "ModuleNotFoundError: No module named 'module_that_is_missing'" in ran.err
    assert "Building with" not in ran.err


def test_it_lies_on_this_machine(conda: PackagingHarness, known: str) -> None:
    ran = package(conda, known, *OUTPUTS)
    assert result(ran, conda.folder) == "passed"
    assert "unchanged dependencies: using the environment in" in ran.err
    assert FETCHING not in ran.err
    put(conda, BROKEN)
    broken = package(conda, known)
    assert_broken(broken)
    assert FETCHING not in broken.err


@pytest.mark.parametrize("known", ["gzip", "zstd", "none"], indirect=True)
def test_it_is_fetched_once(conda: PackagingHarness, known: str) -> None:
    forget(conda)
    put(conda, BROKEN)
    first, second = package(conda, known), package(conda, known)
    assert_broken(first)
    assert_broken(second)
    assert FETCHING in first.err
    assert FETCHING not in second.err


def test_it_is_fetched_each_time_where_none_is_kept(conda: PackagingHarness, known: str) -> None:
    forget(conda)
    conda.environ["PACKAGER_CHECK_CACHE_MAX_BYTES"] = "0"
    for _ in range(2):
        ran = package(conda, known, *OUTPUTS)
        assert result(ran, conda.folder) == "passed"
        assert FETCHING in ran.err
    assert not (conda.folder / "cache/environments").exists()


def test_it_is_too_large_to_be_fetched(conda: PackagingHarness, known: str) -> None:
    forget(conda)
    conda.environ["PACKAGER_CHECK_FETCH_MAX_BYTES"] = "1000000"
    put(conda, BROKEN)
    outcome = result(package(conda, known, *OUTPUTS), conda.folder)
    assert outcome.startswith("skipped: its cached environment has ")
    assert outcome.endswith(" MB in the registry, more than PACKAGER_CHECK_FETCH_MAX_BYTES (1 MB)")
    # What a pod says at its end is what a packaging's status has.
    pod: dict[str, Any] = {"terminated": {"message": (conda.folder / "termination-log").read_text()}}
    status = {"containerStatuses": [{"name": "packager", "state": pod}]}
    assert results_of({"status": status})["modelCheck"] == outcome
    assert_broken(package(conda, known, "-a", "check=always"))


def test_a_packaging_or_the_command_line_leaves_it_out(conda: PackagingHarness, known: str) -> None:
    put(conda, BROKEN)
    for words in (("-a", "check=never"), ("--no-check",), ("-a", "check=always", "--no-check")):
        ran = package(conda, known, *OUTPUTS, *words)
        assert result(ran, conda.folder) == "skipped: disabled (check: never)"
    assert_broken(package(conda, known, "-a", "check=never", "--check"))


def test_a_check_that_is_asked_for_and_can_not_be_made(pip: PackagingHarness, registry: Registry) -> None:
    put(pip, "import module_of_the_base\n")
    to = f"docker://{registry.host}/known/asked-for:1"
    ran = package(pip, to, "-a", "check=always")
    assert ran.code == CANT_SERVE
    assert "the model can't be checked here: its requirements lack the module 'module_of_the_base'" in ran.err
    pip.environ["PACKAGER_CHECK"] = "never"
    ran = package(pip, to, "-a", "check=always")
    assert ran.code == CANT_SERVE
    assert "the packaging has `check: always`, but PACKAGER_CHECK disables it" in ran.err
    assert registry.ask("GET", "/v2/known/asked-for/tags/list")[0] == 404


def test_a_model_that_changes_the_environment_does_so_for_itself_alone(conda: PackagingHarness, known: str) -> None:
    put(conda, IN_INIT + '    import os\n    open(os.__file__, "a").write("# mine")\n    return "matrix"\n')
    changing = package(conda, known)
    assert changing.code == CANT_SERVE
    put(conda, "")
    ran = package(conda, known, *OUTPUTS)
    assert result(ran, conda.folder) == "passed"


def test_two_runs_at_once(conda: PackagingHarness, known: str) -> None:
    forget(conda)
    words = ["build", str(conda.model), "-a", f"dockerfileBaseImage={conda.base}", "--output", known]
    with conda.start(*words) as first, conda.start(*words) as second:
        said = [process.communicate()[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert all("modelCheck: passed" in text for text in said)
    assert len(list((conda.folder / "cache/environments").iterdir())) == 2  # the environment, and the lock
