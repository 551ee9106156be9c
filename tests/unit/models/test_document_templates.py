from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from packager.models.document_templates import document_templates
from packager.models.documents import KINDS, read_documents
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document

if TYPE_CHECKING:
    from pathlib import Path

OWN = [integration_document(integration_type, "packager:1") for integration_type in INTEGRATION_TYPES.values()]
ODD: dict[str, Any] = {
    "id": "on",
    "spec": {
        "schema": {
            "targets": [{"name": "docker-push", "connectionTypes": [], "required": True, "default": "yes"}],
            "arguments": {
                "properties": [
                    {"name": "a: b", "parameters": [{"name": "default", "value": ["x", {"y": 1}]}]},
                    {"name": "must", "parameters": [{"name": "description", "value": "two\nlines"}]},
                ],
                "required": ["must"],
            },
        }
    },
}


@pytest.mark.parametrize("template", document_templates([*OWN, ODD], OWN), ids=lambda template: template.name)
def test_a_template_reads_as_its_kind(template: Any, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(template.text)
    found = read_documents([tmp_path / "file.yaml"])
    shelves: dict[str, dict[str, Any]] = {
        "ModelPackaging": found.packagings,
        "PackagingIntegration": found.integrations,
        "Connection": found.connections,
    }
    assert {kind: len(shelf) for kind, shelf in shelves.items()} == {kind: int(kind == template.kind) for kind in KINDS}


def test_each_of_an_integrations_arguments_can_be_uncommented() -> None:
    template = document_templates(OWN)[0]
    lines = [re.sub("^  # ", "  ", line) for line in template.text.splitlines()]  # as an editor does it
    spec = yaml.safe_load("\n".join(lines))["spec"]
    defaults = {
        argument["name"]: {word["name"]: word["value"] for word in argument["parameters"]}.get("default")
        for argument in OWN[0]["spec"]["schema"]["arguments"]["properties"]
    }
    assert spec["arguments"] == defaults
    assert [target["name"] for target in spec["targets"]] == ["docker-push", "docker-pull"]


def test_what_must_be_given_is_there_and_odd_words_stay_text() -> None:
    entity = yaml.safe_load(document_templates([ODD])[0].text)
    assert entity["spec"]["integrationName"] == "on"
    assert entity["spec"]["arguments"] == {"must": None}
    assert entity["spec"]["targets"] == [{"name": "docker-push", "connectionName": "yes"}]


def test_an_integration_without_a_schema_has_a_template() -> None:
    entity = yaml.safe_load(document_templates([{"id": "bare", "spec": {}}])[0].text)
    assert entity["spec"]["integrationName"] == "bare"
