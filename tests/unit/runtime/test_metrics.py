from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from packager.runtime.odahu_runtime import log
from packager.runtime.odahu_runtime.http import Request
from packager.runtime.odahu_runtime.metrics import Metrics, SharedMetrics
from tests.unit.runtime.test_wsgi import INVOKE, Client, add_up, make_model

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "request-id": "r-7"}


def values(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.text("w", "1").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{([a-z]+="[^"]*",?)*\})? [0-9.e+-]+', line) for line in lines)
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_worker_reports_the_sum_and_its_successor_continues() -> None:
    shared = SharedMetrics(2)
    first, second = shared.acquire(), shared.acquire()
    for metrics, times in ((first, 3), (second, 4)):
        metrics.name_routes({INVOKE: "invoke"})
        for _ in range(times):
            metrics.answered(INVOKE, 200, 0.002)
        metrics.in_flight(times)
    name = 'odahu_requests_total{route="invoke",status="200"}'
    assert values(first)[name] == values(second)[name] == 7
    assert values(first)["odahu_requests_in_flight"] == 7
    shared.release(first)
    assert values(second)["odahu_requests_in_flight"] == 4
    third = shared.acquire()
    third.answered(INVOKE, 200, 0.002)
    assert values(second)['odahu_requests_total{route="other",status="200"}'] == 1
    assert values(third)[name] == 7
    assert shared.acquire().slot == -1


def test_histogram_buckets_are_cumulative() -> None:
    metrics = Metrics.alone()
    metrics.name_routes({INVOKE: "invoke"})
    for seconds in (0.001, 0.003, 0.2, 99):
        metrics.answered(INVOKE, 200, seconds)
    found = values(metrics)
    counts = {
        bound: found[f'odahu_request_seconds_bucket{{route="invoke",le="{bound}"}}']
        for bound in ("0.001", "0.0025", "0.005", "0.25", "60", "+Inf")
    }
    assert counts == {"0.001": 1, "0.0025": 1, "0.005": 2, "0.25": 3, "60": 3, "+Inf": 4}
    assert found['odahu_request_seconds_sum{route="invoke"}'] == pytest.approx(99.204)
    assert found['odahu_request_seconds_count{route="invoke"}'] == 4


def test_metrics_count_requests_rows_and_errors() -> None:
    client = Client(make_model(predict_on_matrix=lambda m, **_: add_up(m) if m[0][0] else 1 / 0))
    client.invoke({"data": [[1], [2], [3]]})
    client.invoke({"data": [[0]]})
    client.invoke({"data": 1})
    client.ask("GET", "/nowhere/1")
    client.app.metrics.answered("/api/model/invoke", 406, 0.1)
    found = values(client.app.metrics)
    assert found['odahu_requests_total{route="invoke",status="500"}'] == 1
    assert found['odahu_requests_total{route="other",status="404"}'] == 1
    assert found['odahu_requests_total{route="invoke",status="406"}'] == 1
    kinds = {kind: found[f'odahu_errors_total{{kind="{kind}"}}'] for kind in ("client", "model", "timeout")}
    assert kinds == {"client": 3, "model": 1, "timeout": 0}
    assert found["odahu_request_rows_sum"] == 4
    assert found['odahu_request_rows_bucket{le="2"}'] == 1
    assert b'odahu_model_info{name="wine",version="1.0"} 1' in client.raw("GET", "/metrics")


@pytest.fixture
def json_log() -> Iterator[None]:
    log.use_json(use=True)
    yield
    log.use_json(use=False)


def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    written: list[str] = []

    def write(_: int, data: bytes) -> int:
        written.append(data.decode())
        return len(data)

    monkeypatch.setattr("os.write", write)
    return written


def test_access_lines_name_the_request_and_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    written = lines(monkeypatch)
    log.access(Request("POST", "/a\n", "1.2.3.4", TRACE.get), 200, 5, 0.0012)
    log.access(Request("POST", "/b", "1.2.3.4", {"traceparent": "00-x-y-01"}.get), 200, 5, 0.0012)
    trace = "trace=0af7651916cd43dd8448eb211c80319c span=b7ad6b7169203331"
    assert written[0].endswith(f"ACCESS 1.2.3.4 POST /a\\x0a 200 5 1.2ms request-id=r-7 {trace}\n")
    assert written[1].endswith("ACCESS 1.2.3.4 POST /b 200 5 1.2ms\n")


@pytest.mark.usefixtures("json_log")
def test_the_log_can_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    written = lines(monkeypatch)
    log.access(Request("POST", "/a", "1.2.3.4", TRACE.get), 200, 5, 0.0012)
    log.write("ERROR", "two\nlines")
    first, second = map(json.loads, written)
    assert (first["path"], first["status"], first["milliseconds"], first["request_id"]) == ("/a", 200, 1.2, "r-7")
    assert first["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert (second["level"], second["message"]) == ("ERROR", "two\nlines")


def test_pending_lines_and_counts_are_written_with_the_last_response() -> None:
    shared = SharedMetrics(2)
    one, other = shared.acquire(), shared.acquire()
    one.name_routes({INVOKE: "invoke"})
    one.asked(3)
    one.called(3)
    one.answered(INVOKE, 200, 0.002, last=False)
    count = 'odahu_requests_total{route="invoke",status="200"}'
    assert count not in values(other)
    assert values(one)[count] == 1
    for _ in range(64):
        one.answered(INVOKE, 200, 0.002, last=False)
    assert values(other)[count] == 65
    assert values(other)["odahu_request_rows_sum"] == 3
    one.answered(INVOKE, 200, 0.002)
    assert values(other)[count] == 66
