"""The page of all rollouts."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.rollout import FINISHED
from orchestrator.engine.insight import views as engine_views
from orchestrator.ports import Tx
from orchestrator.web.pages.changes import print_of
from orchestrator.web.pages.house import House, Visitor, live
from orchestrator.web.pages.views import rollouts as shown

EVENTS = "/changes/rollouts"
MOST_OVER = 50
"""Rollouts that are over and shown, the newest ones: all are listed by the command line."""


def rollouts_routes(house: House) -> list[Route]:
    """Return the routes of the page of all rollouts."""
    store = house.context.store

    async def page(request: Request, visitor: Visitor) -> Response:
        found, older = await store.read(_lines)
        view, follows = shown.page(found, older), live(request, EVENTS, print_of(found, older))
        return house.show("rollouts.html", visitor, "rollouts", title="Rollouts", page=view, live=follows)

    async def look(_: Request) -> str:
        return print_of(*await store.read(_lines))

    return [house.page("/rollouts", page), house.events(EVENTS, look)]


def _lines(tx: Tx) -> tuple[list[shown.View], int]:
    """Return the lines of all rollouts that are not over and of the newest that are, and how many older there are."""
    found = tx.rollouts()
    over = [item for item in found if item.phase in FINISHED]
    left = {item.id for item in over[MOST_OVER:]}
    lines = [
        engine_views.rollout_line(item, tx.tally(item.id)) | {"moved_at": item.moved_at}
        for item in found
        if item.id not in left
    ]
    return lines, len(left)
