"""The resources of a packaging: Kubernetes quantities.

The form is that of kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity.
"""

from __future__ import annotations

import re
from decimal import Decimal

from packager.api.entities import ResourceList, Resources

_QUANTITY = re.compile(r"\+?(?P<number>\d{1,18}(\.\d{0,9})?|\.\d{1,9})(?P<suffix>[numkKMGTPE]i?|[eE][+-]?\d{1,2})?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def read_quantity(text: str) -> Decimal:
    """Return the amount that a quantity such as `500m` or `2Gi` is.

    Raises:
        ValueError: It is none.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError("is no quantity such as 500m, 2 or 1Gi")
    number, suffix = Decimal(match["number"]), match["suffix"] or ""
    if suffix in _BINARY:
        return number * (1 << 10 * _BINARY[suffix])
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    if suffix[:1] in ("e", "E") and suffix[1:].lstrip("+-").isdigit():
        return number.scaleb(int(suffix[1:]))
    raise ValueError("is no quantity such as 500m, 2 or 1Gi")


def complete_resources(resources: Resources, problems: list[str]) -> Resources:
    """Return quantities as text, and both lists, so that clients show the same columns for all packagings.

    Adds what is wrong to the problems.
    """
    limits, allowed = _read("limits", resources.limits, problems)
    requests, wanted = _read("requests", resources.requests, problems)
    above = [name for name, amount in wanted.items() if name in allowed and amount > allowed[name]]
    problems += [f"resources.requests.{name} is above resources.limits.{name}" for name in above]
    return Resources(limits=limits, requests=requests)


def _read(part: str, given: ResourceList | None, problems: list[str]) -> tuple[ResourceList, dict[str, Decimal]]:
    texts = {name: str(value) for name, value in (given or ResourceList()).model_dump(exclude_none=True).items()}
    amounts = {}
    for name, text in texts.items():
        try:
            amounts[name] = read_quantity(text)
        except ValueError as error:  # noqa: PERF203  (each problem is told)
            problems.append(f"resources.{part}.{name}: {text[:40]!r} {error}")
    return ResourceList.model_validate(texts), amounts
