from __future__ import annotations

import json
from queue import SimpleQueue
from typing import Any

import numpy as np
import pandas as pd
import pytest

from packager.models.integrations import INTEGRATION_TYPES
from packager.runtime.odahu_runtime.batching import BatchLimits, collect
from packager.runtime.odahu_runtime.http import Request
from packager.runtime.odahu_runtime.prediction import Job
from packager.runtime.odahu_runtime.router import Router
from tests.unit.runtime.test_wsgi import INVOKE, make_model

INFER = "/v2/models/model/infer"


class Model:
    """Doubles; counts its calls; fails where a 13 is among the cells."""

    def __init__(self, shape: Any = list) -> None:
        self.calls: list[int] = []
        self.shape = shape

    def predict(self, matrix: Any, provided_columns_names: Any = None) -> Any:
        self.calls.append(len(matrix))
        if any(13 in row for row in matrix):
            raise ValueError("thirteen")
        return self.shape([[cell * 2 for cell in row] for row in matrix]), provided_columns_names or ["p"]


def ask(model: Model, *documents: Any, rows: int = 100, path: str = INVOKE) -> list[tuple[int, Any]]:
    made = make_model(predict_on_matrix=model.predict)
    surface = Router(made, {}, lambda _: None, batches=BatchLimits(rows, 0))
    requests = []
    for document in documents:
        request = Request("POST", path, "-", lambda _: None)
        job = surface.begin(request)
        assert isinstance(job, Job)
        assert job.batchable
        requests.append((request, job, json.dumps(document).encode()))
    return [(reply.status, json.loads(reply.body)) for reply in surface.predict_batch(requests)]


def data(*cells: float, **more: Any) -> dict[str, Any]:
    return {"data": [[cell] for cell in cells], **more}


@pytest.mark.parametrize("shape", [list, tuple, np.array, lambda rows: pd.DataFrame(rows, index=[9, 9, 0])])
def test_requests_share_a_call_and_get_their_own_rows(shape: Any) -> None:
    model = Model(shape)
    answers = ask(model, data(1), data(2, 3))
    assert [answer["prediction"] for _, answer in answers] == [[[2]], [[4], [6]]]
    assert model.calls == [3]


def test_invalid_request_in_a_batch_fails_alone() -> None:
    model = Model()
    answers = ask(model, data(1), data(13), {"data": 5}, data(2))
    assert [status for status, _ in answers] == [200, 500, 400, 200]
    assert answers[3][1]["prediction"] == [[4]]
    assert model.calls == [3, 1, 1, 1]


def test_batch_with_a_wrong_number_of_results_is_predicted_one_by_one() -> None:
    model = Model(lambda rows: rows[:1])
    assert [answer["prediction"] for _, answer in ask(model, data(1), data(2))] == [[[2]], [[4]]]


class Later:
    """A lazy table, whose length is unknown, as dask's."""

    def __init__(self, rows: list[Any], length: Any) -> None:
        self.rows = rows
        self.shape = (length, 1)

    def toarray(self) -> list[Any]:
        return self.rows


@pytest.mark.parametrize("length", [None, float("nan"), 2])  # 2 is right, but a sparse matrix can't be cut
def test_batch_result_that_can_not_be_sliced_is_predicted_one_by_one(length: Any) -> None:
    model = Model(lambda rows: Later(rows, length))
    assert [answer["prediction"] for _, answer in ask(model, data(1), data(2))] == [[[2]], [[4]]]
    assert model.calls == [2, 1, 1]


def test_only_requests_of_the_same_shape_share_a_call() -> None:
    model = Model()
    wide = {"data": [[1, 2]]}
    answers = ask(
        model, data(1, columns=["a"]), data(2, columns=["b"]), data(3, columns=["a"]), data(4), wide, {"data": [{}]}
    )
    assert [answer.get("columns") for _, answer in answers] == [["a"], ["b"], ["a"], ["p"], ["p"], None]
    assert sorted(model.calls) == [1, 1, 1, 2]


def test_shared_call_has_at_most_the_allowed_rows() -> None:
    model = Model()
    answers = ask(model, *(data(number) for number in range(7)), data(7, 8, 9, 10), rows=3)
    assert [answer["prediction"][0] for _, answer in answers] == [[number * 2] for number in range(8)]
    assert sorted(model.calls) == [1, 3, 3, 4]


def test_tensors_share_a_call_too() -> None:
    model = Model()
    requests = [
        {"id": str(number), "inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [number]}]}
        for number in range(2)
    ]
    answers = ask(model, *requests, path=INFER)
    assert [(answer["id"], answer["outputs"][0]["data"]) for _, answer in answers] == [("0", [0]), ("1", [2])]
    assert model.calls == [2]


def test_requests_share_no_call_by_default() -> None:
    surface = Router(make_model(predict_on_matrix=Model().predict), {}, lambda _: None)
    job = surface.begin(Request("POST", INVOKE, "-", lambda _: None))
    assert isinstance(job, Job)
    assert not job.batchable


def test_collect_takes_queued_items_up_to_the_limit() -> None:
    queue: SimpleQueue[Any] = SimpleQueue()
    for number in range(5):
        queue.put(number)
    assert collect(queue, "first", BatchLimits(3, 0)) == ["first", 0, 1]
    assert collect(queue, "first", BatchLimits(9, 0.001)) == ["first", 2, 3, 4]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ()),
        ({"batchMaxLatencyMs": 5}, ()),
        ({"batchMaxSize": 64, "batchMaxLatencyMs": 5}, ("--batch-max-size", "64", "--batch-max-latency-ms", "5")),
    ],
)
def test_the_arguments_reach_the_command(given: dict[str, int], words: tuple[str, ...]) -> None:
    rest = INTEGRATION_TYPES["docker-rest"]
    assert rest.command(rest.arguments.model_validate(given)).options[10:] == words
