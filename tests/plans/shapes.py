"""Documents made from a JSON Schema, and what is done to them: any key that the schema gains is tried at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

VALUES: list[Any] = [None, True, False, 0, 1, -1, 1.5, 100.0, 2**53 - 1, 2**53, 10**30, "", [], {}]
VALUES += ["rest", "5%", "0%", "0.0%", "39.9999%", "40%", "49.9999%", "50%", "99.9999%", "100%", "100.0001%", "101%"]
VALUES += [
    "005%",
    "250ppm",
    "0ppm",
    "999999ppm",
    "1000000ppm",
    "5 ppm",
    "5.5ppm",
    "0005%",
    "5.00001%",
    "5 %",
    "5%\n",
    "٣%",
    "0s",
    "0.0ms",
    "10s",
    "1.5h",
    "1s\n",
    "1 s",
    "10",
    "5",
    "-1s",
]
VALUES += [
    "push",
    "Emergency",
    "emergency",
    "a/b",
    "UP",
    "x\n",
    "x" * 64,
    "x" * 65,
    "attr.x",
    "model",
    ["m1"],
    [1],
    "m1",
]
VALUES += ["1KiB", "1KB", "UTC", "Mon 08:00-17:00", "24:00-04:00", "2026-12-24", 100, 101, ["wifi"], [2], 0.5]
VALUES += [{"devices": 1}, {"devices": "rest"}, [{"devices": "rest"}, {"devices": 3}], [{"devices": 1}] * 50]
VALUES += [[{"devices": 1}] * 51, [{}], [None], ["m1", "M1"]]
"""What is right for one key and wrong for another, with what lies on both sides of each limit."""

JUNK = st.sampled_from(VALUES) | st.text(max_size=6)


def made(schema: dict[str, Any], root: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Return a strategy of what a schema accepts."""
    root = root or schema
    if "$ref" in schema:
        return made(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return st.one_of([made(part, root) for part in schema["anyOf"]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    return _typed(schema, root)


def _typed(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    match schema["type"]:
        case "object":
            parts = {key: made(part, root) for key, part in schema["properties"].items()}
            needed = {key: parts.pop(key) for key in schema.get("required", ())}
            return st.fixed_dictionaries(needed, optional=parts)
        case "array":
            least = schema.get("minItems", 0)
            return st.lists(made(schema["items"], root), min_size=least, max_size=least + 3)
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"].replace("$", r"\Z"), fullmatch=True)
        case "string" if "minLength" in schema and "maxLength" in schema:
            return st.text(min_size=schema["minLength"], max_size=8)
        case "string":
            return st.sampled_from(schema["examples"])
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "number":
            return st.floats(schema["minimum"], schema["maximum"])
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    raise AssertionError(schema)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each list or dict in a document with each of its indexes or keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from places(inner)


@st.composite
def mutated(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> Any:
    """Draw a document, and change one or two of its places."""
    document = copy.deepcopy(draw(documents))
    for _ in range(draw(st.integers(1, 2))):
        parent, key = draw(st.sampled_from(list(places(document)) or [({}, "")]))
        act = draw(st.sampled_from(["replace", "replace", "drop", "add", "swap"]))
        if act == "replace":
            parent[key] = draw(JUNK)
        elif act == "drop":
            parent.pop(key, None) if isinstance(parent, dict) else parent.pop(key)
        elif act == "add" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["soak", "alpha", "devices", "models", "colour"]))] = draw(JUNK)
        elif act == "swap" and isinstance(parent, list):
            parent.reverse()
    return document
