"""Rows are read by several threads from the first moment on."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

_MANY_THREADS = """
    import sys, threading
    from types import SimpleNamespace

    from orchestrator.adapters.store import rows
    from orchestrator.core.model import Plan, SizeKind, StagePlan

    sys.setswitchinterval(1e-6)
    plan = Plan("r", "fw", (StagePlan(SizeKind.COUNT, 5),))
    row = SimpleNamespace(
        id=1, plan=rows.to_json(plan), phase="draft", reason_code="", reason_text="", actor="", moved_at=0.0,
        version=1, stage=0, stages="[]", cohort_size=1, cohort_at=0.0, strata=1, epoch=0, plan_version=1,
        moves=False,
    )
    together = threading.Barrier(16)

    def read(number):
        together.wait()
        for _ in range(40 * number):
            pass
        for _ in range(20):
            assert rows.rollout(row).plan == plan

    threads = [threading.Thread(target=read, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


@pytest.mark.parametrize("attempt", range(4))
def test_the_first_look_at_a_rollout_may_come_from_many_threads_at_once(attempt: int) -> None:
    """Without decoders made on import, this ends with SIGSEGV more often than not."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_MANY_THREADS)], check=False, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
