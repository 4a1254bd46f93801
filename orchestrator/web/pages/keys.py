"""The page of keys and certificates: what devices hold, what signs, and what ends when."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.verifier import BEAT, TRIGGER
from orchestrator.web.pages.house import House, Visitor
from orchestrator.web.pages.views import keys as shown


def keys_routes(house: House) -> list[Route]:
    """Return the routes of the page of keys and certificates."""
    context = house.context

    async def page(_: Request, visitor: Visitor) -> Response:
        taken_at = await context.store.read(lambda tx: tx.keyset_taken_at())
        keyring = context.keyring
        signing = [TRIGGER, *({BEAT} & {key.typ for key in keyring.keyset.keys.values()})]
        faults = [text for typ in signing for text in keyring.faults(typ)]
        view = shown.page(keyring.keyset, context.status().get("expires"), faults, taken_at, context.now())
        return house.show("keys.html", visitor, "keys", title="Keys", page=view)

    return [house.page("/keys", page)]
