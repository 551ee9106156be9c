"""A model that fails as it is told: the first cell names a function below, the second is its argument."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, List, Optional, Tuple


def init() -> str:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as libraries do
    sys.stdout.write("the model starts\n")
    time.sleep(float(os.environ.get("INIT_SECONDS", "0")))
    return "matrix"


def predict_on_matrix(
    input_matrix: List[List[Any]],
    provided_columns_names: Optional[List[str]] = None,  # noqa: ARG001
) -> Any:
    name, argument = input_matrix[0]
    return globals()[name](argument)


def echo(argument: Any) -> Tuple[Any, List[str]]:
    return [[argument]], ["echo"]


def pid(_: Any) -> Tuple[Any, List[str]]:
    return [[os.getpid()]], ["pid"]


def fail(argument: Any) -> None:
    raise ValueError(argument)


def leave(argument: Any) -> None:
    sys.exit(argument)


def interrupt(argument: Any) -> None:
    raise KeyboardInterrupt(argument)


def misbehave(argument: Any) -> Any:
    return argument


def unknown(_: Any) -> Tuple[Any, List[str]]:
    return [[object()]], ["object"]


def wait(argument: float) -> Tuple[Any, List[str]]:
    """Say when it began and ended by the clock that all processes of the machine share."""
    sys.stdout.write("the model waits\n")
    sys.stdout.flush()
    begin = time.monotonic()
    time.sleep(argument)
    return [[os.getpid(), begin, time.monotonic()]], ["pid", "begin", "end"]


def hold(path: str) -> Any:
    """Come back when there is such a file."""
    sys.stdout.write("the model holds\n")
    sys.stdout.flush()
    until = time.monotonic() + 600
    while not Path(path).exists() and time.monotonic() < until:
        time.sleep(0.02)
    return pid(0)
