"""What a device must not be able to do at the broker, tried out by a device.

Rules:
- Judged by effect: what arrived, what was lost, what is gone; never by what the broker answered.
- Nothing is taken for absent before a later message on the same road has arrived (a fence); a stranger, who has no
  road, is given time instead.
- What is sent holds no valid message and no token: daemon and devices refuse it, and count it.
- A probe leaves nothing behind: no session, no retained message.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.doctor.party import Address, Heard, Login, Party
from orchestrator.errors import UnavailableError
from orchestrator.wire import topics
from orchestrator.wire.report import MAX_REPORT_BYTES
from orchestrator.wire.topics import Channel

OVERSIZE_BYTES = 64 * 1024
SHARED = 20
"""Reports sent while a device has joined the shared subscription."""
QUEUED = 2_000
"""Reports that must wait for a daemon that is away; stock limits keep 1,000."""
SESSION_S = 60
_CONTROL = "$CONTROL/dynamic-security/v1"


class Seen(NamedTuple):
    """What a probe saw.

    Attributes:
        fault: what was wrong, empty if nothing was.
        note: what else is worth knowing.
    """

    fault: str = ""
    note: str = ""


class Scene:
    """A broker, a witness who hears everything, and two devices.

    Args:
        address: where the broker is.
        witness: login that may read everything below `ota/v1`, and write commands.
        device: login of the device that tries things.
        other: login of the device that it tries them on.
    """

    def __init__(self, address: Address, witness: Login, device: Login, other: Login) -> None:
        self.address = address
        self.device = device
        self.other = other
        self._mark = f"ota doctor {secrets.token_hex(6)}"
        self._numbers = itertools.count(1)
        self._witness = witness
        self.witness_name = witness.name
        self.witness = self._new_witness()

    def close(self) -> None:
        """Let the witness go."""
        self.witness.leave()

    def recall_witness(self) -> None:
        """Bring the witness back, if the last probe made the broker end its connection."""
        if self.witness.ended:
            self.witness.leave()
            self.witness = self._new_witness()

    def payload(self, size: int = 0) -> bytes:
        """Return a payload that nobody else sends, at least `size` bytes long."""
        return f"{self._mark} {next(self._numbers)} ".encode().ljust(size, b"x")

    def enter(self, login: Login | None, **how: Any) -> Party:
        """Connect one of the devices, or a stranger."""
        return Party(self.address, login, **how)

    def foreign(self, payloads: Iterable[bytes]) -> str:
        """Return a fault if the witness heard one of these payloads, after a fence; else nothing."""
        with self.enter(self.device) as device:
            self.fence(device)
        unwanted = set(payloads)
        arrived = sorted({item.topic for item in self.witness.heard if item.payload in unwanted})
        return f"a device wrote to {', '.join(arrived)}" if arrived else ""

    def fence(self, device: Party) -> None:
        """Return once everything that the device said before has arrived, if it arrives at all.

        Raises:
            UnavailableError: the device's own report did not arrive.
        """
        fence = self.payload()
        device.say(topics.uplink(self.device.name, Channel.REPORT), fence)
        if not self.witness.hears(fence):
            raise UnavailableError("a device's own report did not arrive", code="not_proven")

    def overheard(self, device: Party) -> list[Heard]:
        """Return what the device hears that it must not, after a fence.

        Raises:
            UnavailableError: the device did not hear its own command.
        """
        fence = self.payload()
        self.witness.say(topics.command(self.device.name), fence)
        if not device.hears(fence):
            raise UnavailableError("a device's own command did not arrive", code="not_proven")
        return [item for item in device.heard if item.topic != topics.command(self.device.name)]

    def queue(self) -> set[bytes]:
        """Return which of `QUEUED` reports are lost while the witness is away."""
        topic = topics.uplink(self.device.name, Channel.REPORT)
        self.witness.leave()
        with self._new_witness(topic, session_s=SESSION_S):
            pass
        said = {self.payload(MAX_REPORT_BYTES // 4) for _ in range(QUEUED)}
        with self.enter(self.device) as device:
            device.say(topic, *said)
        with self._new_witness(topic, resume=True) as back:
            back.hears_all(said)
            lost = said - {item.payload for item in back.heard}
        self.witness = self._new_witness()
        return lost

    def _new_witness(self, topic: str = topics.EVERYTHING, **how: Any) -> Party:
        mark = self._mark.encode()
        party = Party(self.address, self._witness, keep=lambda item: item.payload.startswith(mark), **how)
        if not party.subscribe(topic):
            party.leave()
            text = f"{self._witness.name} may not subscribe to {topic}: allow it in the broker's access rules"
            raise UnavailableError(text, code="subscribe_refused")
        return party


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that must hold.

    Attributes:
        name: stable word for machines.
        claim: what must hold.
        remedy: what to do if it does not.
        run: tries it.
    """

    name: str
    claim: str
    remedy: str
    run: Callable[[Scene], Seen]


