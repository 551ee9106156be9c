"""Processes, as a table that the tests write."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from packager.system import process_tree
from packager.system.process_tree import Entry, Family

if TYPE_CHECKING:
    import pytest


def test_a_process_that_was_started_between_two_looks_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parent ended before it was looked at, and it began after /proc was listed."""
    late = Entry(pid=4_000_001, state="S", parent=1, group=4_000_000, session=4_000_000)
    tables: list[dict[int, Entry]] = [{}, {late.pid: late}, {}, {}]
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(process_tree, "processes", lambda: tables.pop(0) if tables else {})
    monkeypatch.setattr(process_tree, "_signal", lambda pid, number: told.append((pid, number)))
    Family(4_000_000, strangers=frozenset()).end(1.0, lambda: None)
    assert told == [(late.pid, signal.SIGTERM)]
