"""PackagingIntegration entities generated from the argument models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packager.models.integrations.base import IntegrationType

_KEYWORDS = ("description", "type", "enum", "default", "minimum", "maximum", "pattern", "maxLength")


def integration_document(integration_type: IntegrationType, default_image: str) -> dict[str, Any]:
    """Return the `kind: PackagingIntegration` document of an integration type, for YAML or JSON.

    Each argument's `parameters` are its JSON Schema keywords.
    """
    schema = integration_type.arguments.model_json_schema(by_alias=True)
    properties = [
        {
            "name": name,
            "parameters": [{"name": word, "value": field[word]} for word in _KEYWORDS if word in field],
        }
        for name, field in schema["properties"].items()
    ]
    return {
        "kind": "PackagingIntegration",
        "id": integration_type.name,
        "spec": {
            "entrypoint": integration_type.entry_point,
            "defaultImage": default_image,
            "privileged": False,
            "schema": {
                "targets": [
                    target.model_dump(by_alias=True, exclude={"default"}, mode="json")
                    for target in integration_type.targets
                ],
                "arguments": {"properties": properties, "required": []},
            },
        },
    }
