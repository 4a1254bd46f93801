"""What a fleet does, as one frozen value that a person can write down in YAML.

Rules:
- Unknown keys, wrong types and values out of range are refused, all listed at once.
- A behaviour says how many devices misbehave, never which ones: `profile.cast` deals that out by the seed.
- Durations are those of real devices; `speed` divides them all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

from orchestrator import strict_yaml
from orchestrator.errors import ConfigError
from orchestrator.wire.endpoints import COMPONENT as ENDPOINTS
from orchestrator.wire.report import MAX_METRICS, METRIC
from orchestrator.wire.topics import is_identifier

MAX_DEVICES = 20_000
ID_PATTERN = re.compile(r"[^{}]*\{0?(?::[0-9]{0,2}[dx]?)?\}[^{}]*")  # no wide field: {:9999999999} fills the memory

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Weight = Annotated[float, msgspec.Meta(ge=0)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Channel = Literal["push", "poll", "both"]
LinkName = Literal["wifi", "ethernet", "cellular"]
Number = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
MetricName = Annotated[str, msgspec.Meta(pattern=METRIC)]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a simulated fleet is made up and what goes wrong in it.

    Attributes:
        devices: number of devices.
        id_pattern: format string that makes a device identifier of a number.
        models: hardware model -> its part of the fleet; a credentials file overrules it.
        groups: groups that every device belongs to.
        component: the one component that devices have.
        version: version that devices start with.
        rel: release counter that devices start with.
        seed: decides which device is what; equal seeds give equal fleets.
        speed: all durations are divided by this.
        channels: `push` (MQTT), `poll` (HTTP) or `both` -> its part of the fleet.
        clean_session: whether the broker forgets commands while a device is away.
        bad_share: devices on which bad images crash.
        bad_releases: versions that count as bad whatever their bytes say.
        lie_share: devices that claim a crashed image to be confirmed.
        silent_share: devices never heard again once they boot a new image.
        offline_share: devices that never connect.
        power_loss_share: devices that lose power in the middle of each download.
        duplicate_share: devices that send each report twice.
        reorder_share: devices whose reports overtake each other.
        replay_share: devices that send reports retained, and their first one again on each connection.
        unreachable_share: devices whose network does not reach the addresses that they are moved to.
        battery_pct: range of battery levels.
        least_battery_pct: charge below which a device refuses to begin.
        charging_share: devices on external power.
        metered_share: devices whose traffic is paid for by volume.
        links: `wifi`, `ethernet` or `cellular` -> its part of the fleet.
        free_bytes: room where a download is kept; 0 where nobody knows it.
        metrics: what devices measure of themselves: name -> mean, and how far a device may be from it.
        bad_metrics: name -> what a bad image adds to it on every device that runs it.
        slot_bytes: size of a slot, of which an image takes at most nine tenths; 0 where nobody knows it.
        download_s: range of the shortest time a download takes.
        install_s: range of the time to write and check an image.
        reboot_s: range of the time without power or link.
        selftest_s: range of the time from boot to confirmation or crash.
        trial_s: how long new addresses are tried before the device goes back to the old ones.
        poll_s: time between two polls.
    """

    devices: Annotated[int, msgspec.Meta(ge=1, le=MAX_DEVICES)] = 10
    id_pattern: Annotated[str, msgspec.Meta(max_length=64)] = "sim-{:05d}"
    models: dict[str, Weight] = field(default_factory=lambda: {"sim-a": 1.0})
    groups: tuple[str, ...] = ()
    component: str = "main"
    version: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "1.0.0"
    rel: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 1
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    speed: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 1.0
    channels: dict[Channel, Weight] = field(default_factory=lambda: {"push": 1.0})
    clean_session: bool = False
    bad_share: Share = 0.0
    bad_releases: tuple[str, ...] = ()
    lie_share: Share = 0.0
    silent_share: Share = 0.0
    offline_share: Share = 0.0
    power_loss_share: Share = 0.0
    duplicate_share: Share = 0.0
    reorder_share: Share = 0.0
    replay_share: Share = 0.0
    unreachable_share: Share = 0.0
    battery_pct: tuple[Percent, Percent] = (40, 100)
    least_battery_pct: Percent = 0
    charging_share: Share = 0.0
    metered_share: Share = 0.0
    links: dict[LinkName, Weight] = field(default_factory=lambda: {"wifi": 1.0})
    free_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0
    metrics: Annotated[dict[MetricName, tuple[Number, Weight]], msgspec.Meta(max_length=MAX_METRICS)] = field(
        default_factory=dict
    )
    bad_metrics: dict[str, Number] = field(default_factory=dict)
    slot_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0
    download_s: tuple[Seconds, Seconds] = (2.0, 8.0)
    install_s: tuple[Seconds, Seconds] = (1.0, 4.0)
    reboot_s: tuple[Seconds, Seconds] = (2.0, 5.0)
    selftest_s: tuple[Seconds, Seconds] = (5.0, 15.0)
    trial_s: Seconds = 300.0
    poll_s: Annotated[float, msgspec.Meta(ge=1, le=604_800)] = 60.0

    def device_ids(self) -> list[str]:
        """Return the identifiers that the pattern makes."""
        return [self.id_pattern.format(number) for number in range(self.devices)]