def _publish_other(scene: Scene) -> Seen:
    said = {channel: scene.payload() for channel in Channel}
    with scene.enter(scene.device) as device:
        for channel, payload in said.items():
            device.say(topics.uplink(scene.other.name, channel), payload)
    return Seen(scene.foreign(said.values()))


def _forge_command(scene: Scene) -> Seen:
    forged = scene.payload()
    with scene.enter(scene.device) as device:
        device.say(topics.command(scene.other.name), forged)
        device.say(topics.command(scene.device.name), forged)
    return Seen(scene.foreign([forged]))


def _forge_group(scene: Scene) -> Seen:
    forged = scene.payload()
    with scene.enter(scene.device) as device:
        for topic in (topics.BEAT, topics.group_command("all"), topics.keyset(1), topics.event(scene.witness_name)):
            device.say(topic, forged)
    return Seen(scene.foreign([forged]))


def _overhear_other(scene: Scene) -> Seen:
    uplinks = [topics.uplink(scene.other.name, channel) for channel in Channel]
    return _overhear(scene, [topics.command(scene.other.name), *uplinks])


def _overhear_all(scene: Scene) -> Seen:
    everything = ["#", "+/+/+/+/+", topics.EVERYTHING, topics.command("+"), topics.uplink("+", Channel.REPORT)]
    return _overhear(scene, everything)


def _overhear(scene: Scene, filters: Iterable[str]) -> Seen:
    report, command = scene.payload(), scene.payload()
    with scene.enter(scene.device) as device, scene.enter(scene.other) as other:
        device.subscribe(topics.command(scene.device.name))
        for topic in filters:
            device.subscribe(topic)
        other.say(topics.uplink(scene.other.name, Channel.REPORT), report)
        scene.witness.say(topics.command(scene.other.name), command)
        if not scene.witness.hears_all({report, command}):
            raise UnavailableError("what the other device was told did not arrive", code="not_proven")
        foreign = [item for item in scene.overheard(device) if item.payload in (report, command)]
    return Seen(f"a device heard {', '.join(sorted({item.topic for item in foreign}))}" if foreign else "")


def _overhear_events(scene: Scene) -> Seen:
    event, topic = scene.payload(), topics.event(scene.witness_name)
    with scene.enter(scene.device) as device:
        device.subscribe(topics.command(scene.device.name))
        for wanted in (topics.EVENTS, topic):
            device.subscribe(wanted)
        scene.witness.say(topic, event)
        if not scene.witness.hears(event):
            text = f"the witness may not write {topic}: take the broker's access rules from deploy/mosquitto"
            raise UnavailableError(text, code="not_proven")
        heard = any(item.payload == event for item in scene.overheard(device))
    return Seen("a device heard what is for operators" if heard else "")


