"""Fixtures that give tests a real mosquitto."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from orchestrator.demo import broker
from orchestrator.demo.broker import BrokerInfo

StartBroker = Callable[..., Awaitable[BrokerInfo]]


@pytest.fixture
async def start_broker(tmp_path: Path) -> AsyncIterator[StartBroker]:
    """Return a function that starts mosquitto: `await start_broker(users={...}, port=..., conf_extra=...)`.

    Without users everybody may do everything. All are stopped when the test ends; each has its own folder.
    """
    program = broker.find_mosquitto()
    assert program, "mosquitto is not installed; run scripts/setup broker"
    async with AsyncExitStack() as stack:
        count = 0

        async def start(
            *,
            users: dict[str, str] | None = None,
            port: int | None = None,
            conf_extra: str = "",
            directory: Path | None = None,
        ) -> BrokerInfo:
            nonlocal count
            count += 1
            folder = directory or tmp_path / f"broker-{count}"
            running = broker.mosquitto(program, users=users, directory=folder, port=port, conf_extra=conf_extra)
            return await stack.enter_async_context(running)

        yield start


@pytest.fixture
async def open_broker(start_broker: StartBroker) -> BrokerInfo:
    """A mosquitto on which everybody may do everything."""
    return await start_broker()
