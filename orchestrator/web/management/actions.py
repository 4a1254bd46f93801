"""Actions: the updates of a target. To cancel one is to abort the rollout that was made for it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestrator.core.model import Rollout, Update
from orchestrator.core.rollout import FINISHED, Command
from orchestrator.core.trust.roles import Caller
from orchestrator.engine.rollouts import single
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.ports import Lane, Line, Tx
from orchestrator.web.context import Context
from orchestrator.web.management import documents, said
from orchestrator.web.management.commands import command
from orchestrator.web.management.targets import target_of


class Actions:
    """What is done with actions."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._place = f"{context.public_url}/rest/v1"

    async def page(self, request: Request, _: Caller) -> Response:
        """List the actions of a target, newest first unless the other order is asked for."""
        wanted = said.page_of(request.query_params)

        def find(tx: Tx) -> tuple[int, list[tuple[Update, Rollout]]]:
            found = tx.updates_of([target_of(tx, request).id])
            if wanted.descending is not False:
                found = found[::-1]
            part = found[wanted.offset : wanted.offset + wanted.limit]
            return len(found), [(item, _rollout(tx, item)) for item in part]

        total, found = await self._context.store.read(find)
        views = [documents.action(update, rollout, self._place) for update, rollout in found]
        return JSONResponse(documents.page(views, total))

    async def show(self, request: Request, _: Caller) -> Response:
        """Show an action."""
        update, rollout = await self._context.store.read(lambda tx: _action(tx, request))
        return JSONResponse(documents.action(update, rollout, self._place))

    async def status(self, request: Request, _: Caller) -> Response:
        """List what was said of an action, newest first unless the other order is asked for."""
        wanted = said.page_of(request.query_params)

        def find(tx: Tx) -> tuple[Update, Rollout, list[Line]]:
            update, rollout = _action(tx, request)
            return update, rollout, tx.lines(update.id)

        found = documents.statuses(*await self._context.store.read(find))
        ordered = found if wanted.descending is False else found[::-1]
        return JSONResponse(documents.page(ordered[wanted.offset : wanted.offset + wanted.limit], len(found)))

    async def cancel(self, request: Request, caller: Caller) -> Response:
        """Cancel an action; by force, wait no longer for a device that was asked and does not answer."""
        context = self._context
        update, rollout = await context.store.read(lambda tx: _action(tx, request))
        if said.is_true(request.query_params, "force"):
            now = context.now()
            changed = await context.store.transact(
                Lane.OPERATOR, lambda tx: single.give_up(tx, _action(tx, request)[0], now, actor=caller.name)
            )
            context.conductor.changed(changed)
            return Response()
        if not single.is_single(rollout, update.device_id):
            text = f"it belongs to the rollout {rollout.plan.name}, which is not for this target alone"
            raise ConflictError(f"{text}; see `ota rollout abort`", code="not_its_own")
        if rollout.phase in FINISHED or not documents.is_active(update, rollout):
            raise ConflictError("the action is over, or cancelled already", code="not_active")
        reason = f"action {update.id} is cancelled"
        await command(context, rollout.plan.name, Command.ABORT, caller, reason)
        return Response()


def _action(tx: Tx, request: Request) -> tuple[Update, Rollout]:
    device, number = target_of(tx, request), said.number_in(request.path_params["action"])
    update = tx.updates([number]).get(number) if number else None
    if update is None or update.device_id != device.id:
        raise NotFoundError(f"there is no such action of {device.id}")
    return update, _rollout(tx, update)


def _rollout(tx: Tx, update: Update) -> Rollout:
    rollout = tx.rollout(update.rollout_id)
    assert rollout is not None, "an update always belongs to a rollout"
    return rollout
