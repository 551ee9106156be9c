"""The interface of granian's compiled core that the runtime uses, which has no promise of stability.

A version of granian that changes it fails here by name. Whether requests are still answered, and how the worker ends,
is tested in test_serving_faults.py and test_runtime_processes.py.
"""

from __future__ import annotations

import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from packager.environment.http_server import fetch_granian
from packager.logs.progress import SilentReporter
from packager.runtime.odahu_runtime import isolation
from packager.settings import Settings
from packager.system.process import run_command
from tests.integration.test_environment import CACHE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The core that images of this Python get."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    work: Path = tmp_path_factory.mktemp("granian")
    server = fetch_granian(
        version,
        workspace=work,
        settings=Settings(cache_dir=CACHE),
        run=run_command,
        reporter=SilentReporter(),
        environ=os.environ,
    )
    return isolation.load_granian(str(server.vendor))


def test_worker_takes_the_parameters_that_we_set_and_has_the_defaults_that_we_rely_on(core: Any) -> None:
    parameters = inspect.signature(core.RSGIWorker).parameters
    assert list(parameters)[:3] == ["worker_id", "sock", "ipc"]
    assert {"blocking_threads", "py_threads_idle_timeout", "backpressure", "http1_opts"} <= set(parameters)
    defaults = {"threads": 1, "py_threads": 1, "http_mode": "1", "websockets_enabled": False, "ssl_enabled": False}
    assert {name: parameters[name].default for name in defaults} == defaults
    required = [name for name, each in parameters.items() if each.default is inspect.Parameter.empty]
    assert required == ["worker_id", "sock", "ipc"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("SocketHolder", ["fd", "uds", "backlog"]),
        ("WorkerSignal", []),
        ("CallbackScheduler", ["event_loop", "cb", "aio_task", "aio_tenter", "aio_texit"]),
    ],
)
def test_class_takes_the_parameters_that_we_pass(core: Any, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(core, name)).parameters) == parameters


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("RSGIWorker", {"serve_str"}),
        ("WorkerSignal", {"add_cb", "set"}),
        ("CallbackScheduler", {"_schedule_fn"}),
        ("RSGIHTTPProtocol", {"__call__", "__aiter__", "response_bytes"}),
        ("RSGIHTTPScope", {"method", "path", "client", "headers"}),
        ("RSGIHeaders", {"items"}),
    ],
)
def test_class_has_the_members_that_we_use(core: Any, name: str, members: set[str]) -> None:
    assert members <= set(dir(getattr(core, name)))
