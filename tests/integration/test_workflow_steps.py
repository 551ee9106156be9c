"""The steps for Argo and Tekton, by their own models and schemas."""

from __future__ import annotations

import json
import re
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hera.workflows.models import WorkflowTemplate
from kubernetes_validate.utils import all_versions

from tests.integration.packaging import ROOT

TEKTON = "github.com/tektoncd/pipeline@v1.0.0"
ARGO_FILE, TEKTON_FILE = ROOT / "manifests/argo/workflow-template.yaml", ROOT / "manifests/tekton/task.yaml"


def by_engine(engine: str) -> dict[str, Any]:
    """The container of an engine's step, as the Job has it."""
    from packager.kube.job import security  # noqa: PLC0415

    contexts = security("oci" if engine == "oci" else "kaniko")
    return {**contexts.pod, **contexts.container}


def test_argo_reads_its_template_and_loses_nothing() -> None:
    body = yaml.safe_load(ARGO_FILE.read_text())
    read = WorkflowTemplate.model_validate(body)
    assert json.loads(read.model_dump_json(by_alias=True, exclude_none=True)) == body
    assert {template.name for template in read.spec.templates or ()} == {"kaniko", "oci"}
    for template in body["spec"]["templates"]:
        assert {**template["securityContext"], **template["container"]["securityContext"]} == by_engine(
            template["name"]
        )


def test_the_results_are_outputs_of_both() -> None:
    for template in yaml.safe_load(ARGO_FILE.read_text())["spec"]["templates"]:
        folder = template["container"]["args"][-1]
        paths = {each["name"]: each["valueFrom"]["path"] for each in template["outputs"]["parameters"]}
        assert paths == {name: f"{folder}/{name}" for name in ("image", "imageDigest", "modelCheck")}
    for task in yaml.safe_load_all(TEKTON_FILE.read_text()):
        assert [each["name"] for each in task["spec"]["results"]] == ["image", "imageDigest", "modelCheck"]
        assert task["spec"]["steps"][0]["args"][-2:] == ["--results-dir", "/tekton/results"]


def tekton_schema() -> dict[str, Any]:
    """The schema that Tekton publishes of its types, with Kubernetes' own where it refers to them, nothing unknown."""
    done = subprocess.run(["go", "mod", "download", "-json", TEKTON], check=True, capture_output=True, text=True)
    swagger = (Path(json.loads(done.stdout)["Dir"]) / "pkg/apis/pipeline/v1/swagger.json").read_text()
    definitions = json.loads(swagger)["definitions"]
    for each in definitions.values():
        if each.get("properties"):
            each.setdefault("additionalProperties", False)
    folder = resources.files(kubernetes_validate).joinpath(f"kubernetes-json-schema/v{all_versions()[-1]}-local-strict")
    kubernetes = json.loads(folder.joinpath("_definitions.json").read_text().replace("#/$defs/", "#/definitions/"))
    for name in {*re.findall(r"#/definitions/([^\"]+)", swagger)} - definitions.keys():
        word = name.rpartition(".")[2]
        places = (f"io.k8s.api.core.v1.{word}", f"io.k8s.apimachinery.pkg.apis.meta.v1.{word}")
        definitions[name] = next((kubernetes["$defs"][place] for place in places if place in kubernetes["$defs"]), {})
    definitions["v1.ParamValue"] = {}  # text, a list or a mapping
    return {"$ref": "#/definitions/v1.Task", "definitions": {**kubernetes["$defs"], **definitions}}


@pytest.mark.needs("go")
def test_tektons_schema_allows_the_tasks_and_nothing_unknown() -> None:
    validator = jsonschema.Draft202012Validator(tekton_schema())
    tasks = list(yaml.safe_load_all(TEKTON_FILE.read_text()))
    assert [task["metadata"]["name"] for task in tasks] == ["packager-kaniko", "packager-oci"]
    for task in tasks:
        assert [error.message for error in validator.iter_errors(task)] == []
        (step,) = task["spec"]["steps"]
        expected = by_engine(task["metadata"]["name"].partition("-")[2])
        own = {key: each for key, each in expected.items() if not key.startswith("fsGroup")}
        assert step["securityContext"] == own
    wrong = json.loads(json.dumps(tasks[0]))
    wrong["spec"]["steps"][0]["resources"] = wrong["spec"]["steps"][0].pop("computeResources")  # as in v1beta1
    wrong["spec"]["volumes"][1]["emptyDir"]["size"] = "1Gi"
    assert len(list(validator.iter_errors(wrong))) == 2
