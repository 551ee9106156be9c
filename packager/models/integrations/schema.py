"""The PackagingIntegration entities, made from the argument models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packager.models.integrations.base import Application

_KEYWORDS = ("description", "type", "enum", "default", "minimum", "maximum", "pattern", "maxLength")


def integration(application: Application, default_image: str) -> dict[str, Any]:
    """Return the `kind: PackagingIntegration` document of an application, ready for YAML or JSON.

    Each argument's `parameters` are the JSON Schema keywords that describe it.
    """
    schema = application.arguments.model_json_schema(by_alias=True)
    properties = [
        {
            "name": name,
            "parameters": [{"name": word, "value": field[word]} for word in _KEYWORDS if word in field],
        }
        for name, field in schema["properties"].items()
    ]
    return {
        "kind": "PackagingIntegration",
        "id": application.name,
        "spec": {
            "entrypoint": application.entry_point,
            "defaultImage": default_image,
            "privileged": False,
            "schema": {
                "targets": [
                    target.model_dump(by_alias=True, exclude={"default"}, mode="json") for target in application.targets
                ],
                "arguments": {"properties": properties, "required": []},
            },
        },
    }
