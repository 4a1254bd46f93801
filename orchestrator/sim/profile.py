"""Each device's own character: which faults it has, how fast it is, whom it trusts.

Rules:
- `cast` deals faults out by keyed hash: the same behaviour and devices give the same profiles.
- A profile never changes while the device lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.sim.behaviour import Behaviour, LinkName
from orchestrator.sim.draw import chosen, dealt, draw, within
from orchestrator.verifier import Keyset

FAULTS = ("bad", "lie", "silent", "offline", "power_loss", "duplicate", "reorder", "replay", "unreachable")
TRAITS = ("charging", "metered")


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
    trial_s: float
    poll_s: float
    speed: float


@dataclass(frozen=True, slots=True)
class Profile:
    """One device's character.

    Attributes:
        device: device identifier.
        model: hardware model.
        channel: `push`, `poll` or `both`.
        faults: which of the behaviour's faults and traits it has, by the name before `_share`.
        battery: battery in percent.
        link: how it is connected.
        metrics: what it measures of itself while all is well.
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
    link: LinkName
    metrics: Mapping[str, float]
    pace: Pace
    run: str
    trust: Trust
    behaviour: Behaviour

    def has(self, fault: str) -> bool:
        """Say whether the device has a fault or a trait."""
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
    words = (*FAULTS, *TRAITS)
    having = {word: chosen(behaviour.seed, word, devices, getattr(behaviour, f"{word}_share")) for word in words}
    dealt_models = dealt(behaviour.seed, "model", devices, behaviour.models)
    channels = dealt(behaviour.seed, "channel", devices, behaviour.channels)
    links = dealt(behaviour.seed, "link", devices, behaviour.links)
    return [
        Profile(
            device=device,
            model=models[device] or dealt_models[device],
            channel=channels[device],
            faults=frozenset(word for word in words if device in having[word]),
            battery=round(within(behaviour.battery_pct, draw(behaviour.seed, "battery", device))),
            link=links[device],
            metrics=_metrics(behaviour, device),
            pace=_pace(behaviour, device),
            run=run,
            trust=trust,
            behaviour=behaviour,
        )
        for device in devices
    ]


def _metrics(behaviour: Behaviour, device: str) -> dict[str, float]:
    return {
        name: within((mean - spread, mean + spread), draw(behaviour.seed, f"metric {name}", device))
        for name, (mean, spread) in behaviour.metrics.items()
    }


def _pace(behaviour: Behaviour, device: str) -> Pace:
    def drawn(word: str, bounds: tuple[float, float]) -> float:
        return within(bounds, draw(behaviour.seed, word, device)) / behaviour.speed

    return Pace(
        download_s=drawn("download", behaviour.download_s),
        install_s=drawn("install", behaviour.install_s),
        reboot_s=drawn("reboot", behaviour.reboot_s),
        selftest_s=drawn("selftest", behaviour.selftest_s),
        retry_s=drawn("retry", (1.0, 3.0)),
        trial_s=behaviour.trial_s / behaviour.speed,
        poll_s=behaviour.poll_s / behaviour.speed,
        speed=behaviour.speed,
    )
