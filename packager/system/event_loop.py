"""Awaiting the futures that threads of other languages complete, obstore's and rattler's, where a stop may end it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from typing_extensions import TypeVarTuple, Unpack

    _Ts = TypeVarTuple("_Ts")

_END_SECONDS = 5.0  # that what is called off may take to end


class FutureLoop(asyncio.SelectorEventLoop):
    """An event loop that takes no offence at results which come when it is closed.

    A stop may come between a library's start of its work and our waiting for it: that future is known to no task, so
    nobody calls the work off. Its thread then reports to a closed loop, and pyo3 prints the refusal as a traceback.
    """

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[_Ts]], object], *args: Unpack[_Ts], context: Context | None = None
    ) -> asyncio.Handle:
        """Let the loop call something; nothing is called any more once it is closed."""
        try:
            return super().call_soon_threadsafe(callback, *args, context=context)
        except RuntimeError:
            if not self.is_closed():
                raise
            handle = asyncio.Handle(callback, args, self, context)
            handle.cancel()
            return handle

    def end(self) -> None:
        """Call off what is still under way, wait until it has ended, and close."""
        try:
            if tasks := asyncio.all_tasks(self):
                for task in tasks:
                    task.cancel()
                ended, _ = self.run_until_complete(asyncio.wait(tasks, timeout=_END_SECONDS))
                for task in ended:
                    if not task.cancelled():
                        task.exception()  # whoever waited for it has it already, or has ended
        finally:
            self.close()


@contextmanager
def future_loop() -> Iterator[FutureLoop]:
    """Give a loop for the block."""
    loop = FutureLoop()
    try:
        yield loop
    finally:
        loop.end()
