"""The auditor: signs checkpoints of the audit log, and notes when the daemon starts and stops.

Rules:
- A checkpoint follows 64 new entries, or 60 s after the first new one, whichever comes first.
- The head is pinned outside the database before its checkpoint is kept: no checkpoint is ahead of the lease.
- Without a checkpoint key the log is chained and pinned all the same, and the daemon says so once.
- A witness that is away is tried again; nothing else waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from orchestrator.core.model import DAEMON
from orchestrator.core.trust.audit import START, STARTED, STOPPED, Checkpoint, Head
from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane, Pinned, Signer, Store, Tx, Witness
from orchestrator.wire import checkpoint as wire
from orchestrator.wire.token import assemble

EVERY_ENTRIES = 64
EVERY_S = 60.0
LOOK_S = 1.0
_log = structlog.get_logger(__name__)


class Auditor:
    """Keeps the end of the audit log outside the database.

    Args:
        store: where the log is.
        pinned: what remembers how far it came.
        signer: the checkpoint key, None if there is none.
        witness: who keeps checkpoints.
        now: the clock.
    """

    def __init__(
        self, store: Store, pinned: Pinned, signer: Signer | None, witness: Witness, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._pinned = pinned
        self._signer = signer
        self._witness = witness
        self._now = now
        self._last = START
        self._due_at: float | None = None

    async def start(self, detail: Mapping[str, object]) -> None:
        """Note that the daemon started, and keep a checkpoint of that.

        Raises:
            UnavailableError: the store is away.
            ConflictError: another daemon has taken over.
        """
        if self._signer is None:
            _log.warning(
                "audit.no_checkpoints", hint="name a key in audit.checkpoint_key_file; `ota keys init` makes it"
            )
        await self._note(STARTED, detail)

    async def stop(self) -> None:
        """Note that the daemon stops, and keep a last checkpoint; raises as `start` does."""
        await self._note(STOPPED, {})

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Keep checkpoints for ever."""
        while True:
            await self._keep_safely()
            await pause(LOOK_S)

    async def keep_if_due(self) -> bool:
        """Keep a checkpoint if it is time; returns whether that was so.

        Raises:
            UnavailableError: the store or the witness is away.
            ConflictError: another daemon has taken over.
        """
        head, seq = await self._store.read(_standing)
        if head == self._last:
            return False
        now = self._now()
        self._due_at = now + EVERY_S if self._due_at is None else min(self._due_at, now + EVERY_S)
        if head.n - self._last.n < EVERY_ENTRIES and now < self._due_at:
            return False
        await self._keep(head, seq)
        return True

    async def _note(self, action: str, detail: Mapping[str, object]) -> None:
        await self._store.transact(
            Lane.OPERATOR,
            lambda tx: tx.audit(DAEMON, action, "daemon", {**detail, "seq": tx.highest_seq()}, self._now()),
        )
        self._due_at = self._now()
        await self._keep_safely()

    async def _keep_safely(self) -> None:
        try:
            await self.keep_if_due()
        except UnavailableError as error:
            _log.error("audit.waits", code=error.code, error=error.message)

    async def _keep(self, head: Head, seq: int) -> None:
        await self._pinned.pin(head)
        if self._signer is not None:
            at = round(self._now(), 3)
            await asyncio.to_thread(self._sign, self._signer, Checkpoint(head.n, head.hash, at, seq))
            _log.info("audit.checkpoint", n=head.n, hash=head.hash, seq=seq)
        self._last, self._due_at = head, None

    def _sign(self, signer: Signer, checkpoint: Checkpoint) -> None:
        signed = wire.signing_input(signer.kid, checkpoint)
        self._witness.keep(assemble(signed, signer.sign(signed)))


def _standing(tx: Tx) -> tuple[Head, int]:
    return tx.audit_head(), tx.highest_seq()
