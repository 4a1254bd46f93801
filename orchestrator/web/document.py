"""The document of the operator API (OpenAPI 3.1): made from the routes, with what they cannot say themselves.

Rules:
- Types of answers are those of `orchestrator.client.answers`, and so is what is said of each of their fields; every
  refusal is the same problem document.
- An answer of many lines is described as the list of them, which is how OpenAPI means such media.
- What devices call is kept by hand in `device_api.yaml`, and merged.
- The document depends on the code alone, so that two daemons of one version give out the same one.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files
from textwrap import dedent
from typing import Any

import yaml
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from orchestrator import __version__
from orchestrator.client import answers
from orchestrator.client.answers import Fleet, Problem
from orchestrator.plans import schema as plan_schema
from orchestrator.web.described import LINES

TITLE = "OTA orchestrator"
_BODY, _PROBLEM = "application/json", "application/problem+json"
_ATTRIBUTES = "Attributes:\n"
_FIELD = re.compile(r"^(\w+): (.+(?:\n[ ]+.+)*)", re.MULTILINE)
_TEXT = (
    "Brings signed releases to device fleets, and halts the bad ones by evidence.\n\n"
    "Lists come in pages: follow `Link` with `rel=next`. An act that is sent with an `Idempotency-Key` is done once, "
    "however often it is sent. `If-Match` with the `ETag` of what was seen keeps two persons from overwriting each "
    "other. Who asks too often is told so by 429 and `Retry-After`; to stop a rollout is never refused for that."
)
_TAGS = {
    "daemon": "How the daemon is, and what changes.",
    "releases": "Artifacts and releases.",
    "rollouts": "Plans, rollouts, their evidence, and what is done with them.",
    "devices": "The registry, and the quarantine.",
    "fleet": "What is asked of the whole fleet.",
    "approvals": "What waits for a second person.",
    "operators": "Accounts and their tokens.",
    "keys": "The keys that devices hold.",
    "audit": "Who did what.",
    "webhooks": "Who is told of transitions.",
    "device": "What devices call that speak our own protocol.",
    "dialects": "What clients of other servers call.",
}
_REFUSALS = {
    400: "The request cannot be carried out as it is.",
    401: "No token, or one that opens nothing.",
    403: "The caller may not do this.",
    404: "There is no such thing.",
    409: "It is in a state in which this cannot be done, or others must approve it first (`proposal`).",
    412: "It is another one by now than the caller saw.",
    413: "The body is too large.",
    415: "The body is not sent as `application/json`.",
    422: "The request is not understood; `faults` lists all that is wrong.",
    429: "The account asks too often; `Retry-After` says when to come again.",
    431: "The head is too large.",
    500: "The daemon failed; its log says more.",
    503: "Something that the daemon needs is away; try again.",
}
_ALWAYS = (400, 401, 403, 422, 429, 431, 500, 503)
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_EXAMPLES: dict[str, Any] = {
    "import_artifact": {"uri": "s3://releases/radio-2.bin"},
    "create_release": {"name": "radio-2", "artifacts": ["47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"]},
    "enrol_devices": {"devices": [{"id": "d-0001", "model": "m1", "groups": ["lab"]}]},
    "change_facts": {"devices": [{"id": "d-0001", "site": "berlin", "tag": ["canary"]}]},
    "create_rollout": {
        "name": "spring",
        "release": "radio-2",
        "stages": [{"devices": "1%", "soak": "1h"}, {"devices": "rest"}],
    },
    "move_rollout": {"reason": "smoke in the lab"},
    "quarantine_devices": {"devices": ["d-0001"], "reason": "a burnt board"},
    "add_operator": {"name": "bo", "person": "bo.b", "roles": ["operator"], "days": 90},
    "approve": {"reason": "looked at the canary"},
}


def document_of(app: FastAPI) -> dict[str, Any]:
    """Return the document of an application."""
    made: dict[str, Any] = get_openapi(
        title=TITLE,
        version=__version__,
        openapi_version="3.1.0",
        description=_TEXT,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    for path, operations in made["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
    return _merge(made, device_document())


@lru_cache(maxsize=1)
def device_document() -> dict[str, Any]:
    """Return the part that is kept by hand."""
    found: dict[str, Any] = yaml.safe_load(files("orchestrator.web").joinpath("device_api.yaml").read_text("utf-8"))
    return found


def _complete(path: str, operation: dict[str, Any]) -> None:
    text = operation.get("description", "")
    operation["summary"] = re.split(r"[.:;](?:\s|$)", text, maxsplit=1)[0] or operation["summary"]
    found = operation["responses"]
    for status in [status for status in found if status.startswith("2")]:
        _settle(found[status])
    names = {item["name"] for item in operation.get("parameters", ())}
    refused = {*_ALWAYS} | ({404, 409} if "{" in path else set()) | ({404} if "rollout" in names else set())
    if "requestBody" in operation:
        refused |= {404, 409, 413, 415}
        example = _EXAMPLES.get(operation["operationId"])
        if example is not None:
            operation["requestBody"]["content"][_BODY]["example"] = example
    if "if-match" in names:
        refused.add(412)
    found |= {str(status): {"$ref": f"#/components/responses/Refused{status}"} for status in refused}
    operation["responses"] = dict(sorted(found.items()))


def _settle(answer: dict[str, Any]) -> None:
    """Leave of what an answer may be the type that the route names, and nothing of how it is made."""
    contents = answer.get("content", {})
    if _BODY not in contents:
        return
    schema = _named(contents[_BODY]["schema"])
    if LINES in contents:  # a route of lines has no other answer
        answer["content"] = {LINES: {"schema": {"type": "array", "items": schema}}}
    else:
        contents[_BODY]["schema"] = schema


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without the words that FastAPI has for it."""
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    if "anyOf" in schema:
        return {"anyOf": [_named(way) for way in schema["anyOf"]]}
    if "$ref" in schema.get("items", {}):
        return {"type": "array", "items": _named(schema["items"])}
    return schema


