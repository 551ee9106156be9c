"""A model that takes any rows; a first row of a function below and its argument does harm as it is told."""

import ctypes
import gc
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any, List, Optional, Tuple

hoarded: List[bytearray] = []


def init() -> str:
    return "matrix"


def predict_on_matrix(
    input_matrix: List[List[Any]],
    provided_columns_names: Optional[List[str]] = None,  # noqa: ARG001
) -> Any:
    first = input_matrix[0]
    harm = HARM.get(first[0]) if len(first) == 2 and isinstance(first[0], str) else None
    return harm(first[1]) if harm else (input_matrix, None)


def pid(_: Any) -> Tuple[Any, List[str]]:
    return [[os.getpid()]], ["pid"]


def fail(argument: Any) -> None:
    raise ValueError(argument)


def give(argument: Any) -> Any:
    return argument, ["given"]


def give_alone(argument: Any) -> Any:
    return argument


def say(length: int) -> Any:
    print("o" * length)
    print("e" * length, file=sys.stderr)
    os.write(1, b"below Python\n" * 1000)
    return pid(0)


def fork(how: str) -> Any:
    """The child ends by itself; or it comes back here like its parent, as only a bug can."""
    child = os.fork()
    if child == 0 and how == "ends":
        os._exit(0)
    if child == 0:
        time.sleep(0.2)
        return [["the child's answer"]], ["who"]
    return [[os.getpid(), child]], ["parent", "child"]


def hang(seconds: float) -> Any:
    """Say when it ended by the clock that all processes of the machine share."""
    time.sleep(seconds)
    return [[os.getpid(), time.monotonic()]], ["pid", "end"]


def hold(path: str) -> Any:
    """Come back when there is such a file."""
    sys.stdout.write("the model holds\n")
    sys.stdout.flush()
    until = time.monotonic() + 600
    while not Path(path).exists() and time.monotonic() < until:
        time.sleep(0.02)
    return pid(0)


def seize(_: Any) -> Any:
    """Keep the interpreter's lock, for longer than anyone lives."""
    return re.match("(a+)+$", "a" * 60 + "b"), []


def leave(code: int) -> None:
    sys.exit(code)


def drop_dead(code: int) -> None:
    os._exit(code)


def crash(_: Any) -> None:
    ctypes.string_at(0)


def leak_threads(count: int) -> Any:
    for _ in range(count):
        threading.Thread(target=time.sleep, args=(3600,)).start()
    return [[os.getpid(), threading.active_count()]], ["pid", "threads"]


def eat(megabytes: int) -> Any:
    eaten = [bytearray(b"x" * 1024 * 1024) for _ in range(megabytes)]
    return [[os.getpid(), len(eaten)]], ["pid", "megabytes"]


def hoard(megabytes: int) -> Any:
    hoarded.extend(bytearray(b"x" * 1024 * 1024) for _ in range(megabytes))
    return [[os.getpid(), len(hoarded)]], ["pid", "megabytes"]


def count(name: str) -> Any:
    """Count what there is of a class in this process."""
    gc.collect()
    return [[sum(type(each).__name__ == name for each in gc.get_objects())]], ["number"]


HARM = {
    function.__name__: function
    for function in (
        *(pid, fail, give, give_alone, say, fork, hang, hold, seize),
        *(leave, drop_dead, crash, leak_threads, eat, hoard, count),
    )
}
