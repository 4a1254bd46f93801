"""The page of all rollouts."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.engine.insight import views as engine_views
from orchestrator.ports import Tx
from orchestrator.web.pages.house import House, Visitor
from orchestrator.web.pages.views import rollouts as shown


def rollouts_routes(house: House) -> list[Route]:
    """Return the routes of the page of all rollouts."""

    async def page(_: Request, visitor: Visitor) -> Response:
        found = await house.context.store.read(_lines)
        return house.show("rollouts.html", visitor, "rollouts", title="Rollouts", page=shown.page(found))

    return [house.page("/rollouts", page)]


def _lines(tx: Tx) -> list[shown.View]:
    return [engine_views.rollout_line(item, tx.tally(item.id)) | {"moved_at": item.moved_at} for item in tx.rollouts()]
