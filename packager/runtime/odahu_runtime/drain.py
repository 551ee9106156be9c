"""The end of a worker process: it goes on answering until no request has arrived for a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Callable

LOOK_INTERVAL = 0.025  # seconds between two looks for a request
QUIET_LOOKS = 12  # looks in a row without a request, that is 0.3 seconds: a client that asks again does so sooner
STALL_FACTOR = 4  # a look that takes so many times its length shows that the process could not run


def wait_until_quiet(
    is_quiet: Callable[[], bool],
    limit: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until `is_quiet` has been true for a while, or `limit` seconds are over; return whether it was quiet.

    Looks are counted, not seconds: a process that could not run has not seen the requests that arrived meanwhile.
    """
    end = clock() + limit
    quiet = 0
    while quiet < QUIET_LOOKS:
        began = clock()
        if began >= end:
            return False
        sleep(LOOK_INTERVAL)
        could_run = clock() - began <= LOOK_INTERVAL * STALL_FACTOR
        quiet = quiet + 1 if is_quiet() and could_run else 0
    return True
