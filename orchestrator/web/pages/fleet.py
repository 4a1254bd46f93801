"""The first page: what the fleet runs, who is there, and what needs somebody."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.model import Phase
from orchestrator.core.rollout import FINISHED
from orchestrator.engine.insight import census, chronicle
from orchestrator.engine.insight import views as engine_views
from orchestrator.ports import Tx
from orchestrator.web.approvals import view as proposal_view
from orchestrator.web.pages.house import House, Visitor
from orchestrator.web.pages.views import fleet as shown

_MOST_PROPOSALS = 50
_LIVE = frozenset(Phase) - FINISHED


def fleet_routes(house: House) -> list[Route]:
    """Return the routes of the first page."""

    async def page(_: Request, visitor: Visitor) -> Response:
        now = house.context.now()

        def work(tx: Tx) -> tuple[shown.View, list[shown.View], list[shown.View], int, list[shown.View]]:
            lines = [
                engine_views.rollout_line(item, tx.tally(item.id)) | {"moved_at": item.moved_at}
                for item in tx.rollouts(_LIVE)
            ]
            proposals = [proposal_view(item, now) for item in tx.proposals(_MOST_PROPOSALS)]
            return census.of_fleet(tx, now), lines, proposals, len(tx.open_reviews()), chronicle.history(tx, now)

        found = await house.context.store.read(work)
        view = shown.page(*found, house.context.status())
        return house.show("fleet.html", visitor, "fleet", title="Fleet", page=view)

    return [house.page("/", page)]
