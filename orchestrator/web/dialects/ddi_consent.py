"""hawkBit's consent flow: the client asks the user of its device, and says what the user wants.

Rules:
- A user is asked where a plan asks and nothing else stands before the answer; the number is that of the update, which
  becomes a deployment of the same number.
- Yes is an agreement to this update. No puts it off by a day, or what the plan allows; then the user is asked again.
- An agreement to every update is kept until it is taken back. Said twice, it is the first one.
- Whether any plan asks is looked up now and then, so that polls with nothing to do read nothing.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.core.model import Device
from orchestrator.core.pace.requirement import Standing
from orchestrator.engine.offers import consents
from orchestrator.engine.offers.consents import Question
from orchestrator.errors import NotFoundError
from orchestrator.ports import Lane
from orchestrator.web.bodies import body_of
from orchestrator.web.context import Context
from orchestrator.web.dialects import ddi_documents as documents
from orchestrator.web.dialects import ddi_feedback as feedback
from orchestrator.web.dialects.ddi_requests import json_answer, number_of, place_of, taken
from orchestrator.wire.report import Hello, OwnFacts

PUT_OFF_S = 86_400.0
LOOK_AGAIN_S = 10.0
_MAX_BODY_BYTES = 64 * 1024


class Consents:
    """The consent flow over one daemon."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._looked_at = 0.0
        self._any = False

    async def link(self, request: Request, device: Device) -> dict[str, str]:
        """Return the link by which a poll says that the user is to be asked; nothing if there is none."""
        question = await self._question(device) if await self._are_any_asked() else None
        if question is None:
            return {}
        place, update = place_of(request, self._context), question.update
        return {"confirmationBase": f"{place}/confirmationBase/{update.id}?c={update.attempt}"}

    async def overview(self, request: Request, device: Device) -> Response:
        """Say whether the user agrees to everything, and whether there is a question."""
        standing = await self._context.store.read(lambda tx: consents.standing_of(tx, device))
        place = f"{place_of(request, self._context)}/confirmationBase"
        change = "activateAutoConfirm" if standing is None else "deactivateAutoConfirm"
        links = {change: f"{place}/{change}"} | await self.link(request, device)
        return json_answer(request, documents.consents(standing, links))

    async def question(self, request: Request, device: Device) -> Response:
        """Say what the user is asked about."""
        question = await self._asked(request, device)
        if question is None:
            raise NotFoundError("there is nothing to confirm by the user of this device")
        document = documents.question(question.update, question.artifact, place_of(request, self._context))
        return json_answer(request, document)

    async def answer(self, request: Request, device: Device) -> Response:
        """Take what the user says; about what is not asked it means nothing."""
        agreed = feedback.decode_confirmation(await body_of(request, _MAX_BODY_BYTES))
        question = await self._asked(request, device)
        if question is not None:
            later = None if agreed else int(self._context.now() + min(PUT_OFF_S, question.longest_s))
            facts = OwnFacts(agreed=agreed, later=later)
            hello = Hello(v=1, dev=device.id, model=device.model, ver=device.version, rel=device.rel, facts=facts)
            await self._context.recorder.submit(hello)
        return taken()

    async def agree_always(self, request: Request, device: Device) -> Response:
        """Take that the user agrees to everything from now on."""
        said = feedback.decode_standing(await body_of(request, _MAX_BODY_BYTES))
        await self._stand(device, Standing(self._context.now(), said.initiator, said.remark))
        return taken()

    async def ask_again(self, _request: Request, device: Device) -> Response:
        """Take that the user wants to be asked from now on."""
        await self._stand(device, None)
        return taken()

    async def _stand(self, device: Device, standing: Standing | None) -> None:
        before = await self._context.store.read(lambda tx: consents.standing_of(tx, device))
        if (before is None) == (standing is None):
            return  # said again
        work = partial(consents.agree_always, device=device, standing=standing)
        freed = await self._context.store.transact(Lane.REPORTS, work)
        self._context.conductor.changed(freed)

    async def _asked(self, request: Request, device: Device) -> Question | None:
        question = await self._question(device)
        return question if question is not None and question.update.id == number_of(request) else None

    async def _question(self, device: Device) -> Question | None:
        now = self._context.now()
        found = await self._context.store.read(lambda tx: consents.question_for(tx, device, now))
        return None if found is None or not documents.can_name(found.update, found.artifact) else found

    async def _are_any_asked(self) -> bool:
        now = self._context.now()
        if not 0 <= now - self._looked_at < LOOK_AGAIN_S:
            self._any, self._looked_at = await self._context.store.read(consents.are_asked), now
        return self._any
