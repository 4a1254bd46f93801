"""The first page: what the fleet runs, who is there, and what needs somebody."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.rollout import UNFINISHED
from orchestrator.engine.insight import census, chronicle
from orchestrator.engine.insight import views as engine_views
from orchestrator.ports import Tx
from orchestrator.web.approvals import view as proposal_view
from orchestrator.web.context import Context
from orchestrator.web.pages.changes import COSTS_TIMES, print_of
from orchestrator.web.pages.house import House, Visitor, live
from orchestrator.web.pages.views import fleet as shown

EVENTS = "/changes/fleet"
CENSUS_S = 10.0
"""An open page shows a census that is so old at most, unless to count takes long; who loads it sees one of now."""
_MOST_PROPOSALS = 50

Standing = tuple[list[shown.View], list[shown.View], int]


def fleet_routes(house: House) -> list[Route]:
    """Return the routes of the first page."""
    desk = _Desk(house)
    return [house.page("/", desk.page), house.events(EVENTS, desk.look)]


class _Desk:
    """Answers what is asked of the fleet."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._context = house.context
        self._census = _Census(house.context)

    async def page(self, request: Request, visitor: Visitor) -> Response:
        """Show the fleet."""
        counted, standing = await self._found(anew=not visitor.unasked)
        now, status = self._context.now(), self._context.status()
        days = await self._context.store.read(lambda tx: chronicle.history(tx, now))
        view = shown.page(counted, *standing, days, status)
        follows = live(request, EVENTS, _print_of(view))
        return self._house.show("fleet.html", visitor, "fleet", title="Fleet", page=view, live=follows)

    async def look(self, _: Request) -> str:
        """Return the print of the page."""
        counted, standing = await self._found(anew=False)
        return _print_of(shown.page(counted, *standing, [], self._context.status()))

    async def _found(self, *, anew: bool) -> tuple[shown.View, Standing]:
        now = self._context.now()
        return await self._census.counted(anew=anew), await self._context.store.read(lambda tx: _standing(tx, now))


class _Census:
    """The census, counted once for all who look."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._turn = asyncio.Lock()
        self._counted: shown.View = {}
        self._began = 0.0
        self._until = 0.0

    async def counted(self, *, anew: bool) -> shown.View:
        """Return what was counted; with `anew`, since this was called."""
        asked = time.monotonic()
        async with self._turn:
            if (anew and self._began < asked) or time.monotonic() >= self._until:
                await self._count()
            return self._counted

    async def _count(self) -> None:
        began, now = time.monotonic(), self._context.now()
        self._counted = await self._context.store.read(lambda tx: census.of_fleet(tx, now))
        ended = time.monotonic()
        self._began, self._until = began, ended + max(CENSUS_S, COSTS_TIMES * (ended - began))


def _standing(tx: Tx, now: float) -> Standing:
    lines = [
        engine_views.rollout_line(item, tx.tally(item.id)) | {"moved_at": item.moved_at}
        for item in tx.rollouts(UNFINISHED)
    ]
    proposals = [proposal_view(item, now) for item in tx.open_proposals(now, _MOST_PROPOSALS)]
    return lines, proposals, len(tx.open_reviews())


def _print_of(view: shown.View) -> str:
    """Return the print of the page; the days, which change once an hour, are not in it."""
    return print_of({name: item for name, item in view.items() if name != "history"})
