"""Hostile input in CI, and that the search would find something: a check taken away, a loop, a slow parser."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import urljoin

import pytest
from structlog.testing import capture_logs

from orchestrator.adapters import keysets
from orchestrator.sim import download
from orchestrator.web import devices
from orchestrator.wire import checkpoint, report
from tests.fuzz import fuzz, spread
from tests.fuzz.fuzz import HangError, attempt, examine_with
from tests.fuzz.inputs import hostile
from tests.fuzz.target import Target
from tests.fuzz.targets import open_targets

pytestmark = pytest.mark.no_cover  # being traced would double what these take, and other tests cover the code

PARTS = 2
COUNT = 20_000
NEVER_WHOLE = {"config", "environment"}
"""What they name is not on this machine; they refuse after having read everything."""

Targets = dict[str, Target]
Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    with open_targets(tmp_path_factory.mktemp("targets")) as found:
        yield found


@pytest.mark.parametrize("part", range(PARTS))
def test_no_parser_crashes_or_hangs(part: int, targets: Targets) -> None:
    result = examine_with(targets, range(part * COUNT // PARTS, (part + 1) * COUNT // PARTS))
    assert result.found == []
    assert result.tried.total() == COUNT // PARTS
    assert set(result.tried) == set(targets)
    assert set(targets) - set(result.taken) <= NEVER_WHOLE


def test_seeds_are_good_and_the_rest_is_refused_as_documented(targets: Targets) -> None:
    for name, target in targets.items():
        outcomes = [attempt(target, seed) for seed in target.seeds]
        assert [wrong for _, wrong in outcomes if wrong] == []
        assert ("", "") in outcomes or name in NEVER_WHOLE


def test_a_number_makes_the_same_input_again(targets: Targets) -> None:
    for number in range(0, 2000, 7):
        assert fuzz.pick(targets, number) == fuzz.pick(targets, number)
    assert fuzz.pick(targets, 5)[1] != fuzz.pick(targets, 5, seed=2)[1]


def test_no_input_is_longer_than_asked() -> None:
    made = [hostile((b"x" * 90, b'{"a":1}', b""), spread.chance_of(number, 1), 100) for number in range(5000)]
    assert max(map(len, made)) == 100
    assert len({*made}) > 2000


def spin(data: bytes) -> None:
    while data:
        pass


def dawdle(_: bytes) -> None:
    sum(range(20_000_000))


def choke(data: bytes) -> None:
    data.decode("ascii")


@pytest.mark.parametrize(
    ("parse", "errors", "outcome", "wrong"),
    [
        (len, (), "", ""),
        (choke, (ValueError,), "UnicodeDecodeError", ""),
        (choke, (KeyError,), "UnicodeDecodeError", "UnicodeDecodeError: 'ascii' codec can't decode"),
        (dawdle, (), "", "slow: "),
        (spin, (ValueError,), "HangError", "HangError: stopped after 0 s"),
    ],
)
def test_what_counts_as_found(
    parse: Callable[[bytes], object],
    errors: tuple[type[Exception], ...],
    outcome: str,
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if parse is spin:
        monkeypatch.setattr(fuzz, "HANG_S", 0.3)
    error, said = attempt(Target("x", parse, errors, ()), b"\xff")
    assert error == outcome
    assert said.startswith(wrong)
    assert bool(said) == bool(wrong)


def test_a_parser_cannot_catch_the_end_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def stubborn(data: bytes) -> None:
        try:
            spin(data)
        except Exception:
            pytest.fail("it was caught")

    monkeypatch.setattr(fuzz, "HANG_S", 0.3)
    assert attempt(Target("x", stubborn, (Exception,), ()), b"x")[0] == HangError.__name__


def join_redirects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_target", lambda url, location: (urljoin(url, location), ""))


def decode_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_decode64", base64.urlsafe_b64decode)


def decode_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keysets, "_decode", base64.urlsafe_b64decode)


def believe_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        devices, "decode_report", lambda body, who: report.decode_report(json.dumps(json.loads(body)).encode(), who)
    )


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("answer to a download", join_redirects),
        ("checkpoint", decode_checkpoints),
        ("keyset draft", decode_drafts),
        ("request of a device", believe_devices),
    ],
)
def test_a_weaker_parser_is_found(name: str, patch: Patch, targets: Targets, monkeypatch: pytest.MonkeyPatch) -> None:
    patch(monkeypatch)
    alone = {name: targets[name]}
    with capture_logs():  # a bug is logged with all that was at hand
        found = next(
            found for start in range(0, 2000, 20) for found in examine_with(alone, range(start, start + 20)).found
        )
    number = re.search(r"seed 1 input ([0-9]+) ", found)
    assert number
    target, data = fuzz.pick(alone, int(number[1]))
    assert found.endswith(f"({name}): {data!r}")
    with capture_logs():
        assert attempt(target, data)[1]


def test_what_was_found_is_printed_and_can_be_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert spread.main(fuzz.WORK, ["1500", "--processes", "1", "--seed", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1500 inputs in ")
    assert spread.main(fuzz.WORK, ["--only", "700", "--processes", "1"]) == 0
    assert "seed 1 input 700 (" in capsys.readouterr().out
