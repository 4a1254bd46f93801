"""The page of all rollouts."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.engine.insight import views as engine_views
from orchestrator.ports import Tx
from orchestrator.web.pages.changes import print_of
from orchestrator.web.pages.house import House, Visitor, live
from orchestrator.web.pages.views import rollouts as shown

EVENTS = "/changes/rollouts"


def rollouts_routes(house: House) -> list[Route]:
    """Return the routes of the page of all rollouts."""
    store = house.context.store

    async def page(request: Request, visitor: Visitor) -> Response:
        found = await store.read(_lines)
        view, follows = shown.page(found), live(request, EVENTS, print_of(found))
        return house.show("rollouts.html", visitor, "rollouts", title="Rollouts", page=view, live=follows)

    async def look(_: Request) -> str:
        return print_of(await store.read(_lines))

    return [house.page("/rollouts", page), house.events(EVENTS, look)]


def _lines(tx: Tx) -> list[shown.View]:
    return [engine_views.rollout_line(item, tx.tally(item.id)) | {"moved_at": item.moved_at} for item in tx.rollouts()]
