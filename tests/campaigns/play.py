"""Plays a campaign: a script against the engine, devices that misbehave, and an end that must be one.

Rules:
- What must hold after every commit is judged by `Promises`; here is only what happens, and how it ends.
- At the end nothing more is lost, and time passes until nothing happens by itself. Then each rollout is over, or says
  what it waits for; that is granted, and must change something.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from operator import methodcaller
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from orchestrator.core.model import Artifact, Delivery, Phase, Plan, Rollout, UpdateState
from orchestrator.core.model import Device as Known
from orchestrator.core.pace.requirement import ConsentRule, Requirements
from orchestrator.core.pace.window import Window, Windows
from orchestrator.core.rollout import Command, possible
from orchestrator.core.trust.roles import Caller
from orchestrator.engine.insight import explain
from orchestrator.engine.offers.polling import Answer, give, look
from orchestrator.engine.reports.recording import Batch, record
from orchestrator.engine.rollouts import editing, operations, quarantine, rollback
from orchestrator.engine.rollouts.editing import Edited, Wanted
from orchestrator.engine.rollouts.operations import NewDevice
from orchestrator.engine.rollouts.rollback import Back
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.errors import ConflictError, RequestError, UnavailableError
from orchestrator.ports import Tx
from orchestrator.wire.report import Hello, Kind, Report, State, decode_report, encode
from orchestrator.wire.topics import Channel, parse_uplink, uplink
from tests.campaigns.devices import LATE, SILENT, SLOW, Device
from tests.campaigns.house import BATCH, GRACE_S, House, OneThread, Wrong, advance, inline, new_folder, soon
from tests.campaigns.promises import OVER, Promises
from tests.campaigns.reading import FLYING, BrokenError
from tests.campaigns.script import Script, Step
from tests.support.factory import make_artifact

OPERATORS = ("ann", "bob")
COMMANDS = (*Command, Command.RESUME, Command.RESUME)
FATES = 15
"""In two of so many steps something goes wrong, in two something else happens in the midst of it."""

NEWEST = 4
"""Release counters from 1 to this are there to be rolled out, and back."""

MODELS = ("m1", "m2")
EVENING = Windows((Window(72_000, 86_000),))
"""Hours that are closed when campaigns begin; an edit to them leaves good what was sealed before."""

PAUSES_S = (1.0, 11.0, 40.0, 60.0, 250.0, 600.0, 3700.0)
CLOCK_JUMPS_S = (-7200.0, -600.0, -5.0, 5.0, 600.0, 7200.0)
SLACK_S = 30.0
"""At the end, what comes so soon after something else is waited for with it."""

ROUNDS = 600
"""Rounds within which a campaign that is left alone must come to rest."""

_UNANSWERED = (UpdateState.OFFERED, UpdateState.RECALLING, UpdateState.UNREACHED)
GRANTS = 1
"""Answers that persons give to each rollout at the end before they abort it."""

WAITS_FOR_A_PERSON = {
    Phase.DRAFT: Command.START,
    Phase.PAUSED: Command.RESUME,
    Phase.HALTED: Command.RESUME,
    Phase.INCONCLUSIVE: Command.RESUME,
    Phase.RUNNING: Command.ADVANCE,
}

PATIENCE = 2
"""Times that a device asks for an offer at the end that it left unanswered, or that its user does not agree to."""

ANSWERS = 3
"""Times that a service is asked once more before a rollout that waits for it does so for good."""


@dataclass
class Ending:
    """How a campaign ended.

    Attributes:
        phases: of its rollouts, with the code of the reason, before anybody helped.
        crashes: how often the process died.
        digest: of everything that devices could see.
    """

    phases: list[str] = field(default_factory=list)
    crashes: int = 0
    digest: str = ""


def play(script: Script) -> Ending:
    """Play a campaign.

    Raises:
        AssertionError: a promise was broken, or it has no end.
    """
    folder = _folder()
    gc.disable()  # a third of the time; between campaigns it does its work
    try:
        with mock.patch.object(asyncio, "to_thread", inline), mock.patch.object(asyncio, "sleep", soon):
            return asyncio.run(Campaign(script, folder).run())
    finally:
        gc.enable()


@cache
def _folder() -> Path:
    """Return where this process plays, one campaign after the other."""
    return new_folder()


class Campaign:
    """One campaign under way."""

    def __init__(self, script: Script, folder: Path) -> None:
        self.script = script
        self.house = House(folder, script.ceiling, self._watch)
        self.clock, self.bus = self.house.clock, self.house.bus
        models = MODELS if len(script.characters) % 2 else ("m1",)
        self.devices = {
            f"d{at:02}": Device(f"d{at:02}", name, models[at % len(models)], appeared=name != LATE)
            for at, name in enumerate(script.characters)
        }
        self.promises = Promises(
            self.house.path, script.ceiling, self.clock, BATCH, self.devices, lambda: self.bus.link > 0
        )
        self.begun = 0
        self.answers = 0
        self.patience: dict[str, int] = {}
        self.asks = any(plan.gate for plan in script.plans)
        self.accepted: set[tuple[int, int, str, int]] = set()
        self.posted = 0
        self._stops, self._stopped = 0, False
        self._orders: Coroutine[Any, Any, None] | None = None
        self.bus.on_publish = self._notice

    def _watch(self) -> None:
        self.promises.look()

    async def run(self) -> Ending:
        """Play it to its end."""
        try:
            self._prepare()
            await self.start(0)
            for step in self.script.steps:
                await self._take(step)
            return await self._end()
        finally:
            self.promises.close()
            await self.house.store.close()

    def _prepare(self) -> None:
        present = [item for item in self.devices.values() if item.appeared]

        def work(tx: Tx) -> None:
            new = [NewDevice(item.id, item.model, (), "1.0.0", 1) for item in present]
            operations.enrol(tx, new, self.clock())
            record(tx, Batch(states=[State(1, item.id, online=True) for item in present]), self.clock(), enrol=False)
            for rel in range(1, NEWEST + 1):
                artifact = _artifact(rel)
                tx.add_artifact(artifact, self.clock())
                operations.create_release(tx, f"radio-{rel}.0.0", [artifact.sha256], self.clock())

        self.house.store.write(work)

    async def _take(self, step: Step) -> None:
        self.clock.advance(0.001)
        fate = (step.what + 31 * step.how) % FATES
        if fate < 2:
            self._store.go_wrong_in((0, 0, 1, 3)[step.what % 4], Wrong(step.what // 4 % len(Wrong)))
        elif fate < 4:
            self._store.meanwhile(step.what % 5, lambda: self._interrupt(step.what // 5))
        await self.house.do(getattr(self, step.name)(step.what, step.how))
        self._post()

    # What happens, each with two numbers

    async def start(self, what: int, how: int = 1) -> None:
        """Make the next rollout and start it."""
        if self.begun == len(self.script.plans):
            return
        plan = self.script.plans[self.begun]
        if self._store.write(methodcaller("rollout_named", plan.name)) is None:
            self._store.write(lambda tx: operations.create_rollout(tx, plan, "ann", self.clock()))
        self.begun += 1
        await self._order(plan.name, Command.START, OPERATORS[what % 2])
        self.clock.advance(GRACE_S + 1)

    async def round(self, what: int, how: int) -> None:
        """Let everybody have a turn, as on a good day."""
        await self._work()
        asking = self._asked_for()
        for device in self.devices.values():
            if device.appeared and device.character != SLOW:
                self._hear(device)
                if device.id in asking:
                    await self._poll(device)
                device.act()
        await self._bring(list(self.devices.values()), 1)

    async def conduct(self, what: int, how: int) -> None:
        """Let the conductor step the rollouts."""
        await self._advance({item.id for item in self._rollouts() if item.phase not in OVER})

    async def seal(self, what: int, how: int) -> None:
        """Sign one batch."""
        await self.house.sealer.seal_once()

    async def dispatch(self, what: int, how: int) -> None:
        """Publish what is sealed; the link may break in between."""
        if not self.bus.link:
            return
        self.bus.lose_acks_after = what % 6 if how % 3 == 0 else None
        try:
            await self.house.dispatch()
        finally:
            self.bus.lose_acks_after = None

    async def stop_midway(self, what: int, how: int) -> None:
        """Halt or pause a rollout while its triggers are being published."""
        if not self.bus.link:
            return
        command = (Command.HALT, Command.PAUSE)[how % 2]
        await self.conduct(what, how)
        await self.house.seal()
        if not self.bus.link:
            return
        self._orders = self._order(self._some_rollout(what).plan.name, command, OPERATORS[how % 2])
        self._stops = 1 + what % 5
        try:
            await self.house.dispatch()
        finally:
            self._stops, self._stopped = 0, False
            self._orders.close()

    async def hear(self, what: int, how: int) -> None:
        """Let some devices take what waits for them at the broker."""
        for device in self._some(what, how):
            self._hear(device)

    async def act(self, what: int, how: int) -> None:
        """Let some devices go on."""
        for device in self._some(what, how):
            for _ in range(1 + how % 3):
                device.act()

    async def deliver(self, what: int, how: int) -> None:
        """Bring what some devices said, perhaps out of order, perhaps once more later."""
        await self._bring(self._some(what, how), how)

    async def lose(self, what: int, how: int) -> None:
        """Lose what some devices said."""
        for device in self._some(what, how):
            del device.mail[: 1 + how % 2]

    async def poll(self, what: int, how: int) -> None:
        """Let some devices ask."""
        for device in self._some(what, how):
            await self._poll(device)

    async def greet(self, what: int, how: int) -> None:
        """Let some devices say hello, also such as nobody knew before."""
        for device in self._some(what, how, all_of_them=True):
            device.greet()

    async def will(self, what: int, how: int) -> None:
        """Let some devices drop off, to come back with another boot."""
        for device in self._some(what, how):
            device.vanish()

    async def lie(self, what: int, how: int) -> None:
        """Let a device say what it has no right to say."""
        for device in self._some(what, how)[:2]:
            device.lie(Random(what * 1000 + how), len(self.promises.state.updates))

    async def command(self, what: int, how: int) -> None:
        """Let an operator give a command, possible or not."""
        rollout = self._some_rollout(what)
        command = COMMANDS[how % len(COMMANDS)]
        if command is Command.ABORT and what % 4:
            return
        await self._order(rollout.plan.name, command, OPERATORS[what % 2])

    async def wait(self, what: int, how: int) -> None:
        """Let time pass."""
        self.clock.advance(PAUSES_S[what % len(PAUSES_S)])

    async def edit(self, what: int, how: int) -> None:
        """Let an operator edit a plan, or two who have both seen the same one: the second is told so."""
        rollout = self._some_rollout(what)
        for at, actor in enumerate(OPERATORS[: 1 + what % 2]):
            wanted = _edited(rollout.plan, how + at)
            try:
                edited = await self._edit(wanted, rollout.plan_version, actor)
            except ConflictError as refusal:  # by another's edit, or by its own that nobody was told of
                found = self.promises.state.rollouts[rollout.id]
                late = found.plan_version != rollout.plan_version
                self._require(late or found.phase in OVER, f"an edit was refused: {refusal.message}")
                continue
            now = self.promises.state.rollouts[rollout.id]
            self._require(now.plan == replace(wanted, leaves=now.plan.leaves), f"{actor} was overwritten")
            unseen = edited.version - rollout.plan_version - bool(edited.changes)
            self._require(not edited.changes or not unseen, f"{actor} overwrote {unseen} versions without a look")

    async def rollback(self, what: int, how: int) -> None:
        """Roll a rollout back to the release before it, if that is possible."""
        rollout, actor = self._some_rollout(what), OPERATORS[how % 2]
        back = Back(rollout.plan.name, "", "", "because")
        try:
            made = self._store.write(lambda tx: rollback.draft(tx, back, actor, self.clock()))
        except (ConflictError, RequestError):
            return
        stopped = self.promises.state.rollouts[rollout.id].phase in (*OVER, Phase.HALTED)
        self._require(stopped, f"a rollout that is {rollout.phase} was rolled back")
        await self._order(made.plan.name, Command.START, actor)

    async def ask(self, what: int, how: int) -> None:
        """Let services be asked; what they think may have changed."""
        self.house.service.mood = (True, True, True, False, None)[what % 5]
        await self.house.gatekeeper.ask_due()

    async def blackout(self, what: int, how: int) -> None:
        """Let all devices but a few drop off at once, and the engine learn it."""
        gone = [item for item in self.devices.values() if item.appeared][what % 4 :]
        for device in gone:
            device.vanish()
        await self._bring(gone, 1)

    async def dawn(self, what: int, how: int) -> None:
        """Let all devices come back."""
        there = [item for item in self.devices.values() if item.appeared]
        for device in there:
            device.connect() if device.character == SILENT else device.greet()
        await self._bring(there, 1)

    async def set_clock(self, what: int, how: int) -> None:
        """Set the clock, forward or back."""
        self._set_clock(CLOCK_JUMPS_S[what % len(CLOCK_JUMPS_S)])

    async def judge(self, what: int, how: int) -> None:
        """Judge silence."""
        await self.house.recorder.judge_silence_once()

    async def restart(self, what: int, how: int) -> None:
        """Kill the process between two things."""
        await self.house.restart()
        self.promises.audit_holds()

    async def link(self, what: int, how: int) -> None:
        """Break the link, or mend it."""
        if self.bus.link and what % 2:
            self.bus.go_down()
        elif not self.bus.link:
            self.bus.come_up()

    async def join(self, what: int, how: int) -> None:
        """Look for late joiners."""
        await self.house.joining.look()

    async def quarantine(self, what: int, how: int) -> None:
        """Quarantine a device, or let it back."""
        known = [item.id for item in self._some(what, how)[:1]]
        act = quarantine.enter if how % 3 else quarantine.leave
        there = self._store.write(methodcaller("devices_named", known))
        self._store.write(lambda tx: act(tx, [item.id for item in there], "because", self.clock(), actor="bob"))

    # How it ends

    async def _end(self) -> Ending:
        if not self.bus.link:
            self.bus.come_up()
        for device in self.devices.values():
            # who greets and never answers is offered the release for ever
            device.connect() if device.character == SILENT else device.greet()
        self.house.service.mood = True
        while self.begun < len(self.script.plans):
            await self.start(0)
        await self._settle()
        ending = Ending([f"{item.phase} {item.reason.code}" for item in self._rollouts()], self.house.crashes)
        for _ in range(GRANTS):
            if not await self._grant(last=False):
                break
            await self._settle()
        if await self._grant(last=True):
            await self._settle()
        for rollout in self._rollouts():
            self._require(rollout.phase in OVER, f"{rollout.plan.name} does not end: {rollout}")
        seen = hashlib.sha256(repr((ending.phases, self.promises.state.updates)).encode())
        ending.digest = seen.hexdigest()
        return ending

    async def _settle(self) -> None:
        """Lose nothing more, and go on until nothing happens by itself."""
        self.house.hearing()
        self.clock.advance(GRACE_S + 1)
        self.patience, self.answers = dict.fromkeys(self.devices, PATIENCE), 0
        await self._look_around()
        for _ in range(ROUNDS):
            if await self._last_round() or self._pass_time():
                continue
            if not await self._look_around() and not self._pass_time():
                break
        else:
            raise BrokenError(f"it never comes to rest: {[self._because(item) for item in self._rollouts()]}")
        self.promises.audit_holds()
        self.promises.has_lines(self.accepted)
        self.promises.nothing_is_left_lying()
        for rollout in self._rollouts():
            mine = [item for item in self.promises.state.updates.values() if item.rollout_id == rollout.id]
            flying = [item for item in mine if item.state in FLYING]
            self._require(not flying, f"still in flight at the end: {flying}")
            left = [item for item in mine if item.state is UpdateState.PENDING]
            self._require(rollout.phase is not Phase.DONE or not left, f"{rollout.plan.name} is done without {left}")
            self._explain(rollout)

    async def _last_round(self) -> bool:
        before, published = self.promises.state, len(self.bus.published)
        asking = self._asked_for()
        self.clock.advance(0.001)
        deadline = self.promises.next_deadline()
        if deadline is not None and deadline <= self.clock():
            await self.house.recorder.judge_silence_once()
        await self._work()
        moved = before != self.promises.state or published != len(self.bus.published)
        for device in self.devices.values():
            moved |= bool(device.inbox)
            self._hear(device)
            if device.id in asking and self.patience[device.id]:
                self.patience[device.id] -= asking[device.id] is UpdateState.UNREACHED
                await self._poll(device)
            while device.act():
                moved = True
        moved |= any(device.mail for device in self.devices.values())
        await self._bring(list(self.devices.values()), 1)
        moved |= before != self.promises.state
        self.answers = 0 if moved else self.answers
        return moved

    async def _look_around(self) -> bool:
        """Look at everything, as the daemon does now and then even if nothing seems to have happened."""
        before = self.promises.state
        await self.house.joining.look()
        await self.house.recorder.judge_silence_once()
        await self.conduct(0, 1)
        return before != self.promises.state

    async def _work(self) -> None:
        """Let the engine do what it is woken for."""
        conductor, now = self.house.conductor, self.clock()
        if self.asks:
            await self.house.gatekeeper.ask_due()
        due = {rollout_id for rollout_id, at in conductor._wake_at.items() if at <= now}
        woken, conductor._dirty = conductor._dirty | due, set()
        await self._advance(woken)
        states = {item.state for item in self.promises.state.parcels.values()}
        if "planned" in states:
            await self.house.seal()
        if self.bus.link and states & {"planned", "sealed", "claimed"}:
            await self.house.dispatch()
        self._post()

    def _asked_for(self) -> dict[str, UpdateState]:
        """Return the devices to which a poll could bring anything, and why; the others are spared the question."""
        state = self.promises.state
        polled = {key for key, item in state.rollouts.items() if item.plan.delivery is not Delivery.PUSH}
        return {
            item.device_id: item.state
            for item in state.updates.values()
            if item.state in _UNANSWERED
            and item.rollout_id in polled
            and self.devices[item.device_id].character != SILENT
        }

    def _pass_time(self) -> bool:
        """Move the clock to the next deadline or wake-up; says whether there is one."""
        coming = [*self.house.conductor._wake_at.values()]
        deadline = self.promises.next_deadline()
        if deadline is not None:
            coming.append(deadline)
        if not coming and not self._asks_again():
            return False
        coming = coming or [self.clock() + PAUSES_S[3]]
        self.clock.at = max(self.clock.at, min(coming)) + SLACK_S
        return True

    def _explain(self, rollout: Rollout) -> None:
        """A rollout that is not over says what it waits for."""
        if rollout.phase in OVER:
            return
        view = self._because(rollout)
        self._require(bool(view["because"] and view["next"]), f"nobody knows what it waits for: {view}")
        waits = rollout.phase in WAITS_FOR_A_PERSON
        if rollout.phase is Phase.RUNNING:
            waits = rollout.plan.stages[rollout.stage].approve and not rollout.current.hurried
        self._require(waits, f"it waits for nothing that could come: {view}")

    def _because(self, rollout: Rollout) -> dict[str, Any]:
        name, limits = rollout.plan.name, self.script.ceiling
        return self._store.write(
            lambda tx: explain.explain_rollout(tx, name, self.clock(), hearing=True, limits=limits)
        )

    async def _grant(self, *, last: bool) -> bool:
        """Give every rollout what it waits for; says whether there was one."""
        waiting = [item for item in self._rollouts() if item.phase not in OVER]
        for rollout in waiting:
            command = Command.ABORT if last else WAITS_FOR_A_PERSON[rollout.phase]
            await self.house.conductor.command(rollout.plan.name, command, actor="bob", reason="because")
            now = self.promises.state.rollouts[rollout.id]
            self._require(now != rollout, f"{command} changes nothing: {now}")
        return bool(waiting)

    # Means

    async def _advance(self, rollout_ids: Iterable[int]) -> None:
        """Let the conductor step rollouts; what it leaves them in must be what their evidence allows."""
        for rollout_id in sorted(rollout_ids):
            if await advance(self.house.conductor, rollout_id):
                self.promises.judged(rollout_id)

    def _asks_again(self) -> bool:
        """Say whether a rollout may wait for the answer of a service."""
        asking = [item for item in self._rollouts() if item.phase is Phase.RUNNING and item.plan.gate]
        self.answers += 1
        return bool(asking) and self.answers <= ANSWERS

    def _interrupt(self, number: int) -> None:
        """Let something happen between two transactions of the engine."""
        rollout = self._some_rollout(number)
        name, actor = rollout.plan.name, OPERATORS[number % 2]
        match number % 8:
            case 0:
                self._set_clock(-5.0)
            case 1:
                self._set_clock(600.0)
            case 2:
                _at_once(self.edit(number, number // 8))
            case 3:
                _at_once(self._order(name, Command.RESUME, actor))
            case 4 | 5:
                _at_once(self._order(name, Command.PAUSE, actor))
            case _:
                _at_once(self._order(name, Command.HALT, actor))

    def _set_clock(self, by_s: float) -> None:
        self.clock.advance(by_s)
        self.promises.clock_was_set()

    async def _edit(self, plan: Plan, seen: int, actor: str) -> Edited:
        wish = Wish(Caller(actor, actor, frozenset()), "because")
        wanted = Wanted(plan.name, plan, seen)
        return await editing.carry_out(self.house.conductor, self._store, Rules(), self.clock, wanted, wish)

    @property
    def _store(self) -> OneThread:
        return self.house.store

    def _rollouts(self) -> list[Rollout]:
        return [self.promises.state.rollouts[key] for key in sorted(self.promises.state.rollouts)]

    def _some_rollout(self, number: int) -> Rollout:
        known = self._rollouts()
        return known[number // 7 % len(known)]

    def _some(self, what: int, how: int, *, all_of_them: bool = False) -> list[Device]:
        """Return a part of the devices that were ever there."""
        there = [item for item in self.devices.values() if item.appeared or all_of_them]
        count = (1, 3, 8, len(there))[how % 4]
        first = what % len(there)
        return (there + there)[first : first + min(count, len(there))]

    async def _order(self, name: str, command: Command, actor: str) -> None:
        try:
            await self.house.conductor.command(name, command, actor=actor, reason="because")
        except ConflictError as refusal:
            phase = next(item.phase for item in self._rollouts() if item.plan.name == name)
            coded = refusal.code in ("stage_not_offered", "last_stage")
            self._require(coded or command not in possible(phase), f"{command} was refused: {refusal.message}")

    def _hear(self, device: Device) -> None:
        waiting, device.inbox = device.inbox, []
        for payload, expires_at in waiting:
            if expires_at > self.clock():
                device.hear(payload, self.clock())

    def _post(self) -> None:
        """Let the broker keep what was published for the devices."""
        for topic, payload, expiry_s in self.bus.published[self.posted :]:
            self.devices[topic.split("/")[3]].inbox.append((payload, self.clock() + expiry_s))
        self.posted = len(self.bus.published)

    async def _poll(self, device: Device) -> None:
        now = self.clock()
        known, answer = await self._store.read(lambda tx: _looked(tx, device.id, now))
        if known is None:
            return
        if answer is None:
            try:
                answer = self._store.write(lambda tx: give(tx, known, now))
            except UnavailableError:  # it asks again
                return
        if answer.token:
            self.promises.answered(answer.token.encode(), now)
            device.hear(answer.token.encode(), now)

    async def _bring(self, devices: Iterable[Device], how: int) -> None:
        """Deliver mail and let the recorder take it."""
        if not self.bus.link:
            return
        said: list[Report | Hello | State] = []
        for device in devices:
            count = len(device.mail) if how % 2 else 1
            taken, kept = device.mail[:count], device.mail[count:]
            said += taken
            device.mail = kept + taken[:1] if how % 7 == 6 else kept
        if how % 5 == 4:
            said.reverse()
        for item in said:
            channel = {Report: Channel.REPORT, Hello: Channel.HELLO}.get(type(item), Channel.STATE)
            self.bus.deliver(uplink(item.dev, channel), encode(item))
        if not self.bus.waiting:
            return
        before = len(self.bus.acked)
        try:
            await self.house.listen()
        finally:
            self._note_accepted(before)
            self.promises.still_hold()

    def _note_accepted(self, before: int) -> None:
        """Remember which reports about an attempt of their sender were acknowledged; progress keeps no line."""
        for message in self.bus.acked[before:]:
            topic = parse_uplink(message.topic)
            if topic.channel is not Channel.REPORT:
                continue
            said = decode_report(message.payload, topic.device)
            update_id, attempt = said.named
            update = self.promises.state.updates.get(update_id)
            if update is not None and update.device_id == said.dev and said.kind is not Kind.PROGRESS:
                self.accepted.add((update_id, attempt, said.boot, said.n))

    def _notice(self, topic: str, payload: bytes) -> None:
        """See each message that is being published; perhaps somebody stops a rollout just then."""
        if self.bus.link:
            self.promises.published(payload, claimed_before=self._stopped)
        if self._stops:
            self._stops -= 1
            if not self._stops:
                self._stopped = True
                _at_once(self._orders)

    @staticmethod
    def _require(holds: bool, text: str) -> None:
        if not holds:
            raise BrokenError(text)


@cache
def _artifact(rel: int) -> Artifact:
    """Return the artifact of a release, which may take the place of all that are newer."""
    return make_artifact(rel, MODELS, leaves=tuple(range(rel + 1, NEWEST + 1)))


def _edited(plan: Plan, how: int) -> Plan:
    """Return another plan."""
    changes: tuple[dict[str, Any], ...] = (
        {"in_flight": 2 if plan.in_flight != 2 else 30},
        {"in_flight": 50},
        {"max_unreached": 1.0},
        {"deadlines": replace(plan.deadlines, confirm_s=plan.deadlines.confirm_s + 60.0)},
        {"halt": replace(plan.halt, max_failures=2)},
        {"windows": Windows(), "jitter_s": 40.0},
        {"windows": EVENING},
        {"windows": EVENING},
        {"consent": ConsentRule(), "require": Requirements()},
        {"retry": replace(plan.retry, quarantine_after=1), "ramp": None},
    )
    return replace(plan, **changes[how % len(changes)])


def _looked(tx: Tx, device_id: str, now: float) -> tuple[Known | None, Answer | None]:
    known = tx.device(device_id)
    return known, None if known is None else look(tx, known, now)


def _at_once(orders: Coroutine[Any, Any, None] | None) -> None:
    """Carry out orders while somebody else has the loop; nothing in this house waits."""
    assert orders is not None
    try:
        orders.send(None)
    except StopIteration:
        return
    raise AssertionError("a command waited for something")
