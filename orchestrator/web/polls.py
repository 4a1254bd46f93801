"""One poll, whatever language it comes in."""

from __future__ import annotations

from orchestrator.core.model import Device
from orchestrator.engine.offers import polling
from orchestrator.engine.offers.polling import Answer
from orchestrator.ports import Lane
from orchestrator.web.context import Context

_NOTHING = Answer(idle=True)


async def ask(context: Context, device: Device) -> Answer:
    """Return what a device that asks gets; whoever waits for what that changes is told."""
    context.polled(device.id)
    if context.known.is_idle(device.id):
        return _NOTHING
    now, stopped, mark = context.now(), context.conductor.stops.rollouts, context.known.mark()
    answer = await context.store.read(lambda tx: polling.look(tx, device, now, stopped))
    if answer is None:
        answer = await context.store.transact(Lane.REPORTS, lambda tx: polling.give(tx, device, now, stopped))
        if answer.rollouts:
            context.conductor.changed(set(answer.rollouts))
        if answer.planned:
            context.planned()
    elif answer.idle:
        context.known.note_idle(device.id, mark)
    return answer
