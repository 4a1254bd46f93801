"""What is asked of the whole fleet: who still runs a vulnerable version, and how fast a rollout protects."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import StreamingResponse

from orchestrator.client import answers
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.insight import curve, exposure, moved
from orchestrator.engine.insight.exposure import Question
from orchestrator.web.access import may
from orchestrator.web.context import Context
from orchestrator.web.described import LINES, SECURE, api_router, gives, gives_lines

View = dict[str, Any]
Word = Annotated[str, Query(max_length=64)]
Counter = Annotated[int | None, Query(ge=1, lt=2**53)]


def insight_router(context: Context) -> APIRouter:
    """Return the routes that look at many devices at once."""
    router = api_router("fleet")
    reader = Annotated[Caller, may(context, Act.READ)]
    store, now = context.store, context.now

    @router.get("/exposed", responses=gives(answers.Exposure))
    async def count_exposed(_: reader, rollout: Word = "", advisory: Word = "", below: Counter = None) -> View:
        """Count who still runs a vulnerable version, by what a rollout or an advisory mends or by a release counter."""
        question = Question(rollout, advisory, below)
        return await store.read(lambda tx: exposure.count(tx, question, now()))

    @router.get("/exposed/devices", responses=gives_lines(answers.ExposedDevice), response_class=StreamingResponse)
    async def list_exposed(
        _: reader, rollout: Word = "", advisory: Word = "", below: Counter = None
    ) -> StreamingResponse:
        """List these devices, one JSON object a line."""
        pages = exposure.lines(store, Question(rollout, advisory, below))
        first: list[View] = await anext(pages, [])  # what is wrong with the question is said before the answer begins
        return StreamingResponse(_text(first, pages), headers=SECURE, media_type=LINES)

    @router.get("/endpoints", responses=gives(answers.Endpoints))
    async def count_endpoints(_: reader) -> View:
        """Count devices by the endpoints that they go by."""
        return await store.read(moved.count)

    @router.get("/rollouts/{name}/curve", responses=gives(answers.Curve), tags=["rollouts"])
    async def get_curve(name: str, _: reader) -> View:
        """Say how many devices were offered the release and are protected, over time."""
        return await store.read(lambda tx: curve.of_rollout(tx, name))

    return router


async def _text(first: list[View], pages: AsyncIterator[list[View]]) -> AsyncIterator[bytes]:
    yield _lines(first)
    async for page in pages:
        yield _lines(page)


def _lines(page: list[View]) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in page).encode()
