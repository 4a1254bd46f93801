"""What lies retained is what is true: keysets and the beat, anew on each link and before a beat runs out."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator import verifier
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.core.rollout import Command
from orchestrator.engine.rollouts import operations
from orchestrator.engine.trust.herald import Herald, HeraldSettings, Keys, _bounds
from orchestrator.errors import UnavailableError
from orchestrator.ports import Tx
from orchestrator.verifier import BEAT, Device, PublicKey, take_beat
from orchestrator.wire import endpoints, topics
from orchestrator.wire.report import Hello
from tests.support.builders import REST, make_plan
from tests.support.factory import DEPLOYMENT, Plant, make_artifact, make_verifier

BEAT_KEY = FileSigner(ec.derive_private_key(15, ec.SECP256R1()))
SETTINGS = HeraldSettings(DEPLOYMENT, every_s=100, lifetime_s=1000)


class Stuck:
    """The beat key in a token that is away."""

    kid = BEAT_KEY.kid
    away = True
    asked = 0

    def sign(self, data: bytes) -> bytes:
        self.asked += 1
        if self.away:
            raise UnavailableError("the token is away", code="token_away")
        return BEAT_KEY.sign(data)


def herald(it: Plant, *, mute: bool = False) -> Herald:
    keys = Keys(1, None if mute else BEAT_KEY)
    return Herald(it.store, it.bus, SETTINGS, lambda: keys, it.clock)


def heard(it: Plant) -> Device:
    """Return a device after it heard the beat that lies retained."""
    return after(it.bus.retained[topics.BEAT], it)


async def asked(says: Herald, it: Plant) -> Device:
    """Return a device after it asked for a beat."""
    beat = await says.beat()
    assert beat is not None
    return after(beat, it)


def after(beat: bytes, it: Plant) -> Device:
    device = make_verifier("d000")
    keys = {**device.keys, BEAT_KEY.kid: PublicKey(BEAT_KEY.kid, BEAT, BEAT_KEY.x, BEAT_KEY.y)}
    known = verifier.Device(device.id, (), device.model, device.iss, 1, keys, device.components, device.allowed_origins)
    return take_beat(beat, known, int(it.clock()))


async def test_everything_is_said_once_per_link_and_before_the_beat_is_old(it: Plant) -> None:
    await it.write(lambda tx: tx.add_keyset(2, b"two", 0.0))
    await it.write(lambda tx: tx.add_keyset(3, b"three", 0.0))
    says = herald(it)
    assert await says.say_if_due()
    assert set(it.bus.retained) == {"ota/v1/keys/2", "ota/v1/keys/3", topics.BEAT}
    assert {expiry for topic, _, expiry in it.bus.published if topic == topics.BEAT} == {1000}
    it.clock.advance(99)
    assert not await says.say_if_due()
    it.clock.advance(1)
    assert await says.say_if_due()
    it.bus.go_down()
    assert not await says.say_if_due()
    it.bus.come_up()
    assert await says.say_if_due()


async def test_without_a_beat_key_there_are_keysets_only(it: Plant) -> None:
    await it.write(lambda tx: tx.add_keyset(2, b"two", 0.0))
    assert await herald(it, mute=True).say_if_due()
    assert set(it.bus.retained) == {"ota/v1/keys/2"}


async def test_the_floor_lies_under_what_is_good_and_over_what_a_halt_made_void(it: Plant) -> None:
    await it.enrol(3)
    says = herald(it)
    await says.say_if_due()
    assert heard(it).floor == 1  # nothing was ever given out
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    it.clock.advance(100)
    await says.say_if_due()
    assert heard(it).floor == 1
    await it.command(rollout, Command.HALT)
    it.clock.advance(100)
    await says.say_if_due()
    assert heard(it).floor == 4  # three triggers are void; the recalls are not given out yet
    await it.send()
    it.clock.advance(100)
    await says.say_if_due()
    assert heard(it).floor == 4


async def test_what_is_being_signed_lies_over_the_floor(it: Plant) -> None:
    """Its numbers are taken, but its tokens are not stored yet."""
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    orders, numbers = await it.write(lambda tx: it.sealer._take(tx, 1))
    await herald(it).say_if_due()
    signed = it.sealer._sign_all(orders, numbers, it.keyring.standing(verifier.TRIGGER))
    await it.write(lambda tx: it.sealer._keep(tx, signed, set()))
    floor = heard(it).floor
    for parcel in await it.parcels(rollout):
        device = replace(make_verifier(parcel.device_id), floor=floor)
        assert verifier.verify(parcel.token.encode(), device, int(it.clock())).kind == "install"


async def test_what_older_keys_signed_does_not_hold_the_floor_down(it: Plant) -> None:
    await it.enrol(2)
    await it.running(make_plan((REST,)))
    await it.send()
    await it.write(lambda tx: tx.add_keyset(2, b"two", it.clock()))
    seq, floor = await it.store.read(lambda tx: _bounds(tx, 2, it.clock()))
    assert (seq, floor) == (0, 1)


async def test_keysets_are_not_said_again_and_again_while_no_beat_can_be_signed(it: Plant) -> None:
    await it.write(lambda tx: tx.add_keyset(2, b"two", 0.0))
    signer = Stuck()
    keys = Keys(1, signer)
    says = Herald(it.store, it.bus, SETTINGS, lambda: keys, it.clock)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await says.say_if_due()
    assert [topic for topic, _, _ in it.bus.published] == ["ota/v1/keys/2"]
    signer.away = False
    assert await says.say_if_due()
    assert [topic for topic, _, _ in it.bus.published] == ["ota/v1/keys/2", topics.BEAT]


async def test_who_asks_gets_a_beat_whether_the_broker_is_there_or_not(it: Plant) -> None:
    says = herald(it)
    it.bus.go_down()
    for _ in range(2):
        first = await asked(says, it)
        assert (first.floor, first.beat_iat) == (1, int(it.clock()))
        it.clock.advance(59)
        assert await asked(says, it) == first
        it.clock.advance(1)
    it.clock.advance(-5000)
    assert (await asked(says, it)).beat_iat == int(it.clock())
    assert it.bus.published == []
    assert await herald(it, mute=True).beat() is None


async def test_many_who_ask_at_once_cost_one_signature(it: Plant) -> None:
    signer = Stuck()
    signer.away = False
    says = Herald(it.store, it.bus, SETTINGS, lambda: Keys(1, signer), it.clock)
    beats = await asyncio.gather(*(says.beat() for _ in range(5)))
    assert (len(set(beats)), signer.asked) == (1, 1)


async def test_who_asks_after_a_new_keyset_gets_a_beat_of_its_epoch(it: Plant) -> None:
    keys = Keys(1, BEAT_KEY)
    says = Herald(it.store, it.bus, SETTINGS, lambda: keys, it.clock)
    first = await says.beat()
    keys = Keys(2, BEAT_KEY)
    second = await says.beat()
    keys = Keys(2, None)
    assert await says.beat() is None
    assert None is not first != second is not None


async def test_a_signer_that_is_away_is_not_asked_for_each_who_asks(it: Plant) -> None:
    signer = Stuck()
    says = Herald(it.store, it.bus, SETTINGS, lambda: Keys(1, signer), it.clock)
    results = await asyncio.gather(*(says.beat() for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in results] == [UnavailableError, *[type(None)] * 4]
    signer.away = False
    it.clock.advance(4)
    assert await says.beat() is None
    it.clock.advance(1)
    assert await says.beat() is not None
    signer.away = True
    it.clock.advance(60)
    with pytest.raises(UnavailableError):
        await says.beat()
    assert (await says.beat(), signer.asked) == (None, 3)


async def test_while_devices_move_beats_come_often(it: Plant) -> None:
    says = Herald(it.store, it.bus, replace(SETTINGS, moving_every_s=10), lambda: Keys(1, BEAT_KEY), it.clock)

    async def said(after_s: float) -> bool:
        it.clock.advance(after_s)
        return await says.say_if_due()

    await it.enrol(2)
    await it.record(hellos=[Hello(1, "d000", "m1", "1.0.0", 1, eps=0)])
    assert await said(0)
    firmware = await it.running(make_plan((REST,), name="other", select='id == "d001"'))
    assert not await said(0)  # firmware is no reason
    artifact = make_artifact(1, component=endpoints.COMPONENT, format=endpoints.FORMAT)

    def stock(tx: Tx) -> None:
        tx.add_artifact(artifact, 0.0)
        operations.create_release(tx, "move-1", [artifact.sha256], 0.0)

    await it.write(stock)
    move = await it.running(make_plan((REST,), (0.9,), name="move", release="move-1"))
    assert (await it.states(move)).total() == 1
    assert await said(0)
    first = it.bus.retained[topics.BEAT]
    assert not await said(9)
    assert await said(1)
    assert it.bus.retained[topics.BEAT] != first
    await it.confirm(await it.updates(move))
    assert not await said(10)
    await it.confirm(await it.updates(firmware))


async def test_a_clock_that_is_set_back_does_not_silence_it(it: Plant) -> None:
    says = herald(it)
    await says.say_if_due()
    it.clock.advance(-5000)
    assert await says.say_if_due()
