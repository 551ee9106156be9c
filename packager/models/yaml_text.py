"""YAML from untrusted sources: plain text only, in limited memory."""

from __future__ import annotations

import re

import yaml

from packager.logs.sanitize import sanitize

CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")


class TreeLoader(yaml.SafeLoader):
    """A YAML loader without anchors and aliases.

    The C loader would be faster, but can't reject aliases, and crashes on deep nesting.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Reject anchors and aliases: a few of them can expand to gigabytes."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor:
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


class TextLoader(TreeLoader):
    """A loader of plain YAML: scalars are text, except null; no tags, anchors or aliases."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own name and way)
        first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in {"null", "str", "seq", "map"}
    }


def reason(error: Exception) -> str:
    """Return a one-line reason for invalid YAML, with the line number if known."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {sanitize(error.problem or '', limit=80)}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return sanitize(str(error), limit=80)
