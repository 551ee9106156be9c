"""The stop signals in the process that does the work."""

from __future__ import annotations

import signal

import pytest

from packager.errors import Interrupted
from packager.system.signals import ignore_stops, raise_on_stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_stop_raises_and_further_ones_are_ignored(number: signal.Signals) -> None:
    is_clean = False
    raise_on_stop()
    with pytest.raises(Interrupted) as caught:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            is_clean = True
    assert is_clean
    assert caught.value.signal_number == number


def test_stop_after_the_work_is_ignored() -> None:
    raise_on_stop()
    ignore_stops()
    signal.raise_signal(signal.SIGTERM)
