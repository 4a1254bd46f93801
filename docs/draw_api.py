"""Draws `docs/reference/api.md` and `docs/reference/types.md` from the document of the API: `python docs/draw_api.py`.

Rules:
- Every call, field and status comes from `web.app.document`, the document that daemons give out; only the words around
  them stand here.
- What a call takes stands with the call where it is short; all else stands once, on the page of types.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.markdown import anchor, code, prose, table
from orchestrator.web.app import document
from orchestrator.web.described import LINES

CALLS = Path(__file__).with_name("reference") / "api.md"
TYPES = CALLS.with_name("types.md")
MAX_PATTERN_CHARS = 30
"""Longer patterns are left to the document: nobody reads them in a table."""
MAX_FIELDS = 12
"""A body with more fields stands on the page of types, and not with every call that takes it."""

Part = dict[str, Any]

_HEAD = """# The HTTP API, call by call

Drawn by `docs/draw_api.py` from the document of the API (`ota openapi`); a test fails when this page is out of date.
[api.md](../api.md) says how tokens, refusals, lists, keys and marks work, [operators.md](../operators.md#roles) what
each role is for, [types.md](types.md) what the objects hold. Of the roles of a call one is enough; for commands, the
command decides which. A call is headed by its `operationId`; where the [Python client](../client.md) has a method for
it, that is its name.

"""
_REFUSED = """
## Refusals

Every refusal is a [`Problem`](types.md#problem), as `application/problem+json`. A call names those of its refusals that
not every call of operators has.

"""
_TYPES = """# The objects of the HTTP API

Drawn by `docs/draw_api.py` from the document of the API (`ota openapi`); a test fails when this page is out of date.
[api.md](api.md) has the calls. What is *required* is always there. Patterns of more than a few characters are in the
document alone.
"""


def render_calls() -> str:
    """Return the page of the calls."""
    found = document()
    refusals = found["components"]["responses"]
    everywhere = _everywhere(found)
    rows = [
        (name.removeprefix("Refused"), prose(refusal["description"]), "yes" if name in everywhere else "")
        for name, refusal in refusals.items()
    ]
    parts = [_HEAD, _contents(found), _REFUSED, table(("status", "meaning", "every call"), rows)]
    for tag in found["tags"]:
        parts.append(f"\n## About {tag['name']}\n\n{prose(tag['description'])}\n")
        parts += [_call(found, *call, everywhere) for call in _calls(found, tag["name"])]
    return "".join(parts)


def render_types() -> str:
    """Return the page of the objects."""
    found = document()
    named = _named(found["components"]) | _named([operation["responses"] for _, _, operation in _calls(found)])
    taken = {_body_of(operation) for _, _, operation in _calls(found)} - named
    shown = {name: held for name, held in found["components"]["schemas"].items() if name not in taken or _is_long(held)}
    return _TYPES + "".join(_type(name, schema) for name, schema in shown.items())


def _everywhere(found: Part) -> set[str]:
    """Return the refusals that every call of operators has."""
    named = [_refusals(operation) for _, _, operation in _calls(found) if _is_ours(operation)]
    return set.intersection(*(set(names) for names in named))


def _refusals(operation: Part) -> list[str]:
    return [_name(answer) for answer in operation["responses"].values() if "$ref" in answer]


def _calls(found: Part, tag: str | None = None) -> Iterator[tuple[str, str, Part]]:
    """Yield method, path and description of the calls whose first tag is this one."""
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            if tag in (None, operation["tags"][0]):
                yield method.upper(), path, operation


def _named(part: Any) -> set[str]:
    """Return the schemas that a part of the document refers to."""
    if isinstance(part, list):
        return {name for item in part for name in _named(item)}
    if not isinstance(part, dict):
        return set()
    own = {_name(part)} if isinstance(part.get("$ref"), str) else set()
    return own | _named(list(part.values()))


def _name(reference: Part) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _body_of(operation: Part) -> str:
    """Return the name of the schema of what a call takes; empty where it takes nothing."""
    contents = operation.get("requestBody", {}).get("content", {}).values()
    return "".join(_name(content["schema"]) for content in contents)


def _is_long(schema: Part) -> bool:
    return len(schema.get("properties", ())) > MAX_FIELDS


def _contents(found: Part) -> str:
    rows = []
    for tag in found["tags"]:
        for method, path, operation in _calls(found, tag["name"]):
            call = f"[{code(f'{method} {path}')}](#{anchor(operation['operationId'])})"
            rows.append((tag["name"], call, prose(_what(operation).partition(". ")[0].rstrip("."))))
    return table(("about", "call", "what it does"), rows)


def _what(operation: Part) -> str:
    """Return what a call does; the summary of a call of operators is the beginning of its description."""
    summary, text = operation["summary"], str(operation["description"])
    return text if text.startswith(summary) else f"{summary}. {text}"


def _call(found: Part, method: str, path: str, operation: Part, everywhere: set[str]) -> str:
    ours = _is_ours(operation)
    refusals = [name for name in _refusals(operation) if not (ours and name in everywhere)]
    parts = [
        f"### {operation['operationId']}",
        code(f"{method} {path}"),
        prose(_what(operation)),
        _roles(operation) if ours else _login(found, operation["security"]),
        _parameters(operation),
        *_body(found, operation),
        _answers(operation),
        f"Refusals: {', '.join(name.removeprefix('Refused') for name in refusals)}." if refusals else "",
    ]
    return "".join(f"\n{part.rstrip()}\n" for part in parts if part)


def _is_ours(operation: Part) -> bool:
    """Return whether a call is one of operators."""
    return any("operatorToken" in way for way in operation["security"])


def _roles(operation: Part) -> str:
    [way] = operation["security"]
    return f"Roles: {', '.join(way['operatorToken'])}."


def _login(found: Part, security: list[Part]) -> str:
    schemes = found["components"]["securitySchemes"]
    ways = [prose(schemes[name]["description"]).rstrip(".") for way in security for name in way]
    return f"Login: {'; or: '.join(way[0].lower() + way[1:] for way in ways) or 'none'}."


def _parameters(operation: Part) -> str:
    rows = []
    for parameter in operation.get("parameters", ()):
        schema = _said(parameter["schema"])
        text = parameter.get("description", "") + (" Deprecated." if schema.get("deprecated") else "")
        rows.append(
            (code(parameter["name"]), parameter["in"], _kind(schema), _meaning(schema, text), _default(parameter))
        )
    return table(("parameter", "in", "type", "meaning", "default"), rows)


def _said(schema: Part) -> Part:
    """Return the type of a parameter that is there: what is not said is not null."""
    ways = [way for way in schema.get("anyOf", ()) if way.get("type") != "null"]
    return ways[0] | {key: value for key, value in schema.items() if key != "anyOf"} if len(ways) == 1 else schema


def _body(found: Part, operation: Part) -> Iterator[str]:
    name = _body_of(operation)
    if not name:
        return
    ((medium, content),) = operation["requestBody"]["content"].items()
    schema = found["components"]["schemas"][name]
    what = _kind(content["schema"]) if _is_long(schema) else code(medium)
    yield f"Takes {what}: {prose(schema['description'])}"
    if not _is_long(schema):
        yield _fields(schema, "types.md")
    if "example" in content:
        yield f"```json\n{json.dumps(content['example'])}\n```"


def _answers(operation: Part) -> str:
    rows = []
    for status, answer in operation["responses"].items():
        if "$ref" not in answer:
            headers = ", ".join(map(code, answer.get("headers", ())))
            rows.append((status, prose(answer["description"]), " or ".join(_media(answer)), headers))
    return table(("answer", "meaning", "holds", "headers"), rows)


def _media(answer: Part) -> Iterator[str]:
    for medium, content in answer.get("content", {}).items():
        if medium == LINES:
            yield f"{code(medium)}, each line {_kind(content['schema']['items'])}"
        else:
            yield _kind(content["schema"]) if medium == "application/json" else code(medium)


def _type(name: str, schema: Part) -> str:
    fields = _fields(schema, "") if schema.get("properties") else ""
    words = f"One of {_kind({key: schema[key] for key in ('type', 'enum')})}." if "enum" in schema else ""
    parts = [f"## {name}", prose(schema.get("description", "")), words, fields]
    return "".join(f"\n{part.rstrip()}\n" for part in parts if part)


def _fields(schema: Part, page: str) -> str:
    required = schema.get("required", ())
    rows = []
    for name, field in schema.get("properties", {}).items():
        held = field | {"required": name in required, "schema": field}
        rows.append((code(name), _kind(field, page), _meaning(field, field.get("description", "")), _default(held)))
    return table(("field", "type", "meaning", "default"), rows)


def _meaning(schema: Part, text: str) -> str:
    """Return a description, with an example where neither type nor default is one."""
    examples = schema.get("examples") or schema.get("items", {}).get("examples")
    plain = not examples or _pattern(schema) or schema.get("default")
    return prose(text if plain else f"{text} Such as `{examples[0]}`.")


def _pattern(schema: Part) -> str:
    pattern = str(schema.get("pattern", ""))
    return pattern if len(pattern) <= MAX_PATTERN_CHARS else ""


def _default(held: Part) -> str:
    if held.get("required"):
        return "required"
    default = held["schema"].get("default")
    return "" if default in (None, "", [], {}) else code(json.dumps(default).strip('"'))


def _kind(schema: Part, page: str = "types.md") -> str:
    """Return the type of a value in a few words."""
    if "$ref" in schema:
        name = _name(schema)
        return f"[{name}]({page}#{anchor(name)})"
    if "anyOf" in schema:
        return " or ".join(_kind(way, page) for way in schema["anyOf"])
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        return ", ".join(code(str(word)) for word in schema["enum"])
    if schema.get("type") == "array":
        size = _bounds(schema.get("minItems"), schema.get("maxItems"))
        return f"list{size}{',' if size else ''} of {_kind(schema['items'], page)}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map to {_kind(schema['additionalProperties'], page)}"
    return _plain(schema)


def _plain(schema: Part) -> str:
    words = [schema.get("type", "anything"), *map(code, filter(None, [_pattern(schema)]))]
    if schema.get("type") == "string":
        chars = _bounds(schema.get("minLength"), schema.get("maxLength"))
        return " ".join(words) + (f"{chars} character{'' if chars.endswith(' 1') else 's'}" if chars else "")
    below = schema.get("exclusiveMaximum")
    most = schema.get("maximum") if below is None else below - 1  # only integers have one
    return " ".join(words) + _bounds(schema.get("minimum"), most)


def _bounds(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f", at most {most:.16g}"
    return f", at least {least:.16g}" if most is None else f", {least:.16g} to {most:.16g}"


if __name__ == "__main__":
    CALLS.parent.mkdir(exist_ok=True)
    CALLS.write_text(render_calls(), encoding="utf-8")
    TYPES.write_text(render_types(), encoding="utf-8")
