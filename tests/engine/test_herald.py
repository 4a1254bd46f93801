"""What lies retained is what is true: keysets and the beat, anew on each link and before a beat runs out."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator import verifier
from orchestrator.adapters.signers import FileSigner
from orchestrator.core.rollout import Command
from orchestrator.engine.herald import Herald, HeraldSettings, Keys
from orchestrator.verifier import BEAT, Device, PublicKey, take_beat
from orchestrator.wire import topics
from tests.support.builders import REST, make_plan
from tests.support.factory import DEPLOYMENT, Plant, make_verifier

BEAT_KEY = FileSigner(ec.derive_private_key(15, ec.SECP256R1()))
SETTINGS = HeraldSettings(DEPLOYMENT, every_s=100, lifetime_s=1000)


def herald(it: Plant, *, mute: bool = False) -> Herald:
    keys = Keys(1, None if mute else BEAT_KEY)
    return Herald(it.store, it.bus, SETTINGS, lambda: keys, it.clock)


def heard(it: Plant) -> Device:
    """Return a device after it heard the beat that lies retained."""
    device = make_verifier("d000")
    keys = {**device.keys, BEAT_KEY.kid: PublicKey(BEAT_KEY.kid, BEAT, BEAT_KEY.x, BEAT_KEY.y)}
    known = verifier.Device(device.id, (), device.model, device.iss, 1, keys, device.components, device.allowed_origins)
    return take_beat(it.bus.retained[topics.BEAT], known, int(it.clock()))


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
