"""What models and clients can do to the server: the answer, and whether the worker lives, in each case."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.serving import BRISK_SECONDS, is_replaced, load, mapped, resident, wait_until
from tests.integration.test_runtime_processes import KINDS, Homes, Runner, make_runner

if TYPE_CHECKING:
    from tests.integration.test_runtime_processes import Service

MEGABYTE = 1024 * 1024
LATEST = [kind for kind in KINDS if kind.server == "granian"][-1:]
SERVERS = [*[kind for kind in KINDS if kind.server == "gunicorn"][:1], *LATEST]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    return Homes(tmp_path_factory.mktemp("images"), {})


runner = pytest.fixture(params=SERVERS, ids=lambda kind: f"{kind.server}-{kind.version}")(make_runner)
fast = pytest.fixture(params=LATEST, ids=lambda kind: f"{kind.server}-{kind.version}")(make_runner)


def pid_of(service: Service) -> int:
    [[pid]] = service.invoke("pid", 0).payload["prediction"]
    return int(pid)


def is_alive(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def ask_in_vain(service: Service, *row: object) -> str:
    """The connection ends without an answer."""
    with pytest.raises((OSError, http.client.HTTPException)) as caught:
        service.invoke(*row)
    return repr(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("fail", "no"), "ValueError: no"),
        (("leave", 3), "SystemExit: 3"),
        (("give_alone", None), "not a pair"),
        (("give_alone", [1, 2, 3]), "not a pair"),
        (("eat", "much"), "TypeError"),
    ],
)
def test_failing_prediction_is_a_500_and_the_worker_survives(
    runner: Runner, row: tuple[str, object], message: str
) -> None:
    with runner.serve("unruly") as service:
        before = pid_of(service)
        answer = service.invoke(*row)
        assert (answer.status, list(answer.payload)) == (500, ["message"])
        assert message in answer.payload["message"]
        assert pid_of(service) == before
        assert service.stop()[0] == 0


def test_results_of_any_shape_are_returned_unchanged(runner: Runner) -> None:
    """A result that is not a table is returned unchanged, by both interfaces."""
    with runner.serve("unruly") as service:
        before = pid_of(service)
        for shape in (7, None, [], [[1], [2, 3]], [[1], [2], [3]], "text", [[[1]]], {"a": [1]}):
            answer = service.invoke("give", shape)
            assert (answer.status, answer.payload) == (200, {"prediction": shape, "columns": ["given"]})
            # The protocol has tensors only, so a shape that isn't one may be refused; the worker goes on.
            document = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 2], "data": ["give", "text"]}]}
            assert service.ask("POST", "/v2/models/unruly/infer", document).status == 200
        assert pid_of(service) == before


def test_output_of_the_model_is_not_in_the_response(runner: Runner) -> None:
    with runner.serve("unruly") as service:
        before = pid_of(service)
        assert service.invoke("say", MEGABYTE).payload == {"prediction": [[before]], "columns": ["pid"]}
        assert "o" * MEGABYTE in service.log
        assert "below Python" in service.log
        assert pid_of(service) == before


@pytest.mark.parametrize("how", ["ends", "comes back"])
def test_forking_model_answers_once_and_leaves_no_process(runner: Runner, how: str) -> None:
    with runner.serve("unruly", "--threads", "2") as service:
        before = pid_of(service)
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        for _ in range(2):
            connection.request("POST", "/api/model/invoke", b'{"data": [["fork", "%s"]]}' % how.encode())
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, text
            assert f'"prediction":[[{before},' in text.replace(" ", "")
            child = int(text.partition("]]")[0].rpartition(",")[2])
            wait_until(lambda child=child: not is_alive(child), "the child lives")  # type: ignore[misc]
        connection.request("POST", "/api/model/invoke", b'{"data": [["pid", 0]]}')  # the connection is in step
        assert str(before) in connection.getresponse().read().decode()
        connection.close()
        assert service.stop()[0] == 0


@pytest.mark.parametrize("row", [("drop_dead", 0), ("drop_dead", 3), ("crash", 0)])
def test_worker_is_replaced_when_the_model_ends_its_process(runner: Runner, row: tuple[str, object]) -> None:
    with runner.serve("unruly") as service:
        before = pid_of(service)
        ask_in_vain(service, *row)
        after = pid_of(service)  # the connection waits for the new one
        assert after != before
        assert not is_alive(before)
        assert service.stop()[0] == 0


def test_threads_of_the_model_do_not_delay_the_stop(runner: Runner) -> None:
    with runner.serve("unruly") as service:
        before = pid_of(service)
        for _ in range(5):
            answer = service.invoke("leak_threads", 40)
            assert answer.status == 200
        [[pid, threads]] = answer.payload["prediction"]
        assert pid == before
        assert threads >= 200
        code, seconds = service.stop()
        assert code == 0
        assert seconds < 15  # and not the 23 that requests get to finish
        assert not is_alive(before)


def test_memory_error_is_a_500_and_the_worker_survives(runner: Runner) -> None:
    with runner.serve("unruly") as service:
        before = pid_of(service)
        most = mapped(before) + 400 * MEGABYTE  # the core ends the process where a thread of its own finds none
        resource.prlimit(before, resource.RLIMIT_AS, (most, most))
        answer = service.invoke("eat", 1000)
        assert answer.status == 500
        assert "MemoryError" in answer.payload["message"]
        assert service.invoke("eat", 1).status == 200
        assert pid_of(service) == before
        assert service.stop()[0] == 0


def test_exhausted_memory_is_an_error_or_a_new_worker(runner: Runner) -> None:
    with runner.serve("unruly", "--timeout", "20") as service:
        before = pid_of(service)
        most = mapped(before) + 150 * MEGABYTE
        resource.prlimit(before, resource.RLIMIT_AS, (most, most))
        try:
            answer = service.invoke("hoard", 1000)
        except (OSError, http.client.HTTPException):  # the core ends the process where it finds none
            wait_until(lambda: not is_alive(before), "it still lives")
        else:
            assert answer.status == 500

        def answers() -> bool:
            try:
                return service.invoke("eat", 1).status == 200
            except (OSError, http.client.HTTPException):  # likewise, a request later
                return False

        wait_until(answers, "the memory is not let go of")
        assert service.stop()[0] == 0


def test_worker_with_a_hanging_model_answers_and_is_replaced(runner: Runner) -> None:
    with (
        runner.serve("unruly", "--threads", "2", "--timeout", "5") as service,
        ThreadPoolExecutor(4) as pool,
    ):
        before = pid_of(service)
        hung = [pool.submit(service.invoke, "hold", str(runner.folder / "never")) for _ in range(4)]
        wait_until(lambda: service.log.count("the model holds") == 2, "the model has not both")
        assert service.ask("GET", "/healthcheck").status == 200
        statuses = {future.result().status for future in hung}
        assert 504 in statuses
        assert statuses <= {503, 504}
        service.wait_for("this worker is replaced")
        wait_until(lambda: is_replaced(service, before), "the worker is not replaced")
        assert service.stop()[0] == 0


def test_one_request_beyond_the_timeout_is_a_504_and_the_worker_stays(runner: Runner) -> None:
    with (
        runner.serve("unruly", "--threads", "2", "--timeout", "5") as service,
        ThreadPoolExecutor(1) as pool,
    ):
        before = pid_of(service)
        slow = pool.submit(service.invoke, "hold", str(runner.folder / "go on"))
        service.wait_for("the model holds")
        assert pid_of(service) == before
        answer = slow.result()
        (runner.folder / "go on").touch()  # within the time that a thread which is late gets to come back
        assert (answer.status, answer.payload) == (504, {"message": "The model did not answer within 5 seconds"})
        assert pid_of(service) == before
        assert "this worker is replaced" not in service.log


def test_worker_whose_model_blocks_the_interpreter_is_replaced(runner: Runner) -> None:
    with runner.serve("unruly", "--timeout", "1") as service:
        before = pid_of(service)
        ask_in_vain(service, "seize", 0)
        assert pid_of(service) != before
        assert not is_alive(before)


def test_killed_worker_loses_only_its_own_requests(runner: Runner) -> None:
    with runner.serve("unruly", "--workers", "2") as service:
        wait_until(lambda: service.log.count("serves the model") == 2, service.log)
        with load(service, 8, ["hang", 0.02], keep=lambda _: True) as tallies:
            wait_until(lambda: all(len(tally.answers) > 5 for tally in tallies), "no load")
            victim = tallies[0].answers[-1][1]["prediction"][0][0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: service.log.count("serves the model") == 3, service.log)
            seen = [len(tally.answers) for tally in tallies]
            wait_until(
                lambda: all(len(tally.answers) > before + 5 for tally, before in zip(tallies, seen, strict=True)),
                "they are not answered again",
            )
        assert {status for tally in tallies for status, _ in tally.answers} == {200}
        assert any(tally.lost for tally in tallies)
        for tally in tallies:
            assert len(tally.lost) <= 1
            assert {loss.whose for loss in tally.lost} <= {victim, None}
            assert not tally.refused


def test_sigterm_under_load_loses_no_request_that_was_taken(runner: Runner) -> None:
    with (
        runner.serve("unruly", "--workers", "2") as service,
        load(service, 12, ["hang", 0.02], keep=lambda number: number % 3 > 0) as tallies,
    ):
        wait_until(lambda: all(len(tally.answers) > 5 for tally in tallies), "no load")
        assert service.stop()[0] == 0
        wait_until(lambda: all(tally.refused for tally in tallies), "a worker still listens")
    assert {status for tally in tallies for status, _ in tally.answers} == {200}
    assert [tally.lost_in_time for tally in tallies if tally.lost_in_time] == []
    assert min(min(tally.idle) for tally in tallies) < BRISK_SECONDS


def test_ten_thousand_slow_clients_block_no_other_request(fast: Runner) -> None:
    count = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(count, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 500, hard))
    part_of_head = b"POST /api/model/invoke HTTP/1.1\r\nHost: x\r\nContent-"
    part_of_body = b"POST /api/model/invoke HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        service = stack.enter_context(fast.serve("unruly", "--timeout", "20"))
        before = pid_of(service)
        memory = resident(before)
        clients = []
        for number in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=60))
            client.sendall(part_of_body if number % 2 else part_of_head)
            clients.append(client)
        for _ in range(50):
            assert pid_of(service) == before
            assert service.ask("GET", "/v2/health/ready").status == 200
        assert (resident(before) - memory) / count < 64 * 1024
        for client in clients[1::2]:
            assert client.recv(12) == b"HTTP/1.1 408"
        assert pid_of(service) == before
        assert service.stop()[0] == 0


@pytest.mark.parametrize("rest", [b"Content-Length: 99\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n9\r\n{"])
def test_aborted_requests_are_not_kept_in_memory(fast: Runner, rest: bytes) -> None:
    with fast.serve("unruly") as service:
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", service.port), timeout=60) as client:
                client.sendall(b"POST /api/model/invoke HTTP/1.1\r\nHost: x\r\n" + rest)
        wait_until(lambda: service.log.count("POST /api/model/invoke 400") == 200, "not all are answered")
        assert service.invoke("count", "Exchange").payload["prediction"][0][0] < 10


def test_more_clients_than_file_descriptors_wait(runner: Runner) -> None:
    part = b"POST /api/model/invoke HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
    few = runner.folder / "python"
    few.write_text(f'#!/bin/sh\nulimit -n 100 && exec {runner.python} "$@"\n')
    few.chmod(0o755)
    with (
        runner._replace(python=str(few)).serve("unruly", "--timeout", "2") as service,
        ExitStack() as stack,
    ):
        before = pid_of(service)
        for _ in range(150):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=60))
            client.sendall(part)
        assert pid_of(service) == before
        assert service.stop()[0] == 0