def _join_share(scene: Scene) -> Seen:
    reports = topics.uplink("+", Channel.REPORT)
    shared = f"$share/{scene.witness_name}/{reports}"
    said = [scene.payload() for _ in range(SHARED)]
    with scene.enter(scene.device) as device, scene.enter(scene.other) as other:
        device.subscribe(topics.command(scene.device.name))
        device.subscribe(shared)
        joined = scene.witness.subscribe(shared)
        other.say(topics.uplink(scene.other.name, Channel.REPORT), *said)
        complete = scene.witness.hears_all(set(said))
        stolen = [item for item in scene.overheard(device) if item.payload in said]
        scene.witness.unsubscribe(shared)
    copies = sum(item.payload in said for item in scene.witness.heard) - SHARED
    if stolen:
        return Seen(f"a device heard {len(stolen)} of {SHARED} reports through a shared subscription")
    if not complete:
        return Seen("reports were lost to a subscriber that shares nothing")
    if joined and copies < SHARED:
        return Seen(note=f"a shared subscription would lose {SHARED - copies} of {SHARED} reports here: use none")
    return Seen()


def _take_session(scene: Scene) -> Seen:
    queued = scene.payload()
    with scene.enter(scene.other, session_s=SESSION_S) as other:
        other.subscribe(topics.command(scene.other.name))
    scene.witness.say(topics.command(scene.other.name), queued)
    for taken in (scene.other.name, scene.witness_name):
        with suppress(UnavailableError), scene.enter(scene.device, client_id=taken) as device:
            device.say(topics.uplink(scene.device.name, Channel.STATE), scene.payload())
    with scene.enter(scene.other, resume=True) as other:
        survived = other.hears(queued)
    if not survived:
        return Seen("a device took over another's session, and the trigger that waited there is lost")
    if not scene.witness.say(topics.command(scene.device.name), scene.payload()):
        return Seen("a device took over the session of another login and ended its connection")
    return Seen()


def _foreign_will(scene: Scene) -> Seen:
    said = scene.payload()
    with suppress(UnavailableError):
        device = scene.enter(scene.device, will=(topics.uplink(scene.other.name, Channel.STATE), said))
        device.leave(with_will=True)
    return Seen(scene.foreign([said]))


def _stale_report(scene: Scene) -> Seen:
    topic, stale = topics.uplink(scene.device.name, Channel.REPORT), scene.payload()
    with scene.enter(scene.device) as device:
        device.say(topic, stale, retain=True)
        scene.fence(device)
        scene.witness.forget()
        scene.witness.subscribe(topic)  # as the daemon does
        scene.fence(device)
        unasked = [item for item in scene.witness.heard if item.payload == stale]
        scene.witness.subscribe(topic, replay=True)  # as an MQTT 3.1.1 client does
        scene.fence(device)
        replayed = [item for item in scene.witness.heard if item.payload == stale]
        device.say(topic, b"", retain=True)
        scene.fence(device)
        scene.witness.unsubscribe(topic)
    if not all(item.retained for item in replayed):
        return Seen("a retained report is replayed as if it were new")
    if unasked:
        return Seen(note="retained reports are replayed to a subscriber that wants none; the daemon drops them")
    return Seen(note="a device may retain a report here; the daemon drops it" if replayed else "")


def _oversize(scene: Scene) -> Seen:
    large, allowed = scene.payload(OVERSIZE_BYTES), scene.payload(MAX_REPORT_BYTES)
    topic = topics.uplink(scene.device.name, Channel.REPORT)
    with scene.enter(scene.device) as device:
        device.say(topic, large)
    with scene.enter(scene.device) as device:
        device.say(topic, allowed)
    if not scene.witness.hears(allowed):
        return Seen(f"a report of {MAX_REPORT_BYTES} bytes did not arrive")
    return Seen(f"a message of {OVERSIZE_BYTES} bytes was passed on" if scene.foreign([large]) else "")


def _read_system(scene: Scene) -> Seen:
    return _eavesdrop(scene, "$SYS/#")


def _control(scene: Scene) -> Seen:
    ask = json.dumps({"commands": [{"command": "listClients"}, {"command": "getDefaultACLAccess"}]}).encode()
    return _eavesdrop(scene, "$CONTROL/#", (_CONTROL, ask))


def _eavesdrop(scene: Scene, topic: str, question: tuple[str, bytes] | None = None) -> Seen:
    with scene.enter(scene.device) as device:
        device.subscribe(topics.command(scene.device.name))
        device.subscribe(topic, replay=True)
        if question is not None:
            device.subscribe(f"{question[0]}/response")
            device.say(*question)
        heard = [item.topic for item in scene.overheard(device) if item.topic.startswith("$")]
    return Seen(f"a device heard {len(heard)} messages such as {heard[0]}" if heard else "")


