"""Each device's own character: which faults it has, how fast it is, whom it trusts.

Rules:
- `cast` deals faults out by keyed hash: the same behaviour and devices give the same profiles.
- A profile never changes while the device lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.sim.behaviour import Behaviour
from orchestrator.sim.draw import chosen, dealt, draw, within
from orchestrator.verifier import Keyset

FAULTS = ("bad", "lie", "silent", "offline", "power_loss", "duplicate", "reorder", "replay")


@dataclass(frozen=True, slots=True)
class Trust:
    """What every device of the fleet was provisioned with.

    Attributes:
        keyset: deployment, key epoch and public keys at birth; a device may take later keysets.
        allowed_origins: origins that downloads may come from.
        loopback: whether plain HTTP to loopback is allowed.
    """

    keyset: Keyset
    allowed_origins: tuple[str, ...]
    loopback: bool


@dataclass(frozen=True, slots=True)
class Pace:
    """How long one device takes for its phases, already divided by the speed."""

    download_s: float
    install_s: float
    reboot_s: float
    selftest_s: float
    retry_s: float
    poll_s: float
    speed: float


@dataclass(frozen=True, slots=True)
class Profile:
    """One device's character.

    Attributes:
        device: device identifier.
        model: hardware model.
        channel: `push`, `poll` or `both`.
        faults: which of the behaviour's faults it has, by the name before `_share`.
        battery: battery in percent.
        pace: durations.
        run: word that differs in each run of the simulator, so that boot identifiers do.
        trust: provisioned trust.
        behaviour: what the whole fleet has in common.
    """

    device: str
    model: str
    channel: str
    faults: frozenset[str]
    battery: int
    pace: Pace
    run: str
    trust: Trust
    behaviour: Behaviour

    def has(self, fault: str) -> bool:
        """Say whether the device has a fault."""
        return fault in self.faults


def cast(behaviour: Behaviour, models: Mapping[str, str | None], trust: Trust, run: str) -> list[Profile]:
    """Give each device its character.

    Args:
        behaviour: behaviour of the fleet.
        models: device -> hardware model, or None to deal one out.
        trust: provisioned trust.
        run: word that differs in each run.

    Returns:
        One profile per device, in the order of `models`.
    """
    devices = list(models)
    faulty = {fault: chosen(behaviour.seed, fault, devices, getattr(behaviour, f"{fault}_share")) for fault in FAULTS}
    dealt_models = dealt(behaviour.seed, "model", devices, behaviour.models)
    channels = dealt(behaviour.seed, "channel", devices, _plain(behaviour))
    return [
        Profile(
            device=device,
            model=models[device] or dealt_models[device],
            channel=channels[device],
            faults=frozenset(fault for fault in FAULTS if device in faulty[fault]),
            battery=round(within(behaviour.battery_pct, draw(behaviour.seed, "battery", device))),
            pace=_pace(behaviour, device),
            run=run,
            trust=trust,
            behaviour=behaviour,
        )
        for device in devices
    ]


def _plain(behaviour: Behaviour) -> dict[str, float]:
    return {str(channel): part for channel, part in behaviour.channels.items()}


def _pace(behaviour: Behaviour, device: str) -> Pace:
    def drawn(word: str, bounds: tuple[float, float]) -> float:
        return within(bounds, draw(behaviour.seed, word, device)) / behaviour.speed

    return Pace(
        download_s=drawn("download", behaviour.download_s),
        install_s=drawn("install", behaviour.install_s),
        reboot_s=drawn("reboot", behaviour.reboot_s),
        selftest_s=drawn("selftest", behaviour.selftest_s),
        retry_s=drawn("retry", (1.0, 3.0)),
        poll_s=behaviour.poll_s / behaviour.speed,
        speed=behaviour.speed,
    )
