"""The page of artifacts, with the releases that were made of them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.model import Artifact
from orchestrator.engine.insight import views
from orchestrator.ports import Tx
from orchestrator.web.pages.house import House, Visitor
from orchestrator.web.pages.views import artifacts as shown


def artifacts_routes(house: House) -> list[Route]:
    """Return the routes of the page of artifacts."""

    async def page(_: Request, visitor: Visitor) -> Response:
        def work(tx: Tx) -> shown.View:
            plans = [(item.plan.release, item.plan.name, item.phase.value) for item in tx.rollouts()]
            lines = [_line(item) for item in tx.artifacts()]
            return shown.page(lines, [views.release_line(item) for item in tx.releases()], plans)

        view = await house.context.store.read(work)
        return house.show("artifacts.html", visitor, "artifacts", title="Artifacts", page=view)

    return [house.page("/artifacts", page)]


def _line(item: Artifact) -> shown.View:
    said = {"sec": item.sec, "min_from": item.min_from, "leaves": list(item.leaves)}
    return views.artifact_line(item) | said
