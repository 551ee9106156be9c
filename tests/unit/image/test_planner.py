from __future__ import annotations

from pathlib import PurePosixPath

from packager.image.plan import ImagePlan, Layer
from packager.image.planner import LARGE_FILE, MAX_MODEL_LAYERS, MODEL_FOLDER, group_large_files, make_plan
from tests.unit.builders import prepared, request


def shards(count: int) -> dict[str, int]:
    return {f"model/shard-{number:05}.bin": LARGE_FILE + number for number in range(count)}


def test_large_files_are_alone_in_the_order_of_their_names() -> None:
    sizes = {"z": LARGE_FILE, "a": 5 * LARGE_FILE, "small": LARGE_FILE - 1}
    assert group_large_files(sizes) == [["a"], ["z"]]
    assert group_large_files({"small": 1}) == []


def test_many_files_fit_into_the_layers_that_an_image_can_have() -> None:
    sizes = shards(500)
    groups = group_large_files(sizes)
    assert len(groups) <= MAX_MODEL_LAYERS
    assert sorted(path for group in groups for path in group) == sorted(sizes)
    assert max(len(group) for group in groups) < 4 * 500 / MAX_MODEL_LAYERS
    assert group_large_files(dict(reversed(sizes.items()))) == groups


def test_one_more_of_many_files_changes_one_layer() -> None:
    before, after = shards(200), {**shards(200), "model/extra.bin": LARGE_FILE}
    changed = [group for group in group_large_files(after) if group not in group_large_files(before)]
    assert len(changed) == 1
    assert "model/extra.bin" in changed[0]


def model_layers(plan: ImagePlan) -> list[Layer]:
    return [layer for layer in plan.layers if layer.name.startswith("model")]


def test_the_plan_has_large_files_below_the_rest() -> None:
    sizes = {"wine/model.bin": LARGE_FILE, "wine/entrypoint.py": 10, "wine/second.bin": LARGE_FILE}
    first, second, rest = model_layers(make_plan(request(), prepared(sizes=sizes)))
    assert [content.destination for layer in (first, second) for content in layer.contents] == [
        MODEL_FOLDER / "wine/model.bin",
        MODEL_FOLDER / "wine/second.bin",
    ]
    assert first.root == MODEL_FOLDER / "wine"
    assert rest.contents[0].exclude == {"wine/model.bin", "wine/second.bin"}
    assert (first.name, rest.name) == ("model-1", "model")


def test_a_small_model_is_one_layer() -> None:
    (layer,) = model_layers(make_plan(request(), prepared(sizes={"wine/model.bin": 1000})))
    assert layer.root == PurePosixPath(MODEL_FOLDER)
