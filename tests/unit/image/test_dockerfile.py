from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from packager.errors import BuildError, DependenciesError
from packager.image.dockerfile import exec_form, quote, render, token
from packager.image.plan import ImagePlan, Layer
from packager.image.planner import Dependencies, base_conda, make_plan
from packager.models.manifest import ArtifactManifest
from packager.models.reference import Reference
from tests.unit.builders import WINE, base, packaging, prepared, request

ENVS = PurePosixPath("/opt/conda/envs")
GOLDEN = Path(__file__).parents[2] / "golden"


def plans() -> dict[str, ImagePlan]:
    conda_base = base(
        reference=Reference.parse("conda/conda:1"), digest=None, env=(("ODAHU_CONDA_ENV_NAME", "odahu"),), user="conda"
    )
    packages = PurePosixPath("/opt/odahu/packages")
    pip = Dependencies(python="python3", root=Path("work/pip"), prefix=packages, packages=packages, lock="six==1\n")
    awkward = WINE.model_copy(update={"model": WINE.model.model_copy(update={"name": 'a "b" $HOME \\ é'})})
    return {
        "rest": make_plan(request(), prepared()),
        "cli": make_plan(request(packaging(integration="docker-cli")), prepared()),
        "base-conda": make_plan(
            request(packaging({"dockerfileAddCondaInstallation": False}, integration="docker-cli")),
            prepared(base=conda_base, dependencies=base_conda(conda_base, ENVS, "name: odahu\n")),
        ),
        "pip": make_plan(request(packaging({"port": 8080, "workers": 2})), prepared(dependencies=pip)),
        "awkward-name": make_plan(
            request(), prepared(manifest=awkward, base=base(reference=Reference.parse("localhost/b:1")))
        ),
    }


@pytest.mark.parametrize("name", sorted(plans()))
def test_a_plan_renders_to_its_golden_dockerfile(name: str) -> None:
    assert render(plans()[name]) == (GOLDEN / f"{name}.Dockerfile").read_text()


def test_layers_lie_in_the_order_of_how_often_they_change() -> None:
    plan = plans()["rest"]
    assert [layer.name for layer in plan.layers] == ["environment", "runtime", "model"]
    assert [str(layer.root) for layer in plan.layers] == [
        "/opt/conda/envs/wine",
        "/opt/odahu/runtime",
        "/opt/odahu/model",
    ]


def test_the_same_inputs_give_equal_plans() -> None:
    assert plans() == plans()


def test_a_base_without_the_variable_that_names_its_environment_is_refused() -> None:
    with pytest.raises(DependenciesError, match="has no environment variable ODAHU_CONDA_ENV_NAME") as caught:
        base_conda(base(), ENVS, "")
    assert caught.value.exit_code == 20


@pytest.mark.parametrize(
    ("value", "quoted"), [("a b", '"a b"'), ('a"b', r'"a\"b"'), ("$HOME", r'"\$HOME"'), ("\\", r'"\\"'), ("é", '"é"')]
)
def test_a_value_is_quoted(value: str, quoted: str) -> None:
    assert quote(value) == quoted


@pytest.mark.parametrize("value", ["a\nRUN evil", "a\rb", "a\x00", "a\u2028b", "a\x1b[0m"])
def test_control_characters_are_refused_wherever_they_stand(value: str) -> None:
    with pytest.raises(BuildError, match="control character"):
        quote(value)
    with pytest.raises(BuildError, match="control character"):
        exec_form([value])
    with pytest.raises(BuildError, match="Dockerfile"):
        token(value)


@pytest.mark.parametrize("value", ["", "a b", "$A", "a;b", '"', "é"])
def test_an_unquoted_word_holds_only_harmless_characters(value: str) -> None:
    with pytest.raises(BuildError, match="can't be written into a Dockerfile"):
        token(value)


def test_a_hostile_manifest_can_not_get_past_the_filter() -> None:
    model = ArtifactManifest.model_construct(
        binaries=WINE.binaries, model=WINE.model.model_copy(update={"version": "1\nUSER root"})
    )
    with pytest.raises(BuildError, match="control character"):
        render(make_plan(request(), prepared(manifest=model)))


def test_every_layer_is_readable_by_any_user_and_owned_by_root() -> None:
    plan = plans()["rest"]
    assert {(layer.uid, layer.gid) for layer in plan.layers} == {(0, 0)}
    owned = replace(
        plan, steps=tuple(replace(layer, uid=5, gid=6) if isinstance(layer, Layer) else layer for layer in plan.steps)
    )
    assert render(owned).count("COPY --chown=5:6 ") == 3
