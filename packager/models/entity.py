"""The base class of the platform's entities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Entity(BaseModel):
    """An entity or a part of one: camelCase keys, null means absent, unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None}
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Allow null for every optional key of an input, as clients write it."""
        schema = handler(core_schema)
        resolved = handler.resolve_ref_schema(schema)
        if handler.mode == "validation":
            required = resolved.get("required", ())
            for name, field in resolved.get("properties", {}).items():
                if name not in required:
                    resolved["properties"][name] = {"anyOf": [field, {"type": "null"}]}
        return schema
