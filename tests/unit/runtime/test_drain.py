from __future__ import annotations

import pytest

from packager.runtime.odahu_runtime.drain import LOOK_INTERVAL, QUIET_LOOKS, wait_until_quiet


class FakeClock:
    """A clock on which time passes only in sleep; some of the looks take longer."""

    def __init__(self, slow: dict[int, float]) -> None:
        self.now = 1000.0
        self.looks = 0
        self._slow = slow

    def sleep(self, seconds: float) -> None:
        self.looks += 1
        self.now += self._slow.get(self.looks, seconds)


@pytest.mark.parametrize(
    ("busy", "slow", "looks"),
    [
        pytest.param(set(), {}, QUIET_LOOKS, id="quiet"),
        pytest.param({5}, {}, QUIET_LOOKS + 5, id="a-request-in-look-5"),
        pytest.param(set(), {12: 1.0}, QUIET_LOOKS + 12, id="stalled-in-look-12"),
        pytest.param(set(), {5: 1.0, 9: 0.09}, QUIET_LOOKS + 5, id="stalled-in-look-5-and-slow-in-look-9"),
    ],
)
def test_drain_ends_after_enough_looks_in_a_row_without_a_request(
    busy: set[int], slow: dict[int, float], looks: int
) -> None:
    clock = FakeClock(slow)
    assert wait_until_quiet(lambda: clock.looks not in busy, 23, lambda: clock.now, clock.sleep)
    assert clock.looks == looks


def test_drain_with_endless_requests_ends_at_the_limit() -> None:
    clock = FakeClock({})
    assert not wait_until_quiet(lambda: False, 23, lambda: clock.now, clock.sleep)
    assert 0 <= clock.now - 1023 <= LOOK_INTERVAL
