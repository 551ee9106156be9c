"""A model that takes the interpreter down with it."""

import os
import signal


def init() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "matrix"
