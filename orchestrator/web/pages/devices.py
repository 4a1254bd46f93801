"""The page of all devices: those that a selector means, in pages."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.targeting.selector import MAX_CHARS, SelectorError
from orchestrator.engine.insight import listing, views
from orchestrator.web.pages.house import House, Visitor, go_to
from orchestrator.web.pages.views import devices as shown
from orchestrator.wire.topics import is_identifier

PAGE = 50


def devices_routes(house: House) -> list[Route]:
    """Return the routes of the page of all devices."""
    context = house.context

    async def page(request: Request, visitor: Visitor) -> Response:
        where = request.query_params.get("where", "").strip()[: MAX_CHARS + 1]
        after = request.query_params.get("after", "")[:64]
        only = request.query_params.get("quarantined") == "yes"
        if is_identifier(where) and await context.store.read(lambda tx: tx.device(where)) is not None:
            return go_to(f"/devices/{where}")  # a name alone is no selector, and who types one means that device
        fault = ""
        found = listing.Devices((), "", 0)
        try:
            found = await listing.devices(context.store, where, after, PAGE, quarantined=only)
        except SelectorError as error:
            fault = error.message
        fleet = await context.store.read(lambda tx: tx.fleet_size())
        lines = [views.device_line(item) for item in found.found]
        view = shown.page(lines, fleet, found.seen, found.after, fault)
        asked = {"where": where, "quarantined": "yes" if only else ""}
        view["next"] = _place(asked | {"after": found.after}) if found.after else ""
        view["first"] = _place(asked) if after else ""
        return house.show("devices.html", visitor, "devices", title="Devices", page=view, where=where, only=only)

    return [house.page("/devices", page)]


def _place(asked: dict[str, str]) -> str:
    query = urlencode({name: text for name, text in asked.items() if text})
    return f"/devices?{query}" if query else "/devices"
