"""The single writer: one thread, one connection, work taken in the order of lanes.

Rules:
- A piece of work is one transaction; its future resolves only after the commit returned.
- Work never waits for anything but the database, so the next lane-0 command is at most one batch away.
- The last lane is not starved: after a few others one piece of it gets its turn.
- A closed writer finishes what it has and refuses the rest.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from orchestrator.errors import UnavailableError

Result = TypeVar("Result")


PATIENCE = 8
"""Pieces of other lanes after which the oldest piece of the last lane goes first."""


class Writer:
    """Runs functions one at a time in its own thread, lowest lane first."""

    def __init__(self, name: str) -> None:
        self._condition = threading.Condition()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._passed_over = 0
        self._closed = False
        self._began: float | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """How long it has been at its present piece of work, 0 while it has none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    async def submit(self, lane: int, work: Callable[[], Result]) -> Result:
        """Run `work` in the writer thread and return what it returns.

        Raises:
            UnavailableError: the writer is closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def run() -> None:
            try:
                result = work()
            except BaseException as error:  # whatever it is belongs to the caller
                loop.call_soon_threadsafe(_fail, future, error)
            else:
                loop.call_soon_threadsafe(_finish, future, result)

        with self._condition:
            if self._closed:
                raise UnavailableError("the store is closed")
            heapq.heappush(self._heap, (lane, next(self._order), run))
            self._condition.notify()
        return await future

    def close(self) -> None:
        """Finish what was submitted and stop. Blocks; call it in a thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._heap:
                    if self._closed:
                        return
                    self._condition.wait()
                run = self._next()
            self._began = time.monotonic()
            run()
            self._began = None

    def _next(self) -> Callable[[], None]:
        last = max(lane for lane, _, _ in self._heap)
        first = self._heap[0]
        if first[0] < last and self._passed_over >= PATIENCE:
            first = min(item for item in self._heap if item[0] == last)
        self._passed_over = self._passed_over + 1 if first[0] < last else 0
        self._heap.remove(first)
        heapq.heapify(self._heap)
        return first[2]


def _finish(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
