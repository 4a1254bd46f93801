"""The references are what the code says today, and leave nothing out."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest

from docs import draw_api, draw_cli, markdown
from orchestrator.cli.examples import EXAMPLES, verbs
from orchestrator.cli.main import cli
from orchestrator.web.app import document
from tests.support.documents import ROOT

CALLS, TYPES, CLI = (page.read_text(encoding="utf-8") for page in (draw_api.CALLS, draw_api.TYPES, draw_cli.TARGET))
DOCUMENT = document()
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def section(page: str, heading: str) -> str:
    """Return what stands under a heading, up to the next one."""
    (found,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    return str(found)


def first_cells(text: str) -> list[str]:
    """Return the code in the first cell of every row."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def test_the_pages_are_up_to_date() -> None:
    assert draw_cli.render() == CLI, "run `make docs`"
    assert draw_api.render_calls() == CALLS, "run `make docs`"
    assert draw_api.render_types() == TYPES, "run `make docs`"


def test_make_docs_draws_every_drawn_page() -> None:
    (pages,) = re.findall(r"for page in ([a-z ]+); do .*docs/draw_\$\$page\.py", (ROOT / "Makefile").read_text())
    assert sorted(pages.split()) == sorted(page.stem.removeprefix("draw_") for page in ROOT.glob("docs/draw_*.py"))


@pytest.mark.parametrize(("words", "command"), [*verbs(cli)], ids=[words for words, _ in verbs(cli)])
def test_every_verb_stands_there_with_its_options_and_example(words: str, command: click.Command) -> None:
    text = section(CLI, f"ota {words}")
    shown = [cell.partition(" ")[0].rstrip(",") for cell in first_cells(text)]
    wanted = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    assert sorted(shown) == sorted(min(option.opts, key=len) for option in wanted)
    for option in wanted:
        (row,) = [
            line for line in text.splitlines() if re.match(rf"\| `([^`]*, )?{max(option.opts, key=len)}[ `]", line)
        ]
        assert ("required" in row.split(" | ")[-1]) == option.required
        if isinstance(option.envvar, str):
            assert f"`{option.envvar}`" in row
        if isinstance(option.default, str) and option.default and not option.is_flag:
            assert f"`{option.default}`" in row
    assert text.rstrip().endswith(f"```sh\n{EXAMPLES[words]}\n```")
    assert f"(#{markdown.anchor(f'ota {words}')})" in CLI


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_call_stands_there_with_all_that_it_takes_and_answers(name: str) -> None:
    method, path, operation = OPERATIONS[name]
    text = section(CALLS, name)
    assert f"\n`{method} {path}`\n" in text
    assert f"[`{method} {path}`](#{name})" in CALLS
    for parameter in operation.get("parameters", ()):
        assert f"\n| `{parameter['name']}` | {parameter['in']} |" in text
    for status, answer in operation["responses"].items():
        if "$ref" not in answer:
            assert f"\n| {status} | " in text
    for content in operation.get("requestBody", {}).get("content", {}).values():
        body = content["schema"]["$ref"].rpartition("/")[2]
        fields = DOCUMENT["components"]["schemas"][body]["properties"]
        assert f"(types.md#{body.lower()})" in text or set(fields) <= set(first_cells(text))


def test_refusals_are_those_of_every_call_or_named() -> None:
    everywhere = re.findall(r"^\| (\d+) \| .* \| yes \|$", section(CALLS, "Refusals"), re.MULTILINE)
    for name, (_, _, operation) in OPERATIONS.items():
        (said,) = re.findall(r"^Refusals: (.*)\.$", section(CALLS, name), re.MULTILINE) or [""]
        named = set(said.split(", ")) - {""}
        ours = any("operatorToken" in way for way in operation["security"])
        refused = {status for status, answer in operation["responses"].items() if "$ref" in answer}
        assert refused == named | (set(everywhere) if ours else set()), name


def test_every_object_stands_there_with_its_fields() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if f"\n## {name}\n" in TYPES:
            assert first_cells(section(TYPES, name)) == list(schema.get("properties", ()))
            assert all(f"`{word}`" in section(TYPES, name) for word in schema.get("enum", ()))
    linked = set(re.findall(r"types\.md#(\w+)", CALLS)) | set(re.findall(r"\(#(\w+)\)", TYPES))
    assert linked <= {line[3:].lower() for line in TYPES.splitlines() if line.startswith("## ")}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer", "minimum": 0, "exclusiveMaximum": 2.0**53}, "integer, 0 to 9007199254740991"),
        ({"type": "number", "maximum": 0.5}, "number, at most 0.5"),
        ({"type": "string", "minLength": 1, "maxLength": 9}, "string, 1 to 9 characters"),
        ({"anyOf": [{"$ref": "#/components/schemas/Wait"}, {"type": "null"}]}, "[Wait](types.md#wait) or null"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 3}, "list, at most 3, of string"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "map to integer"),
        ({"const": 1}, "`1`"),
        ({"type": "string", "enum": ["a", "b"]}, "`a`, `b`"),
        ({"type": "string", "pattern": "^" + "a" * 40}, "string"),
        ({}, "anything"),
    ],
)
def test_types_are_said_in_words(schema: dict[str, Any], expected: str) -> None:
    assert draw_api._kind(schema) == expected


def test_text_of_the_code_is_no_markdown() -> None:
    assert markdown.prose("a *b* _c_ d_e <f> `*g*` (docs/h-i.md)") == (
        r"a \*b\* \_c\_ d_e \<f\> `*g*` ([h-i.md](../h-i.md))"
    )
    assert markdown.table(("a", "b"), [("x|y", ""), ("z", "")]) == "| a |\n|---|\n| x\\|y |\n| z |\n"
    assert markdown.table(("a",), []) == ""
