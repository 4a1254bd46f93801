"""Time for tests: a clock that stands still until it is moved, and waiting without sleeping through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

START_AT = 1_800_000_000.0
"""When every test begins."""


class Clock:
    """Returns the present time when called, in seconds since the epoch."""

    def __init__(self, at: float = START_AT) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += seconds


async def until(holds: Callable[[], object], *, within_s: float = 30.0) -> None:
    """Let other tasks go on until something holds."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(*jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run endless jobs beside a test; one that ends with an error fails it."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
