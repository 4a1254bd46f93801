"""What engine tests share: a plant in a folder of its own, and loops that try again at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.engine.offers import dispatcher, sealer
from orchestrator.engine.reports import recorder
from orchestrator.engine.rollouts import conductor
from tests.support.factory import Plant, plant


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _try_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (conductor, dispatcher, recorder, sealer):
        monkeypatch.setattr(module, "RETRY_S", 0.0)
