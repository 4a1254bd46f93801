"""How often an account may ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.trust.roles import Role
from orchestrator.web.rates import Rates, TooManyError
from tests.support.clock import Clock
from tests.web.site import problem, site


async def test_who_asks_too_often_is_told_when_to_come_again_and_others_are_not_kept_out(tmp_path: Path) -> None:
    clock = Clock()
    async with site(tmp_path, rates=Rates(2.0, 3, clock)) as web:
        bo = await web.operator("bo", Role.OPERATOR)
        answers = [await web.ops("GET", "/releases") for _ in range(5)]
        assert [item.status_code for item in answers] == [200, 200, 200, 429, 429]
        assert problem(answers[-1]) == (429, "too_many")
        assert answers[-1].headers["retry-after"] == "1"
        assert (await web.ops("GET", "/releases", token=bo)).status_code == 200
        clock.advance(0.5)
        assert [(await web.ops("GET", "/releases")).status_code for _ in range(2)] == [200, 429]


async def test_to_stop_is_never_refused(tmp_path: Path) -> None:
    clock = Clock()
    async with site(tmp_path, rates=Rates(1.0, 20, clock)) as web:
        await web.enrol("d1")
        await web.release()
        await web.roll_out()
        while (await web.ops("GET", "/releases")).status_code == 200:
            pass
        assert problem(await web.ops("POST", "/rollouts/spring/retry", {"reason": "x"}))[0] == 429
        paused = await web.ops("POST", "/rollouts/spring/pause", {"reason": "x"})
        halted = await web.ops("POST", "/rollouts/spring/halt", {"reason": "x"})
        assert (paused.json()["phase"], halted.json()["phase"]) == ("paused", "halted")


def test_no_limit() -> None:
    rates = Rates(0.0, 1, Clock())
    for _ in range(1000):
        rates.take("bo")


def test_buckets_that_are_full_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.web.rates._MOST", 10)
    clock = Clock()
    rates = Rates(1.0, 5, clock)
    for number in range(100):
        rates.take(f"account-{number}")
        clock.advance(1.0)
    assert len(rates._full_at) <= 11


@given(
    st.lists(st.floats(min_value=0, max_value=3), max_size=60),
    st.floats(min_value=0.1, max_value=50),
    st.integers(min_value=1, max_value=20),
)
def test_never_more_than_the_bucket_holds_and_what_it_fills_by(pauses: list[float], per_s: float, burst: int) -> None:
    clock = Clock()
    rates, begun, taken = Rates(per_s, burst, clock), clock(), 0
    for pause_s in pauses:
        clock.advance(pause_s)
        try:
            rates.take("bo")
        except TooManyError as error:
            assert error.again_s >= 1
        else:
            taken += 1
        assert taken <= burst + per_s * (clock() - begun) + 1e-3
