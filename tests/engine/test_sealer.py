"""The sealer: numbers, signatures, and what is not stored any more when it is signed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from orchestrator import verifier
from orchestrator.core.model import Deadlines, Delivery, Rollout, Urgency
from orchestrator.core.rollout import Command
from orchestrator.engine.rollouts.operations import create_release
from orchestrator.errors import UnavailableError
from orchestrator.ports import DeliveryKind, DeliveryState, Signer, Tx
from orchestrator.wire.report import Hello, Kind
from orchestrator.wire.token import hash_of
from tests.support.builders import REST, make_plan
from tests.support.clock import running, until
from tests.support.factory import ORIGIN, TRIGGER_KEY, Plant, claims_of, make_artifact, make_verifier

D = DeliveryState
CANCEL = DeliveryKind.CANCEL


async def planned(it: Plant, count: int = 3, **changes: Any) -> Rollout:
    """Return a rollout whose first triggers are planned."""
    await it.enrol(count)
    return await it.running(make_plan((REST,), **changes))


class Pen:
    """The daemon's key in a hand that can be stopped."""

    def __init__(self, before: Callable[[], None]) -> None:
        self.kid = TRIGGER_KEY.kid
        self._before = before

    def sign(self, data: bytes) -> bytes:
        self._before()
        return TRIGGER_KEY.sign(data)


async def with_signer(it: Plant, signer: Signer) -> None:
    it.signer = signer
    await it.restart()


async def test_a_device_accepts_what_is_sealed(it: Plant) -> None:
    rollout = await planned(it, urgency=Urgency.SECURITY)
    assert await it.sealer.seal_once() == 3
    assert await it.sealer.seal_once() == 0
    for at, parcel in enumerate(await it.parcels(rollout), start=1):
        verdict = verifier.verify(parcel.token.encode(), make_verifier(parcel.device_id), int(it.clock()))
        assert (verdict.kind, verdict.token_hash) == ("install", parcel.token_hash)
        assert (parcel.state, parcel.seq, parcel.expires_at) == (D.SEALED, at, it.clock() + 86_400)
        claims = verdict.claims
        assert (claims["seq"], claims["att"], claims["cid"]) == (at, f"{parcel.update_id}.1", str(rollout.id))
        assert (claims["wave"], claims["urg"], claims["exp"]) == (0, 2, int(it.clock()) + 86_400)
        assert claims["url"] == [f"{ORIGIN}/v1/dl/{make_artifact().sha256}"]


async def test_identifiers_are_never_the_same(it: Plant) -> None:
    rollout = await planned(it, 10)
    await it.seal()
    assert len({claims_of(item.token)["jti"] for item in await it.parcels(rollout)}) == 10


@pytest.mark.parametrize(("accept_s", "lifetime_s", "valid_s"), [(500.0, 900.0, 500), (500.0, 90.0, 90), (0.1, 9.0, 1)])
async def test_a_trigger_lives_no_longer_than_the_offer(
    it: Plant, accept_s: float, lifetime_s: float, valid_s: int
) -> None:
    it.settings.lifetime_s = lifetime_s
    await it.restart()
    rollout = await planned(it, 1, deadlines=Deadlines(accept_s=accept_s))
    await it.seal()
    [parcel] = await it.parcels(rollout)
    assert parcel.expires_at == it.clock() + valid_s
    assert claims_of(parcel.token)["exp"] == int(it.clock()) + valid_s


async def test_each_model_gets_its_own_artifact(it: Plant) -> None:
    await it.enrol(1)
    await it.enrol(1, "m2", "x")
    one, two = make_artifact(2, ("m1",)), make_artifact(2, ("m2",))

    def stock_both(tx: Tx) -> None:
        for artifact in (one, two):
            tx.add_artifact(artifact, 0.0)
        create_release(tx, "radio-2.0.0", [one.sha256, two.sha256], 0.0)

    await it.write(stock_both)
    rollout = await it.running(make_plan((REST,)))
    await it.seal()
    found = {item.device_id: claims_of(item.token) for item in await it.parcels(rollout)}
    assert {device: claims["sha256"] for device, claims in found.items()} == {"d000": one.sha256, "x000": two.sha256}
    assert {device: claims["hw"] for device, claims in found.items()} == {"d000": ["m1"], "x000": ["m2"]}


async def test_numbers_are_reserved_before_anything_is_signed(it: Plant) -> None:
    """A crash while signing leaves a gap, never the same number again."""
    rollout = await planned(it, 3)

    def die() -> None:
        raise RuntimeError("the process died")

    await with_signer(it, Pen(die))
    with pytest.raises(RuntimeError, match="died"):
        await it.sealer.seal_once()
    assert [item.state for item in await it.parcels(rollout)] == [D.PLANNED] * 3
    await with_signer(it, TRIGGER_KEY)
    await it.seal()
    assert [item.seq for item in await it.parcels(rollout)] == [4, 5, 6]


