"""What the daemon's database holds, in figures for a person who looks whether all is well."""

from __future__ import annotations

from orchestrator.core.model import Phase
from orchestrator.errors import UnavailableError
from orchestrator.ports import Store, Tx


async def of_store(store: Store) -> dict[str, object]:
    """Return how many devices are registered, rollouts run and triggers wait; or why nobody can say."""
    try:
        return await store.read(_figures)
    except UnavailableError as error:
        return {"error": error.message}


def _figures(tx: Tx) -> dict[str, object]:
    running = len(tx.rollouts([Phase.RUNNING]))
    return {"devices": tx.fleet_size(), "running": running, "waiting": tx.sealed_waiting(), "seq": tx.highest_seq()}
