"""Mutants in CI, and that the search for them would find something: each check taken away lets some through."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.verifier import Refused, bundle, fields, keyset, token
from tests.fuzz import mutants, spread
from tests.fuzz.messages import DONORS, GOOD, MESSAGES, Message
from tests.fuzz.operators import HARMLESS, OPERATORS

pytestmark = pytest.mark.no_cover  # being traced would double what these take, and other tests cover the code

PARTS = 4
COUNT = 100_000

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("part", range(PARTS))
def test_no_mutant_is_taken(part: int) -> None:
    result = mutants.examine(range(part * COUNT // PARTS, (part + 1) * COUNT // PARTS))
    assert result.found == []
    assert result.tried.total() == COUNT // PARTS
    assert set(result.tried) == set(OPERATORS)
    assert set(result.taken) == set(HARMLESS)
    assert len(result.reasons) >= 30


def test_a_number_makes_the_same_mutant_again() -> None:
    for number in range(0, 5000, 7):
        assert mutants.mutant(number).data == mutants.mutant(number).data not in GOOD
    assert mutants.mutant(5).data != mutants.mutant(5, seed=2).data


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_no_donor_is_good_where_a_line_of_a_message_stood(message: Message) -> None:
    lines = message.lines
    for place in range(len(lines)):
        for donor in DONORS:
            with pytest.raises(Refused):
                message.take(b"\n".join([*lines[:place], donor, *lines[place + 1 :]]))


def overlook(code: str) -> Patch:
    """Return a patch after which nothing is refused with `code`."""

    def require(found: str, holds: object, detail: object) -> None:
        if not holds and found != code:
            raise Refused(found, detail)

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (bundle, fields, keyset, token):
            monkeypatch.setattr(module, "require", require)

    return patch


def believe_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token, "_check_signature", lambda *_: None)


def parse_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lenient:
        @staticmethod
        def fullmatch(header: bytes) -> Any:
            claims = json.loads(header)
            return {1: claims["kid"].encode(), 2: claims["typ"].encode()}

    monkeypatch.setattr(token, "_HEADER", Lenient)


CODES = (
    *("high_s", "wrong_role", "bad_base64", "not_detached", "signed_twice", "too_few_signers", "bad_bundle"),
    *("wrong_issuer", "wrong_epoch", "not_addressed", "stale_seq", "seq_jump", "expired", "beat_expired"),
    *("keyset_expired", "wrong_version", "statement_hash", "warrant_field", "unknown_critical"),
    *("duplicate_name", "bad_number", "bad_json", "too_deep"),
)
WEAKER: dict[str, Patch] = {
    "signatures are not checked": believe_signatures,
    "headers are parsed": parse_headers,
} | {f"{code} is overlooked": overlook(code) for code in CODES}


@pytest.mark.parametrize("patch", WEAKER.values(), ids=WEAKER.keys())
def test_a_weaker_verifier_takes_some(patch: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    patch(monkeypatch)
    for start in range(0, 60_000, 1000):
        if any(text.startswith("taken") for text in mutants.examine(range(start, start + 1000)).found):
            return
    pytest.fail("nothing was found")


def test_what_was_found_is_printed_and_can_be_made_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    believe_signatures(monkeypatch)
    assert spread.main(mutants.WORK, ["800", "--processes", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    found = next(line for line in lines if line.startswith("taken: seed 1 mutant "))
    assert int(lines[-1].rpartition(": ")[2].split()[0]) == sum(line.startswith("taken: ") for line in lines)
    assert spread.main(mutants.WORK, ["--only", found.split()[4], "--processes", "1"]) == 1
    assert found in capsys.readouterr().out.splitlines()


def test_all_that_is_left_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert spread.main(mutants.WORK, ["3000", "--processes", "2", "--seed", "7"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("3000 mutants in ")
