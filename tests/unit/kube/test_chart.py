"""The generated files of manifests/ are up to date; `make manifests` writes them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from packager import __version__
from packager.kube.chart import ChartValues, chart_files, values_schema, workflow_files
from packager.kube.job_settings import JobSettings

MANIFESTS = Path(__file__).parents[3] / "manifests"
CHART = MANIFESTS / "odahu-flow-packagers"


@pytest.mark.parametrize("name", chart_files())
def test_generated_files_of_the_chart_are_up_to_date(name: str) -> None:
    assert (CHART / name).read_text() == chart_files()[name]


@pytest.mark.parametrize("name", workflow_files())
def test_generated_workflow_steps_are_up_to_date(name: str) -> None:
    assert (MANIFESTS / name).read_text() == workflow_files()[name]


def test_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_values_yaml_contains_every_default() -> None:
    values = yaml.safe_load(chart_files()["values.yaml"])
    read = ChartValues.model_validate(values)
    assert read == ChartValues()
    assert {*values["jobs"], "image", "serviceAccountName"} == {
        field.alias for field in JobSettings.model_fields.values()
    } | {"engine", "image", "resources", "tolerations", "env", "labels", "annotations"}


def test_schema_accepts_the_defaults_and_refuses_unknown_keys() -> None:
    validator = jsonschema.Draft202012Validator(values_schema())
    values = yaml.safe_load(chart_files()["values.yaml"])
    assert list(validator.iter_errors(values)) == []
    for wrong in ({"imagge": "x"}, {"jobs": {"engine": "docker"}}, {"jobs": {"image": "x"}}, {"apiUrl": "host"}):
        assert list(validator.iter_errors({**values, **wrong})), json.dumps(wrong)