def _clear_beat(scene: Scene) -> Seen:
    topic, beat = topics.beat_of(scene.witness_name), scene.payload()
    scene.witness.say(topic, beat, retain=True)
    try:
        if not _reads(scene, topic, beat):
            return Seen(f"a device does not get what lies retained on {topics.beat_of('<group>')}")
        with scene.enter(scene.device) as device:
            device.say(topic, b"", retain=True)
        return Seen("" if _reads(scene, topic, beat) else "a device cleared a retained message of the daemon")
    finally:
        scene.witness.say(topic, b"", retain=True)


def _reads(scene: Scene, topic: str, payload: bytes) -> bool:
    with scene.enter(scene.device) as device:
        device.subscribe(topics.command(scene.device.name))
        device.subscribe(topic, replay=True)
        return any(item.payload == payload for item in scene.overheard(device))


def _anonymous(scene: Scene) -> Seen:
    said = scene.payload()
    strangers: list[Login | None] = [None]
    if scene.device.password is not None:
        strangers.append(Login(scene.device.name, f"not {scene.device.password}"))
    for stranger in strangers:
        with suppress(UnavailableError), scene.enter(stranger) as party:
            party.say(topics.uplink(scene.device.name, Channel.REPORT), said)
            party.subscribe(topics.command(scene.device.name))
            command = scene.payload()
            scene.witness.say(topics.command(scene.device.name), command)
            if party.hears(command):
                return Seen("a client without a login heard a command")
    return Seen("a client without a login wrote a report" if scene.foreign([said]) else "")


def _own_road(scene: Scene) -> Seen:
    with scene.enter(scene.device) as device:
        device.subscribe(topics.command(scene.device.name))
        for channel in Channel:
            said = scene.payload()
            device.say(topics.uplink(scene.device.name, channel), said)
            if not scene.witness.hears(said):
                return Seen(f"what a device said as {channel} did not arrive")
        scene.overheard(device)
    return Seen()


def _queue(scene: Scene) -> Seen:
    lost = scene.queue()
    return Seen(f"{len(lost)} of {QUEUED} reports were lost while the subscriber was away" if lost else "")


_RULES = "compare the broker's access rules with deploy/mosquitto"
_BOUND = "bind the client identifier to the login: use_username_as_clientid true"

NEGATIVE = (
    Probe("publish_other", "a device speaks for itself alone", _RULES, _publish_other),
    Probe("forge_command", "no device commands", _RULES, _forge_command),
    Probe("forge_group", "no device writes what the daemon tells groups", _RULES, _forge_group),
    Probe("overhear_other", "no device hears another by name", _RULES, _overhear_other),
    Probe("overhear_all", "no device hears another by wildcard", _RULES, _overhear_all),
    Probe("overhear_events", "no device hears the events of operators", _RULES, _overhear_events),
    Probe("join_share", "no device takes reports away by a shared subscription", _RULES, _join_share),
    Probe("take_session", "no device takes over another session", _BOUND, _take_session),
    Probe("foreign_will", "no last will speaks for another device", _RULES, _foreign_will),
    Probe("stale_report", "no retained report is taken for a new one", "use a broker that marks them", _stale_report),
    Probe("oversize", "large messages are not passed on", "set max_packet_size to 16384", _oversize),
    Probe("read_system", "no device reads the broker's own figures", _RULES, _read_system),
    Probe("control", "no device asks the broker to change its rules", _RULES, _control),
    Probe("clear_beat", "no device clears what the daemon retains", _RULES, _clear_beat),
    Probe("anonymous", "nobody comes in without a login", "set allow_anonymous false", _anonymous),
)
"""What a device must not be able to do."""

POSITIVE = Probe("own_road", "a device is heard, and hears its own commands", _RULES, _own_road)
"""What must go well: without it nothing else is proven."""

LIMIT = Probe("queue", f"{QUEUED} reports wait for a daemon that is away", "raise max_queued_messages", _queue)
"""What the broker must bear."""
