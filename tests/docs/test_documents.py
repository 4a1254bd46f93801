"""Every page leads somewhere: links and anchors resolve, and no page of the documentation is out of reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import markdown
from tests.support.documents import PAGES, ROOT, anchor, anchors, commands, links, name

DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
ANCHORS = {page.resolve(): anchors(page) for page in PAGES}


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    found = []
    for link in links(page):
        path, _, wanted = link.partition("#")
        target = (page.parent / path).resolve() if path else page.resolve()
        if not target.exists() or (wanted and wanted not in ANCHORS.get(target, ())):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `code` *word*, and: more\n## Twice\n## Twice\n"
        "[good](#a-code-word-and-more) [second](#twice-1) [itself](page.md) [`x`](page.md#twice)\n"
        "[third](#twice-2) [gone](gone.md) [elsewhere](https://example.org/gone.md) `[code](gone.md)`\n"
        "```\n# no heading\n[block](gone.md)\n```\n[a heading of no page](#no-heading)\n"
    )
    ANCHORS[page.resolve()] = anchors(page)
    assert anchors(page) == ["a-code-word-and-more", "twice", "twice-1"]
    assert broken(page) == ["#twice-2", "gone.md", "#no-heading"]


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("1. Verify", "1-verify"),
        ("Two brokers, & what lies `retained`", "two-brokers--what-lies-retained"),
        ("esp_https_ota: as it is", "esp_https_ota-as-it-is"),
        ("A [link](page.md) – and more", "a-link--and-more"),
        ("3.1 Several signatures", "31-several-signatures"),
        ("Größe", "größe"),
    ],
)
def test_anchors_are_those_of_github(heading: str, expected: str) -> None:
    assert anchor(heading) == expected


def test_drawn_pages_name_each_heading_once_and_as_it_is_linked() -> None:
    for page in sorted((DOCS / "reference").glob("*.md")):
        headings = [line.lstrip("# ") for line in page.read_text().splitlines() if line.startswith("#")]
        assert [markdown.anchor(heading) for heading in headings if "`" not in heading] == [
            anchor for anchor, heading in zip(ANCHORS[page], headings, strict=True) if "`" not in heading
        ]


def test_the_index_leads_to_every_page() -> None:
    pages = {page for page in DOCS.glob("**/*.md") if page.name not in ("index.md", "template.md")}
    reached = {(DOCS / link.partition("#")[0]).resolve() for link in links(INDEX)}
    assert pages - reached - {page for page in pages if page.name.startswith("0001-")} == set()
    assert DOCS / "asyncapi.yaml" in reached
    assert INDEX.resolve() in {(ROOT / link).resolve() for link in links(ROOT / "README.md")}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("ota status\n", [["ota", "status"]]),
        ("sudo ota doctor # as root, don't ask\n", [["ota", "doctor"]]),
        ('ota approve 7 --reason "see # 4"  # yes', [["ota", "approve", "7", "--reason", "see # 4"]]),
        ("OTA_SERVER=http://x venv/bin/ota status -o json | jq .a", [["ota", "status", "-o", "json"], ["jq", ".a"]]),
        ("a && ota b || c; d &\ne", [["a"], ["ota", "b"], ["c"], ["d"], ["e"]]),
        ("ota simulate --speed 10 > log.txt 2>&1 &", [["ota", "simulate", "--speed", "10"]]),
        ("source <(ota completion bash)", [["ota", "completion", "bash"], ["source", "VALUE"]]),
        ('x "$(ota release list)"', [["ota", "release", "list"], ["x", "VALUE"]]),
        ("cat > a << END\nota nothing\nEND\nota status", [["cat"], ["ota", "status"]]),
        ("ota rollout \\\n  list", [["ota", "rollout", "list"]]),
        ("until ota status; do sleep 1; done", [["ota", "status"], ["sleep", "1"], ["done"]]),
        ("a 'ota b\nota c'", [["a", "ota b\nota c"]]),
    ],
)
def test_a_script_is_taken_apart_as_the_shell_does(script: str, expected: list[list[str]]) -> None:
    assert list(commands(script)) == expected
