"""All pages, each from its own file."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from orchestrator.web.context import Context
from orchestrator.web.pages.accounts import accounts_routes
from orchestrator.web.pages.approvals import approvals_routes
from orchestrator.web.pages.artifacts import artifacts_routes
from orchestrator.web.pages.audit import audit_routes
from orchestrator.web.pages.device import device_routes
from orchestrator.web.pages.devices import devices_routes
from orchestrator.web.pages.fleet import fleet_routes
from orchestrator.web.pages.house import House
from orchestrator.web.pages.keys import keys_routes
from orchestrator.web.pages.login import login_routes
from orchestrator.web.pages.rollout import rollout_routes
from orchestrator.web.pages.rollouts import rollouts_routes
from orchestrator.web.pages.votes import vote_routes


def page_routes(context: Context) -> list[BaseRoute]:
    """Return the routes of the operators' pages."""
    house = House(context)
    return [
        Route("/static/{name:path}", house.guarded(house.assets.serve), methods=["GET"]),
        *login_routes(house),
        *fleet_routes(house),
        *rollouts_routes(house),
        *rollout_routes(house),
        *devices_routes(house),
        *device_routes(house),
        *artifacts_routes(house),
        *approvals_routes(house),
        *vote_routes(house),
        *audit_routes(house),
        *keys_routes(house),
        *accounts_routes(house),
    ]
