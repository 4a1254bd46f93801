"""What the fleet ran, day by day: the last count of a day stays, and only so many days are shown."""

from __future__ import annotations

import pytest

from orchestrator.engine.insight import chronicle
from orchestrator.engine.insight.chronicle import DAY_S, Chronicle
from orchestrator.errors import UnavailableError
from orchestrator.wire.report import Hello
from tests.support.factory import Plant


async def told(it: Plant) -> list[tuple[float, list[tuple[str, int]]]]:
    found = await it.store.read(lambda tx: chronicle.history(tx, it.clock()))
    return [(day["at"], [(line["version"], line["devices"]) for line in day["versions"]]) for day in found]


async def test_the_last_count_of_a_day_stays(it: Plant) -> None:
    kept = Chronicle(it.store, it.clock)
    assert await told(it) == []
    await it.enrol(3)
    await kept.keep()
    await it.enrol(2, prefix="e")
    await kept.keep()
    first = it.clock() // DAY_S * DAY_S
    assert await told(it) == [(first, [("1.0.0", 5)])]
    it.clock.advance(DAY_S)
    await it.record(hellos=[Hello(v=1, dev=f"d00{at}", model="m1", ver="2.0.0", rel=2) for at in range(3)])
    await kept.keep()
    assert await told(it) == [(first, [("1.0.0", 5)]), (first + DAY_S, [("2.0.0", 3), ("1.0.0", 2)])]
    it.clock.advance((chronicle.DAYS - 1) * DAY_S)
    assert [at for at, _ in await told(it)] == [first + DAY_S]


async def test_a_store_that_is_away_is_asked_again(it: Plant) -> None:
    pauses = []

    class Away:
        async def read(self, _: object) -> object:
            raise UnavailableError("no room")

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise EOFError

    with pytest.raises(EOFError):
        await Chronicle(Away(), it.clock).run(pause)  # type: ignore[arg-type]
    assert pauses == [chronicle.EVERY_S] * 2
