"""The page of one device: what it is, why it has or has not each release, and the forms of quarantine.

Rules:
- An open page follows the device and the moves of rollouts. What it says of the counts of a rollout may be a minute
  old: they change with every other device.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.model import Device
from orchestrator.core.rollout import UNFINISHED
from orchestrator.core.trust.roles import Act
from orchestrator.engine import named
from orchestrator.engine.insight import explain
from orchestrator.engine.rollouts import quarantine, seen
from orchestrator.errors import ConflictError
from orchestrator.ports import Lane, Tx
from orchestrator.verifier import TRIGGER
from orchestrator.web.pages.changes import print_of
from orchestrator.web.pages.house import Form, House, Visitor, live, reason_of
from orchestrator.web.pages.views import device as shown


def device_routes(house: House) -> list[Route]:
    """Return the routes of the page of a device."""
    desk = _Desk(house)
    return [
        house.page("/devices/{device_id}", desk.page),
        house.events("/changes/devices/{device_id}", desk.look),
        house.form("/devices/{device_id}/quarantine", desk.enter, Act.QUARANTINE, _back),
        house.form("/devices/{device_id}/release", desk.leave, Act.QUARANTINE, _back),
    ]


class _Desk:
    """Answers what is asked of one device."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._context = house.context

    async def page(self, request: Request, visitor: Visitor) -> Response:
        """Show a device."""
        device_id, now = request.path_params["device_id"], self._context.now()
        hearing, limits = self._context.hearing(), self._context.conductor.limits
        faults = self._context.keyring.faults(TRIGGER)

        def work(tx: Tx) -> tuple[shown.View, str, str]:
            why = explain.explain_device(tx, device_id, now, hearing=hearing, limits=limits, faults=faults)
            return why, _mark(named.device(tx, device_id)), _print_of(tx, device_id)

        why, mark, print_ = await self._context.store.read(work)
        page = shown.page(why, visitor.caller, now)
        follows = live(request, f"/changes/devices/{device_id}", print_)
        return self._house.show("device.html", visitor, "devices", title=device_id, page=page, seen=mark, live=follows)

    async def look(self, request: Request) -> str:
        """Return the print of the page."""
        device_id = request.path_params["device_id"]
        return await self._context.store.read(lambda tx: _print_of(tx, device_id))

    async def enter(self, request: Request, visitor: Visitor, form: Form) -> str:
        """Leave a device out of all rollouts."""
        device_id, reason, now = request.path_params["device_id"], reason_of(form), self._context.now()
        changed = await self._context.store.transact(
            Lane.OPERATOR, lambda tx: quarantine.enter(tx, [device_id], reason, now, actor=visitor.caller.name)
        )
        if not changed:
            return f"Nothing had to be done: {device_id} is in quarantine already, for the reason that it has."
        return f"{device_id} is in quarantine now; no rollout takes it in."

    async def leave(self, request: Request, visitor: Visitor, form: Form) -> str:
        """Let a device back, if it is in the quarantine that the person saw."""
        device_id, reason, now = request.path_params["device_id"], reason_of(form), self._context.now()
        held = form.get("seen", "")

        def work(tx: Tx) -> int:
            device = named.device(tx, device_id)
            if device.quarantine and _mark(device) != held:
                text = f"{device_id} came into another quarantine after this page was made, so nothing was done: "
                raise ConflictError(text + device.quarantine, code="moved_on")
            return quarantine.leave(tx, [device_id], reason, now, actor=visitor.caller.name)

        if not await self._context.store.transact(Lane.OPERATOR, work):
            return f"Nothing had to be done: {device_id} is not in quarantine."
        return f"{device_id} is let back; stages that open from now on may take it."


def _mark(device: Device) -> str:
    """Return what says in which quarantine a device is."""
    return f"{device.quarantined_at!r}" if device.quarantine else ""


def _print_of(tx: Tx, device_id: str) -> str:
    """Return what differs whenever the device, what it goes through or the standing of a rollout does."""
    rollouts = tx.rollouts(UNFINISHED)
    going = {item.id for item in rollouts}
    updates = tx.updates_of([device_id])
    told = [(tx.parcels(item.id), len(tx.lines(item.id))) for item in updates if item.rollout_id in going]
    return print_of(named.device(tx, device_id), updates, told, [(item.id, seen.mark(item)) for item in rollouts])


def _back(request: Request, _: Form) -> str:
    return f"/devices/{request.path_params['device_id']}"
