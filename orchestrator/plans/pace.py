"""The sections of a plan that say when a device may be updated and how fast: windows, ramp, requirements, retries.

Rules:
- As in `model.py`: one small class per section, every key with its description, unknown keys refused.
- What cannot be meant is refused: a freeze that ends before it begins, a cap below its beginning.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from orchestrator.core.pace.ramp import Ramp
from orchestrator.core.pace.requirement import Consent, ConsentRule, Link, Requirements, Unknown
from orchestrator.core.pace.retry import Retry, RetryPolicy
from orchestrator.core.pace.window import Freeze, Window, Windows
from orchestrator.plans import quantities
from orchestrator.plans.hours import Day, Factor, Hours, ZoneName
from orchestrator.plans.quantities import LARGEST, Quantity
from orchestrator.plans.section import Section
from orchestrator.units import format_size, parse_size

Duration = Annotated[float, quantities.DURATION]
Share = Annotated[float, quantities.SHARE]
Size = Annotated[
    int,
    Quantity(
        parse_size, lambda size: format_size(int(size)), r"^[0-9]{1,15}(B|KiB|MiB|GiB)$", "a size", ("64KiB", "2MiB")
    ),
]
Count = Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
Attempts = Annotated[int, Field(strict=True, ge=1, le=9_999)]
Deferrals = Annotated[int, Field(strict=True, ge=0, le=1_000)]
Flag = Annotated[bool, Field(strict=True)]
Growth = Annotated[float, Factor()]


class WindowBody(Section):
    """When devices may be updated, by their own wall clock."""

    open: Annotated[
        tuple[Annotated[Window, Hours()], ...],
        Field(max_length=50, description="Hours of the week in which a device may begin; empty for always."),
    ] = ()
    fallback: Annotated[
        str, ZoneName(), Field(description="Time zone of devices whose own is not known, such as Europe/Berlin.")
    ] = "UTC"


class FreezeBody(Section):
    """Days on which nothing is updated, by the wall clock of the device."""

    first: Annotated[int, Day(), Field(description="The first day.")]
    last: Annotated[int, Day(), Field(description="The last day, itself included.")]
    why: Annotated[str, Field(strict=True, min_length=1, max_length=200, description="What is going on then.")]

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.last < self.first:
            raise ValueError("the last day is before the first one; write the earlier day as first")
        return self

    def to_core(self) -> Freeze:
        """Return the freeze for the core."""
        return Freeze(self.first, self.last, self.why)


class RampBody(Section):
    """How many updates may start per minute in each stage."""

    start: Annotated[Count, Field(description="Updates per minute when a stage opens.")]
    factor: Annotated[Growth, Field(description="What each step multiplies that by; 1 for no growth.")] = 2.0
    cap: Annotated[Count, Field(description="Updates per minute beyond which it does not grow.")]
    every: Annotated[Duration, Field(description="Time from one step to the next.")] = 600.0

    @model_validator(mode="after")
    def _cap_is_not_below(self) -> Self:
        if self.cap < self.start:
            raise ValueError(f"the cap {self.cap} is below the start {self.start}; write at least as much")
        return self

    def to_core(self) -> Ramp:
        """Return the ramp for the core."""
        return Ramp(self.start, self.factor, self.cap, self.every)


class RequireBody(Section):
    """What a device must have said of itself."""

    battery: Annotated[
        Share | None, Field(description="Least charge of its battery; on external power none is needed. null for none.")
    ] = None
    charging: Annotated[Flag, Field(description="Whether it must be on external power.")] = False
    free: Annotated[
        Size | None, Field(description="What must be left free besides the artifact; null asks for nothing.")
    ] = None
    links: Annotated[
        tuple[Link, ...], Field(max_length=len(Link), description="Links that will do; empty for any.")
    ] = ()
    unmetered: Annotated[Flag, Field(description="Whether its traffic must not be paid for by volume.")] = False
    uptime: Annotated[Duration | None, Field(description="Least time since its boot; null for none.")] = None
    max_age: Annotated[Duration, Field(description="What it said longer ago counts as not said.")] = 86_400.0
    unknown: Annotated[
        Unknown, Field(description="What holds for a device that did not say: hold it, or allow the update.")
    ] = Unknown.HOLD

    def to_core(self) -> Requirements:
        """Return the requirements for the core."""
        return Requirements(
            battery_pct=None if self.battery is None else round(self.battery * 100),
            charging=self.charging,
            free_bytes=self.free,
            links=frozenset(self.links),
            unmetered=self.unmetered,
            uptime_s=self.uptime,
            max_age_s=self.max_age,
            unknown=self.unknown,
        )


class ConsentBody(Section):
    """Whether the user of a device is asked, and how often the update may be put off."""

    mode: Annotated[Consent, Field(description="not_needed, or ask.")] = Consent.NOT_NEEDED
    deferrals: Annotated[Deferrals, Field(description="How often a user may put the update off.")] = 3
    longest: Annotated[Duration, Field(description="How far ahead one deferral may reach.")] = 604_800.0

    def to_core(self) -> ConsentRule:
        """Return the rule for the core."""
        return ConsentRule(self.mode, self.deferrals, self.longest)


class AgainBody(Section):
    """How one class of failures is tried again."""

    attempts: Annotated[Attempts, Field(description="Attempts at most, the first included.")]
    wait: Annotated[Duration, Field(description="Wait after the first attempt.")]
    factor: Annotated[Growth, Field(description="What each further attempt multiplies the wait by.")] = 2.0
    longest: Annotated[Duration, Field(description="Longest wait.")] = 86_400.0
    jitter: Annotated[Share, Field(description="Part of the wait that the spread over devices may take off.")] = 0.5

    @model_validator(mode="after")
    def _longest_is_not_below(self) -> Self:
        if self.longest < self.wait:
            raise ValueError("the longest wait is shorter than the first one; write at least as much")
        return self

    def to_core(self) -> Retry:
        """Return the retry for the core."""
        return Retry(self.attempts, self.wait, self.factor, self.longest, self.jitter)


class TransientBody(AgainBody):
    """Failures of the link or the power, and messages that came too late."""

    attempts: Annotated[Attempts, Field(description="Attempts at most, the first included.")] = 5
    wait: Annotated[Duration, Field(description="Wait after the first attempt.")] = 300.0


class UnexplainedBody(AgainBody):
    """Crashes, and codes that only the device knows."""

    attempts: Annotated[Attempts, Field(description="Attempts at most, the first included.")] = 1
    wait: Annotated[Duration, Field(description="Wait after the first attempt.")] = 3_600.0


class SuspiciousBody(AgainBody):
    """Refusals by the verifier, and bytes that are not those of the trigger."""

    attempts: Annotated[Attempts, Field(description="Attempts at most, the first included.")] = 1
    wait: Annotated[Duration, Field(description="Wait after the first attempt.")] = 3_600.0


class RetryBody(Section):
    """How failed attempts are tried again, by class of failure; permanent ones never are."""

    transient: Annotated[TransientBody, Field(description="The link, the power, a message that came too late.")] = (
        TransientBody()
    )
    unexplained: Annotated[UnexplainedBody, Field(description="A crash, or a code that only the device knows.")] = (
        UnexplainedBody()
    )
    suspicious: Annotated[
        SuspiciousBody, Field(description="A refusal by the verifier, or bytes that are not those of the trigger.")
    ] = SuspiciousBody()


class QuarantineBody(Section):
    """When a device failed too often; it is left out of all rollouts until a person lets it back."""

    after: Annotated[
        int,
        Field(strict=True, ge=0, le=100, description="Rollouts in a row that ended in a final failure; 0 for never."),
    ] = 3


def to_windows(window: WindowBody, freezes: tuple[FreezeBody, ...]) -> Windows:
    """Return windows and freezes for the core."""
    return Windows(window.open, tuple(freeze.to_core() for freeze in freezes), window.fallback)


def to_retries(retry: RetryBody, quarantine: QuarantineBody) -> RetryPolicy:
    """Return retries and quarantine for the core."""
    return RetryPolicy(
        retry.transient.to_core(), retry.unexplained.to_core(), retry.suspicious.to_core(), quarantine.after
    )
