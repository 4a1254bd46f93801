"""How trouble with triggers looks to a person: `ota rollout explain` and `ota device explain` name it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.model import Rollout, UpdateState
from orchestrator.verifier import REASONS, TRIGGER, Keyset
from orchestrator.wire.report import Kind
from tests.cli.house import House, house
from tests.support.builders import REST, make_plan
from tests.support.factory import DEPLOYMENT, KEYS


@pytest.fixture
def live(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as running:
        running.do(running.site.plant.enrol(3))
        yield running


def begin(live: House) -> Rollout:
    rollout: Rollout = live.do(live.site.plant.running(make_plan((REST,))))
    return rollout


def test_refusals_stand_with_their_meaning(live: House) -> None:
    plant, rollout = live.site.plant, begin(live)
    live.do(plant.send())
    updates = live.do(plant.updates(rollout, UpdateState.OFFERED))
    live.do(plant.say(updates[:2], Kind.REFUSED, code="stale_seq"))
    lines = live.well("rollout", "explain", "spring").splitlines()
    assert "  2 of 3 devices refused: stale_seq" in lines
    assert f"  refused 2 times: stale_seq  {REASONS['stale_seq']}" in lines
    text = live.well("device", "explain", updates[0].device_id)
    assert "  refused last at " in text
    assert f": stale_seq. {REASONS['stale_seq']}\n" in text


def test_that_nothing_can_be_signed_is_the_reason(live: House) -> None:
    begin(live)
    others = {kid: key for kid, key in KEYS.items() if key.typ != TRIGGER}
    live.site.plant.keyring._keyset = Keyset(DEPLOYMENT, 4, others)
    said = (
        "because no trigger can be signed: No trigger key at hand is good under keyset 4: `ota keys rotate` makes one."
    )
    assert said in live.well("rollout", "explain", "spring")
    assert said in live.well("rollout", "get", "spring")
