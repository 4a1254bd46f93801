"""Asks the services that stages wait for, and stores what they answer.

Rules:
- One question at a time, each with its deadline, and never within a transaction.
- A service that cannot be asked, or says what cannot be judged, holds its stage: silence never advances.
- Only running rollouts ask, from when a stage opens; an answer belongs to the stage that it was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import structlog

from orchestrator.core.judging import judgement, outside
from orchestrator.core.judging.outside import Answer, ServiceGate, Verdict
from orchestrator.core.model import Phase
from orchestrator.errors import OrchestratorError, UnavailableError
from orchestrator.ports import Asker, Lane, Store, Tx

LOOK_S = 1.0
_log = structlog.get_logger(__name__)


class Question(NamedTuple):
    """What is to be asked now.

    Attributes:
        rollout_id: for which rollout.
        stage: for which of its stages.
        gate: whom, and what.
    """

    rollout_id: int
    stage: int
    gate: ServiceGate


class Gatekeeper:
    """Asks.

    Args:
        store: where rollouts are, and answers go.
        asker: who asks.
        now: the clock.
        changed: called with the rollouts that got an answer, after the commit.
    """

    def __init__(
        self, store: Store, asker: Asker, now: Callable[[], float], changed: Callable[[set[int]], None]
    ) -> None:
        self._store = store
        self._asker = asker
        self._now = now
        self._changed = changed

    async def run(self, pause: Callable[[float], Any] = asyncio.sleep) -> None:
        """Ask what is due, for ever."""
        while True:
            await pause(LOOK_S)
            try:
                await self.ask_due()
            except UnavailableError as error:
                _log.error("store.unavailable", error=error.message)

    async def ask_due(self) -> int:
        """Ask every service whose turn it is; returns how many."""
        questions = await self._store.read(partial(due, now=self._now()))
        for question in questions:
            asked_at = self._now()
            verdict, text = await self._ask(question.gate)
            answer = Answer(question.stage, asked_at, verdict, text)
            await self._store.transact(Lane.OPERATOR, partial(_save, rollout_id=question.rollout_id, answer=answer))
            self._changed({question.rollout_id})
        return len(questions)

    async def _ask(self, gate: ServiceGate) -> tuple[Verdict, str]:
        try:
            async with asyncio.timeout(gate.timeout_s):
                body = await self._asker.ask(gate.url)
        except TimeoutError:
            return Verdict.HOLD, f"{gate.place} did not answer within {gate.timeout_s:g} s"
        except OrchestratorError as error:
            return Verdict.HOLD, f"{gate.place} cannot be asked: {error.message}"
        return outside.read(gate, body)


def due(tx: Tx, now: float) -> list[Question]:
    """Return what is to be asked now, of all running rollouts."""
    found = []
    for rollout in tx.rollouts([Phase.RUNNING]):
        gate = judgement.gate_of(rollout) if rollout.stages else None
        if gate is None:
            continue
        last = tx.gate_answer(rollout.id, rollout.stage)
        if last is None or not 0 <= now - last.asked_at < gate.every_s:  # below 0: the clock was set back
            found.append(Question(rollout.id, rollout.stage, gate))
    return found


def _save(tx: Tx, rollout_id: int, answer: Answer) -> None:
    tx.save_gate_answer(rollout_id, answer)