def described(kind: Any) -> dict[str, str]:
    """Return what the text of a type says of each of its fields, and of those that it inherits."""
    found: dict[str, str] = {}
    for base in getattr(kind, "__orig_bases__", ()):
        found |= described(base)
    _, _, attributes = (kind.__doc__ or "").partition(_ATTRIBUTES)
    for name, text in _FIELD.findall(dedent(attributes)):
        found[name] = text[0].upper() + " ".join(text[1:].split())
    return found


def _describe(schemas: dict[str, Any]) -> None:
    """Say of each field of an answer what it means."""
    for name, schema in schemas.items():
        kind = getattr(answers, name, None)
        if is_typeddict(kind):
            schema["description"] = schema["description"].partition(_ATTRIBUTES)[0].strip()
            for field, text in described(kind).items():
                schema["properties"][field]["description"] = text


def _merge(made: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    components = made.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    device = {"type": "http", "scheme": "bearer", "description": "A token of `ota device add`."}
    components["securitySchemes"]["deviceToken"] = device
    components["responses"] = {
        f"Refused{status}": {
            "description": text,
            "content": {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        | ({"headers": _RETRY} if status == 429 else {})
        for status, text in _REFUSALS.items()
    }
    schemas |= _plan()
    schemas["Problem"] = TypeAdapter(Problem).json_schema()
    schemas["Fleet"] = TypeAdapter(Fleet).json_schema()
    made["paths"] = {path: made["paths"][path] for path in sorted(made["paths"])} | kept["paths"]
    for name, entries in kept["components"].items():
        components[name] = components.get(name, {}) | entries
    components["schemas"] = dict(sorted(components["schemas"].items()))
    _describe(components["schemas"])
    return made


def _plan() -> dict[str, Any]:
    """Return the schemas of a plan, whose defaults are shown as people write them."""
    text = json.dumps(plan_schema()).replace("#/$defs/", "#/components/schemas/")
    made: dict[str, Any] = json.loads(text)
    parts: dict[str, Any] = made.pop("$defs")
    del made["$schema"]
    return parts | {"PlanBody": made}