def load(path: Path) -> Behaviour:
    """Read a behaviour from a YAML file; what it does not name stays at the default.

    Raises:
        ConfigError: listing every fault of the file.
    """
    try:
        document = strict_yaml.parse(path.read_bytes()) or {}
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); name an existing file"]) from None
    except ValueError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    if not isinstance(document, dict):
        raise ConfigError([f"{path}: must be a mapping of keys to values"])
    return altered(Behaviour(), document)


def altered(behaviour: Behaviour, values: dict[str, Any]) -> Behaviour:
    """Return a behaviour with some values replaced, checked as if they came from a file.

    Raises:
        ConfigError: listing every value that is refused.
    """
    hints = get_type_hints(Behaviour, include_extras=True)
    known = [each.name for each in fields(Behaviour)]
    faults = [f"{name}: unknown key; known are {', '.join(known)}" for name in values if name not in known]
    taken: dict[str, Any] = {}
    for name in known:
        if name in values:
            try:
                taken[name] = msgspec.convert(values[name], hints[name])
            except msgspec.ValidationError as error:
                faults.append(f"{name}: {error}")
    changed = replace(behaviour, **taken)
    faults += _contradictions(changed, taken)
    if faults:
        raise ConfigError(faults)
    return changed


def _contradictions(behaviour: Behaviour, taken: dict[str, Any]) -> list[str]:
    faults = [
        f"{name}: the first number must not be larger than the second"
        for name in ("battery_pct", "download_s", "install_s", "reboot_s", "selftest_s")
        if getattr(behaviour, name)[0] > getattr(behaviour, name)[1]
    ]
    faults += [
        f"{name}: at least one part must be above zero"
        for name in ("models", "channels", "links")
        if sum(getattr(behaviour, name).values()) <= 0
    ]
    unknown = [name for name in behaviour.bad_metrics if name not in behaviour.metrics]
    faults += [f"bad_metrics: {name!r} is none of the metrics; list it there as well" for name in unknown]
    if behaviour.component == ENDPOINTS:
        faults.append(
            f"component: {ENDPOINTS} is what devices keep their addresses in; give what they run another name"
        )
    words = [*behaviour.models, *behaviour.groups, behaviour.component]
    faults += [f"{word!r}: not an identifier ([a-z0-9][a-z0-9._-]*)" for word in words if not is_identifier(word)]
    if "id_pattern" in taken and not _makes_identifiers(behaviour.id_pattern):
        faults.append("id_pattern: must make another identifier of each number, as 'sim-{:05d}' does")
    return faults


def _makes_identifiers(pattern: str) -> bool:
    if ID_PATTERN.fullmatch(pattern) is None:
        return False
    made = {pattern.format(number) for number in (0, 1, MAX_DEVICES)}
    return len(made) == 3 and all(map(is_identifier, made))
