"""A model that can't start, and has a thread that would keep its process alive."""

import threading
import time


def init() -> str:
    threading.Thread(target=time.sleep, args=(600,)).start()
    return read_weights("weights.bin")


def read_weights(name: str) -> str:
    raise FileNotFoundError(f"the weights are not in {name}")
