"""Asks the services that stages wait for, and stores what they answer.

Rules:
- Questions are asked side by side, each with its deadline, never within a transaction, and never twice at once.
- Of one service no more than `AT_ONCE` answers are waited for, so that one that hangs holds up nobody but itself.
- A service that cannot be asked, or says what cannot be judged, holds its stage: silence never advances.
- Only running rollouts ask, from when a stage opens; an answer belongs to the stage and gate that it was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import structlog

from orchestrator.core.judging import judgement, outside
from orchestrator.core.judging.outside import Answer, ServiceGate, Verdict
from orchestrator.core.model import Phase
from orchestrator.errors import OrchestratorError, UnavailableError
from orchestrator.ports import Asker, Lane, Store, Tx

LOOK_S = 1.0
AT_ONCE = 4
"""Answers of one service that are waited for at once; who comes after asks at the next look."""

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

    @property
    def place(self) -> tuple[int, int]:
        """For what it is asked; one question at a time."""
        return self.rollout_id, self.stage

    @property
    def service(self) -> str:
        """Who is asked: scheme, host and port."""
        return "://".join(urlsplit(self.gate.url)[:2])


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
        self._asking: dict[tuple[int, int], str] = {}

    async def run(self, pause: Callable[[float], Any] = asyncio.sleep) -> None:
        """Ask what is due, for ever; who does not answer is not waited for."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await pause(LOOK_S)
                try:
                    questions = await self._take_due()
                except UnavailableError as error:
                    _log.error("store.unavailable", error=error.message)
                    continue
                for question in questions:
                    tasks.create_task(self._settle(question), name=f"gate of rollout {question.rollout_id}")

    async def ask_due(self) -> int:
        """Ask every service whose turn it is, and wait for all of them; returns how many."""
        questions = await self._take_due()
        await asyncio.gather(*(self._settle(question) for question in questions))
        return len(questions)

    async def _take_due(self) -> list[Question]:
        """Return what is to be asked now, and remember that it is being asked."""
        taken = []
        for question in await self._store.read(partial(due, now=self._now())):
            busy = sum(service == question.service for service in self._asking.values())
            if question.place not in self._asking and busy < AT_ONCE:
                self._asking[question.place] = question.service
                taken.append(question)
        return taken

    async def _settle(self, question: Question) -> None:
        try:
            asked_at = self._now()
            verdict, text = await self._ask(question.gate)
            answer = Answer(question.stage, asked_at, verdict, text)
            await self._store.transact(Lane.OPERATOR, partial(_save, question=question, answer=answer))
        except UnavailableError as error:
            _log.error("store.unavailable", error=error.message)  # it stays due
        else:
            self._changed({question.rollout_id})
        finally:
            del self._asking[question.place]

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
    """Return what is to be asked now, of all running rollouts; first whoever waited longest."""
    found = []
    for rollout in tx.rollouts([Phase.RUNNING]):
        gate = judgement.gate_of(rollout) if rollout.stages else None
        if gate is None:
            continue
        last = tx.gate_answer(rollout.id, rollout.stage)
        if last is None or not 0 <= now - last.asked_at < gate.every_s:  # below 0: the clock was set back
            found.append((0.0 if last is None else last.asked_at, Question(rollout.id, rollout.stage, gate)))
    return [question for _, question in sorted(found, key=itemgetter(0))]


def _save(tx: Tx, question: Question, answer: Answer) -> None:
    """Store an answer, unless the rollout asks something else by now."""
    rollout = tx.rollout(question.rollout_id)
    assert rollout is not None, "rollouts are never deleted"
    if (rollout.stage, judgement.gate_of(rollout)) == (question.stage, question.gate):
        tx.save_gate_answer(question.rollout_id, answer)
