"""The tenant's configuration as hawkBit names it: shown, and set in our file alone.

Rules:
- To set what holds already is no change, so that scripts which set everything first go on; anything else is refused
  with the key of our configuration.
- A secret is never shown.
"""

from __future__ import annotations

import hmac
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestrator.core.trust.roles import Caller
from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError
from orchestrator.web.bodies import body_of
from orchestrator.web.context import Context
from orchestrator.web.dialects.ddi_documents import sleep
from orchestrator.web.management import said

_GATEWAY_KEY = "authentication.gatewaytoken.key"


class System:
    """What is done with the configuration."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def show(self, request: Request, _: Caller) -> Response:
        """Show a value."""
        key = request.path_params["key"]
        if key == _GATEWAY_KEY:
            raise ForbiddenError("the gateway token is not shown; it stands in the file ddi.gateway_token_file")
        value, _where = self._known(key)
        return JSONResponse({"value": value, "global": True})

    async def change(self, request: Request, _: Caller) -> Response:
        """Take a value that holds already."""
        key = request.path_params["key"]
        wanted = said.decode(await body_of(request, said.MAX_BODY_BYTES), said.Value).value
        value, where = self._known(key)
        if not _same(value, wanted):
            raise ConflictError(f"{key} is another one; set {where} in the configuration of the daemon", code="fixed")
        return Response()

    def _known(self, key: str) -> tuple[Any, str]:
        """Return a value, and what of our configuration it is."""
        ddi = self._context.ddi
        known: dict[str, tuple[Any, str]] = {
            "pollingTime": (sleep(ddi.poll_s), "ddi.poll_interval"),
            "authentication.targettoken.enabled": (True, "nothing: it is always so"),
            "authentication.gatewaytoken.enabled": (bool(ddi.gateway_token), "ddi.gateway_token_file"),
            _GATEWAY_KEY: (ddi.gateway_token, "ddi.gateway_token_file"),
            "anonymous.download.enabled": (False, "nothing: it is never so"),
        }
        if key not in known:
            raise NotFoundError(f"there is no {key[:80]!r} here; there are {', '.join(known)}")
        return known[key]


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return hmac.compare_digest(value.encode(), wanted.encode("utf-8", "replace"))
    return value is wanted or (isinstance(value, bool) and str(wanted).lower() == str(value).lower())
