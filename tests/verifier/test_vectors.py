"""Every golden vector, the corpus itself, the runner for other verifiers, and what the protocol prints."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestrator import verifier
from orchestrator.verifier import DOWNLOAD_REASONS, REASONS
from tests.golden import kit, make_vectors, ours, run

ROOT = Path(__file__).parents[2]
PACKAGE = sorted(Path(verifier.__file__).parent.glob("*.py"))
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
VECTORS = make_vectors.read()
HOSTILE = [vector for vector in VECTORS if "reason" in vector["expected"]]
OURS = [sys.executable, "-m", "tests.golden.ours"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['class']}-{vector['name']}")
def test_vector(vector: dict[str, Any]) -> None:
    assert ours.answer(vector) == vector["expected"]


def test_the_files_are_what_the_generator_makes() -> None:
    made = make_vectors.build()
    there = {str(path.relative_to(make_vectors.DIRECTORY)): path.read_bytes() for path in make_vectors.written()}
    assert set(there) == set(made)
    assert [name for name, content in there.items() if content != made[name]] == []


def test_names_are_unique_within_their_class() -> None:
    names = Counter((vector["class"], vector["name"]) for vector in VECTORS)
    assert [name for name, times in names.items() if times > 1] == []


def test_the_corpus_is_large_enough_in_every_class() -> None:
    hostile = Counter(vector["class"] for vector in HOSTILE)
    assert hostile.total() >= 400
    assert len(VECTORS) - hostile.total() >= 120
    assert {number: hostile[f"T{number}"] for number in range(1, 24) if hostile[f"T{number}"] < 8} == {}
    downloads = Counter(vector["class"] for vector in HOSTILE if vector["call"] == "download")
    assert {group for group, times in downloads.items() if times >= 8} == {"T13", "T14", "T16", "T17", "T18"}
    assert {vector["class"] for vector in VECTORS if "kind" in vector["expected"]} == {"valid"}


def test_every_ordered_pair_of_types_is_confused() -> None:
    words = {"trigger", "artifact", "cosign", "beat", "keys"}
    places = {"statement": "artifact"}
    confused = {
        (word, places.get(place, place))
        for vector in HOSTILE
        if vector["class"] == "T3" and vector["expected"]["reason"] == "wrong_type"
        for word, _, place in [vector["name"].partition("-as-")]
    }
    assert {(one, other) for one in words for other in words if one != other} <= confused


def test_every_reason_has_a_vector() -> None:
    seen = {vector["expected"]["reason"] for vector in HOSTILE}
    assert seen == set(REASONS) | set(DOWNLOAD_REASONS)


def test_every_code_that_is_raised_has_a_sentence() -> None:
    raised = {code for path in PACKAGE for code in re.findall(r'(?:Refused|require)\(\s*"(\w+)"', path.read_text())}
    later = {"hash_mismatch", "link_lost"}  # the download keeps these until it knows that nothing more comes
    assert raised | later == set(REASONS) | set(DOWNLOAD_REASONS)
    assert not set(REASONS) & set(DOWNLOAD_REASONS)


def test_it_is_small_and_has_no_dependencies() -> None:
    sources = {path: path.read_text() for path in PACKAGE}
    imported = {name for text in sources.values() for name in re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)}
    assert imported - sys.stdlib_module_names == {"cryptography", "orchestrator"}
    own = {name for text in sources.values() for name in re.findall(r"from (orchestrator[.\w]*)", text)}
    assert {name.rpartition(".")[0] for name in own} == {"orchestrator.verifier"}
    lines = {path.name: len(text.splitlines()) for path, text in sources.items()}
    assert max(lines.values()) <= 160
    assert sum(lines.values()) <= 900


def test_the_protocol_prints_the_tables_of_reasons() -> None:
    printed = dict(re.findall(r"^\| `([a-z0-9_]+)` \| ([A-Z].+\.) \|$", PROTOCOL, re.MULTILINE))
    assert printed == dict(REASONS) | dict(DOWNLOAD_REASONS)


def test_the_protocol_shows_examples_that_hold() -> None:
    blocks = re.findall(r"^```\n(eyJ.+?)\n```$", PROTOCOL, re.MULTILINE | re.DOTALL)
    rotation, first = kit.several(kit.roots[1:3], kit.keyset()), kit.bundle({"ep": 4, "seq": 1})
    examples = [kit.bundle(), kit.recalled(), rotation, kit.several((kit.ann, kit.bob), kit.warrant())]
    assert [block.encode() for block in blocks] == [*examples, kit.beat_key.token(kit.beat())]
    assert kit.HELD in PROTOCOL
    for token in (rotation, first, kit.emergency()):
        assert kit.token_hash(token.split(b"\n")[0]) in PROTOCOL


def test_the_protocol_measures_sizes() -> None:
    printed = dict(re.findall(r"^\| ([a-z ,]+) \| ([0-9,]+) bytes \|$", PROTOCOL, re.MULTILINE))
    lines = kit.bundle().split(b"\n")
    measured = {
        "trigger": len(lines[0]),
        "artifact statement": len(lines[1]),
        "recall": len(kit.recalled()),
        "beat": len(kit.beat_key.token(kit.beat())),
        "warrant of two persons": len(kit.several((kit.ann, kit.bob), kit.warrant())),
        "trigger and statement": len(kit.bundle()),
        "emergency of two persons": len(kit.emergency()),
        "keyset of nine keys, two signatures": len(kit.several(kit.roots[1:3], kit.keyset())),
        "each further signature": len(kit.several(kit.roots[1:3], kit.keyset()).split(b"\n")[1]) + 1,
    }
    assert {name: int(size.replace(",", "")) for name, size in printed.items()} == measured


def test_the_runner_finds_our_verifier_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert run.main(OURS) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split() == ["all", str(len(VECTORS)), "right", "0", "wrong"]


def test_the_runner_names_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    yes = 'import sys\nfor line in sys.stdin: print(\'{"kind":"install"}\', flush=True)'
    assert run.main([sys.executable, "-c", yes]) == 1
    printed = capsys.readouterr().out
    assert "T4 replay-at-mark: expected {'reason': 'stale_seq'}, got {'kind': 'install'}\n" in printed
    assert printed.splitlines()[-1].split() == ["all", "0", "right", str(len(VECTORS)), "wrong"]


def test_the_runner_reports_a_command_that_is_silent_or_absent(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([]) == 2
    assert run.main([sys.executable, "-c", ""]) == 2
    assert run.main(["no-such-command-here"]) == 2
    assert "no answer to" in capsys.readouterr().err
    with pytest.raises(run.Silent):
        run.run([sys.executable, "-c", "input(); input()"], VECTORS[:1], patience_s=0.2)


def test_the_runner_keeps_what_is_no_json() -> None:
    chatter = [sys.executable, "-c", "input(); print('hello')"]
    assert [said for _, said in run.run(chatter, VECTORS[:1])] == ["hello"]


def test_the_runner_does_not_tell_what_it_expects() -> None:
    assert not {"expected", "why", "class"} & set(json.loads(run.request_of(VECTORS[0])))