async def test_what_is_voided_while_it_is_signed_is_not_stored(it: Plant) -> None:
    rollout = await planned(it, 3)
    orders, numbers = await it.write(lambda tx: it.sealer._take(tx, 1))
    signed = it.sealer._sign_all(orders, numbers, it.keyring.standing(verifier.TRIGGER))
    await it.command(rollout, Command.PAUSE)
    await it.command(rollout, Command.RESUME)
    await it.write(lambda tx: it.sealer._keep(tx, signed, set()))
    assert [(item.state, item.token) for item in await it.parcels(rollout)] == [(D.VOID, "")] * 3
    await it.advance(rollout)
    await it.seal()
    assert sorted((item.seq or 0, item.state) for item in await it.parcels(rollout)) == [
        *[(0, D.VOID)] * 3,
        *[(seq, D.SEALED) for seq in (4, 5, 6)],
    ]


async def test_only_so_much_is_sealed_ahead(it: Plant) -> None:
    it.settings.batch, it.settings.ahead = 4, 6
    await it.restart()
    await planned(it, 10)
    assert [await it.sealer.seal_once() for _ in range(4)] == [4, 2, 0, 0]
    await it.write(lambda tx: tx.claim(5, it.clock()))
    assert [await it.sealer.seal_once() for _ in range(3)] == [4, 0, 0]


async def test_what_waits_for_polls_takes_no_room(it: Plant) -> None:
    it.settings.batch, it.settings.ahead = 4, 1
    await it.restart()
    rollout = await planned(it, 3, delivery=Delivery.POLL)
    await it.seal()
    assert [item.state for item in await it.parcels(rollout)] == [D.SEALED] * 3


async def test_claims_that_devices_would_refuse_become_void(it: Plant) -> None:
    """The statement is fine, but with this address the trigger is too long."""
    rollout = await planned(it, 2)
    [parcel, _] = await it.parcels(rollout)
    object.__setattr__(it.sealer._settings, "public_url", "https://" + "a" * 900)
    with capture_logs() as logs:
        assert await it.seal() == 2
    assert [item.state for item in await it.parcels(rollout)] == [D.VOID] * 2
    assert [(entry["event"], entry["code"]) for entry in logs] == [("trigger.refused", "oversize")] * 2
    assert logs[0]["device"] == parcel.device_id


async def test_a_recall_names_the_trigger_that_was_sent(it: Plant) -> None:
    rollout = await planned(it, 2)
    await it.send()
    it.clock.advance(60)
    await it.record(hellos=[Hello(1, "d000", "m1", "1.0.0", 1)])
    await it.send()
    last = {item.device_id: item for item in await it.parcels(rollout)}
    await it.command(rollout, Command.HALT)
    recalls = {topic.split("/")[3]: payload for topic, payload, _ in await it.send()}
    assert recalls.keys() == {"d000", "d001"}
    for device, payload in recalls.items():
        claims = claims_of(payload)
        assert (claims["act"], claims["tok"]) == ("cancel", last[device].token_hash)
        assert claims["att"] == f"{last[device].update_id}.1"
        device_state = make_verifier(device, seq=last[device].seq or 0)
        assert verifier.verify(payload, device_state, int(it.clock())).kind == "recall"
    [parcel, _] = await it.parcels(rollout, CANCEL)
    assert parcel.token_hash == hash_of(parcel.token.encode())


async def test_a_device_that_reports_what_it_was_never_sent_stops_nobody(it: Plant) -> None:
    """Its trigger is not sealed yet, so there is nothing that a recall could name."""
    rollout = await planned(it, 2)
    [liar, _] = await it.updates(rollout)
    await it.say([liar], Kind.ACCEPTED)
    await it.command(rollout, Command.HALT)
    with capture_logs() as logs:
        assert await it.send() == []
    assert [item.state for item in await it.parcels(rollout, CANCEL)] == [D.VOID]
    assert [entry["code"] for entry in logs if entry["event"] == "trigger.refused"] == ["never_sealed"]


async def test_recalls_are_sealed_first(it: Plant) -> None:
    it.settings.batch = 2
    await it.restart()
    old = await planned(it, 2)
    await it.send()
    await it.enrol(3, "m2", "x")
    await it.running(make_plan((REST,), name="other", release="radio-5.0.0"), rel=5)
    await it.command(old, Command.HALT)
    await it.sealer.seal_once()
    assert [item.state for item in await it.parcels(old, CANCEL)] == [D.SEALED] * 2


async def test_the_loop_seals_when_it_is_woken_and_tells_the_dispatcher(it: Plant) -> None:
    it.settings.batch = 2
    await it.restart()
    rollout = await planned(it, 3)
    async with running(it.sealer.run()):
        await until(it.sealed.is_set)
        while any(item.state is D.PLANNED for item in await it.parcels(rollout)):
            await asyncio.sleep(0.001)
    assert [item.seq for item in await it.parcels(rollout)] == [1, 2, 3]


async def test_the_loop_tries_again_while_the_signer_or_the_store_is_away(it: Plant) -> None:
    absences = iter([UnavailableError("the signer is away")])

    def away() -> None:
        for error in absences:
            raise error

    await with_signer(it, Pen(away))
    rollout = await planned(it, 3)
    it.store.fails = 1
    with capture_logs() as logs:
        async with running(it.sealer.run()):
            await until(it.sealed.is_set)
    assert [entry["event"] for entry in logs] == ["sealer.waits"] * 2
    assert [item.seq for item in await it.parcels(rollout)] == [4, 5, 6]
