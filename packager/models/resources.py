"""Kubernetes resource quantities, and the `resources` of a packaging.

The grammar is kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity, without negative amounts.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from pydantic import ConfigDict, Field, StrictFloat, StrictInt, StrictStr

from packager.logs.sanitize import sanitize
from packager.models.entity import Entity

QUANTITY = r"^\+?(\d{1,18}(\.\d{0,9})?|\.\d{1,9})([numk]|[MGTPE]|[KMGTPE]i|[eE][+-]?\d{1,2})?$"
_NAME = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
Quantity = StrictStr | StrictInt | StrictFloat


class ResourceList(Entity):
    """Quantities by resource name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Quantity]

    cpu: Quantity | None = Field(default=None, examples=["500m"])
    memory: Quantity | None = Field(default=None, examples=["2Gi"])
    gpu: Quantity | None = None

    def amounts(self) -> dict[str, str]:
        """Return the quantities that are set, as text."""
        return {name: str(value) for name, value in self.model_dump(exclude_none=True).items()}


class Resources(Entity):
    """Resources of a packaging's container: its limits and its requests."""

    limits: ResourceList | None = None
    requests: ResourceList | None = None

    def amounts(self) -> dict[str, dict[str, str]]:
        """Return the quantities of `limits` and `requests` as text."""
        parts = {"limits": self.limits, "requests": self.requests}
        return {part: given.amounts() if given else {} for part, given in parts.items()}

    def problems(self) -> list[str]:
        """Return every invalid name and quantity, and every request above its limit."""
        problems = []
        read: dict[str, dict[str, Decimal]] = {"limits": {}, "requests": {}}
        for part, amounts in self.amounts().items():
            for name, text in amounts.items():
                if not _NAME.fullmatch(name):
                    problems.append(f"resources.{part}: {sanitize(name, limit=80)!r} is not a resource name")
                try:
                    read[part][name] = read_quantity(text)
                except ValueError as error:
                    problems.append(f"resources.{part}.{sanitize(name, limit=80)}: {text[:40]!r} {error}")
        limits, requests = read["limits"], read["requests"]
        above = [name for name, amount in requests.items() if name in limits and amount > limits[name]]
        return problems + [f"resources.requests.{name} is above resources.limits.{name}" for name in above]

    def normalized(self) -> Resources:
        """Return the quantities as text and both lists, so that clients show the same columns for all packagings."""
        values: dict[str, Any] = self.amounts()
        return Resources.model_validate(values)


def read_quantity(text: str) -> Decimal:
    """Return the amount of a quantity such as `500m` or `2Gi`.

    Raises:
        ValueError: The text is not a quantity.
    """
    match = re.fullmatch(QUANTITY[1:-1], text)
    if match is None:
        raise ValueError("is not a quantity such as 2, 500m or 4Gi")
    number, suffix = Decimal(match[1]), match[3] or ""
    if suffix in _BINARY:
        return number * (1 << 10 * _BINARY[suffix])
    return number.scaleb(_DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:]))
