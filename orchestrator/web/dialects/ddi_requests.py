"""What all routes of hawkBit's API for devices read from a request, and how they answer."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.core.model import Device, Update
from orchestrator.ports import Tx
from orchestrator.web.context import Context
from orchestrator.web.dialects import ddi_documents as documents
from orchestrator.web.downloads import NO_STORE

_MAX_DIGITS = 10
_HAL = "application/hal+json"


def place_of(request: Request, context: Context) -> str:
    """Return the URL below which a device finds its things, spelled as it spells it."""
    tenant, name = request.path_params["tenant"], request.path_params["device"]
    return f"{context.public_url}/{tenant}/controller/v1/{name}"


def number_of(request: Request) -> int:
    """Return the number that a path names, 0 for none that could be an action's."""
    text: str = request.path_params["id"]
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else 0
    return number if number <= documents.MAX_ID else 0


def own_update(tx: Tx, device: Device, number: int) -> Update | None:
    """Return the update of this number if it is the device's."""
    update = tx.updates([number]).get(number) if number else None
    return update if update is not None and update.device_id == device.id else None


def json_answer(request: Request, document: dict[str, Any]) -> Response:
    """Return a document, as HAL where the client asks for that."""
    media_type = _HAL if _HAL in request.headers.get("accept", "") else "application/json"
    return Response(msgspec.json.encode(document), media_type=media_type, headers=NO_STORE)


def taken() -> Response:
    """Return the answer to everything that is only taken; an empty one, for 201 and 204 are errors to some clients."""
    return Response(headers=NO_STORE)
