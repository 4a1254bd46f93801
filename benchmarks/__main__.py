"""`make bench`: each figure beside its yardstick, measured in the same run on a fresh broker.

One line per figure, ending in `ratio N.NN`. Absolute rates depend on the machine and its neighbours; the
ratios are what is compared. `BENCH_DEVICES` and `BENCH_ROUNDS` change the size. What takes minutes has a command of its
own, and `benchmarks/README.md` its figures: `python -m benchmarks.step`, `.start`, `.halts` and `.responder`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import tempfile
from pathlib import Path

import structlog

from benchmarks import halts, ingest, pace, polls, rehearsal, scrape, start, step, triggers
from orchestrator.daemon import tune_interpreter
from orchestrator.demo.broker import broker

HALTS = 10


def _folder(under: str, name: str) -> Path:
    made = Path(under) / name
    made.mkdir()
    return made


async def _main() -> None:
    tune_interpreter()  # as the daemon does
    devices = int(os.environ.get("BENCH_DEVICES", "20000"))
    rounds = int(os.environ.get("BENCH_ROUNDS", "4"))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {devices} devices, {rounds} rounds")
    with tempfile.TemporaryDirectory(prefix="ota-bench-") as folder:
        async with broker(users=None, directory=Path(folder) / "broker") as info:
            await ingest.run(info, Path(folder), devices, rounds)
        async with broker(users=None, directory=Path(folder) / "broker2") as info:
            await triggers.run(info, Path(folder), max(devices // 10, 500), rounds)
        async with broker(users=None, directory=Path(folder) / "broker3") as info:
            await halts.run(info, _folder(folder, "halts"), HALTS, max(devices // 10, 1000))
        await step.run(_folder(folder, "step"), 5 * devices)
        await start.run(_folder(folder, "start"), 5 * devices)
        await polls.run(_folder(folder, "polls"), 5 * devices, 1)
        await scrape.run(_folder(folder, "scrape"), 5 * devices)
    pace.run(rounds)
    rehearsal.run(rounds)


if __name__ == "__main__":
    asyncio.run(_main())
