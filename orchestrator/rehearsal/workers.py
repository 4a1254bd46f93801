"""Many runs over all cores.

Rules:
- Each run depends on the scenario and its number alone, so the answer is the same for any number of processes.
- A process gets a few runs at a time, so that all end at about the same moment and an interruption is soon obeyed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread

from orchestrator.rehearsal.run import Outcome, Scenario, rehearse

MAX_PIECE = 10
PIECES_PER_JOB = 8


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rehearse_all(
    scenario: Scenario, runs: int, jobs: int, progress: Callable[[int], None] = lambda done: None
) -> list[Outcome]:
    """Run a scenario many times.

    Args:
        scenario: what is rehearsed.
        runs: how often.
        jobs: processes; with one, all is done in this one.
        progress: is told how many runs are done, now and then.

    Returns:
        The outcomes in the order of their numbers.
    """
    if jobs == 1:
        outcomes = []
        for number in range(runs):
            outcomes.append(rehearse(scenario, number))
            progress(number + 1)
        return outcomes
    return _over_processes(scenario, runs, jobs, progress)


def _over_processes(scenario: Scenario, runs: int, jobs: int, progress: Callable[[int], None]) -> list[Outcome]:
    pieces: dict[Future[list[Outcome]], range] = {}
    found: dict[int, Outcome] = {}
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _follow_parent)
    try:
        for numbers in _pieces(runs, jobs):
            pieces[pool.submit(_rehearse_some, scenario, numbers)] = numbers
        for done in as_completed(pieces):
            found.update(zip(pieces[done], done.result(), strict=True))
            progress(len(found))
    finally:
        pool.shutdown(cancel_futures=True)
    return [found[number] for number in range(runs)]


def _pieces(runs: int, jobs: int) -> Iterator[range]:
    size = min(max(runs // (jobs * PIECES_PER_JOB), 1), MAX_PIECE)
    for start in range(0, runs, size):
        yield range(start, min(start + size, runs))


def _rehearse_some(scenario: Scenario, numbers: range) -> list[Outcome]:
    return [rehearse(scenario, number) for number in numbers]


def _follow_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent obeys it, and ends the workers
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()  # it may be killed, and then nobody else tells us
    os._exit(1)
