"""YAML as people write it by hand, read without silent traps.

Rules:
- Refused: duplicate keys, anchors, aliases, tags, several documents, deep nesting, large files, keys that are not text.
- Every refusal is one `ValueError` that names the line; nothing is guessed and nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16


def parse(data: bytes) -> Any:
    """Return the plain value (dict, list, str, int, float, bool, None) that `data` holds.

    Args:
        data: UTF-8 text of at most `MAX_BYTES`.

    Raises:
        ValueError: one sentence with the line and the fault.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes; at most {MAX_BYTES} are allowed")
    try:
        return yaml.load(data.decode("utf-8"), Loader=_StrictLoader)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        raise ValueError(_sentence(error)) from None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {str(error).splitlines()[0]}") from None


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses what would otherwise be quietly reinterpreted."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem="tags are not allowed", problem_mark=event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key must be text; quote it", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _sentence(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "not YAML"
    return f"line {mark.line + 1}: {problem}" if mark else problem
