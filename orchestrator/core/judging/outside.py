"""What is known besides the reports of devices: a service that was asked, and an outage that took many of them away.

Rules:
- A service is asked for JSON, and one comparison is made with one value in it; what does not fit holds the stage.
- Only an answer that was asked for after everything else held, and that is not old, lets a stage pass.
- An answer halts only if it was asked for since the rollout last moved, so that a resume is not undone by an old one.
- Nothing here asks anybody: `engine.rollouts.gates` does, and `engine.reports.outage` counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from operator import eq, ge, gt, le, lt, ne
from typing import Any, NoReturn

from orchestrator.core.reason import Reason, counted

_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"
_PATH = rf"{_NAME}(\.{_NAME}|\[[0-9]{{1,4}}\]){{0,15}}"
_NUMBER = r"-?[0-9]{1,15}(\.[0-9]{1,9})?"
_TEXT = r'"[ !#-\[\]-~]{0,128}"'
CONDITION = rf"^{_PATH} (((==|!=) ({_NUMBER}|{_TEXT}|true|false|null))|((<=|>=|<|>) {_NUMBER}))$"
"""Every condition, in the syntax of ECMA 262: a path, one space, a comparison, one space, and a value."""

LATE_FACTOR = 2
"""An answer is old after so many times its interval and its deadline."""

MAX_BODY_BYTES = 65_536
_MAX_SHOWN = 60
_STEP = re.compile(rf"({_NAME})|\[([0-9]+)\]")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
_KINDS = {
    bool: "true or false",
    float: "a number",
    str: "a text",
    type(None): "null",
    dict: "an object",
    list: "a list",
}


class IfUnmet(StrEnum):
    """What an answer does that does not meet the condition."""

    HOLD = "hold"
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class ServiceGate:
    """A service that a stage asks before it passes.

    Attributes:
        url: asked by GET, for JSON.
        condition: what its answer must meet; see `CONDITION`.
        every_s: pause between two questions, while the stage is open.
        timeout_s: how long an answer may take.
        if_unmet: what an answer does that does not meet it.
    """

    url: str
    condition: str
    every_s: float = 60.0
    timeout_s: float = 10.0
    if_unmet: IfUnmet = IfUnmet.HOLD

    @property
    def place(self) -> str:
        """Whom it asks, without what may be a secret."""
        return self.url.partition("?")[0]

    @property
    def fresh_s(self) -> float:
        """How long an answer counts."""
        return LATE_FACTOR * (self.every_s + self.timeout_s)


class Verdict(StrEnum):
    """What an answer means for the stage."""

    PASS = "pass"
    HOLD = "hold"
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of the last question.

    Attributes:
        stage: stage that it was asked for.
        asked_at: when the question was sent.
        verdict: what it means.
        text: why.
    """

    stage: int
    asked_at: float
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class Outage:
    """Many devices that no rollout had touched went away at about the same time.

    Attributes:
        began_at: when so many were gone.
        gone: how many went away then.
        share: their share of those that were connected.
    """

    began_at: float
    gone: int
    share: float

    @property
    def reason(self) -> Reason:
        """Why the rollout holds."""
        text = (
            f"{counted(self.gone, 'device')} outside any update lost their connection within minutes "
            f"({self.share:.0%} of those connected); the rollout holds until they are back"
        )
        return Reason("outage", text)


@dataclass(frozen=True, slots=True)
class Outside:
    """What is known besides tallies.

    Attributes:
        answer: the last answer of the current stage's service, None if it has none or was not asked yet.
        outage: the outage that holds all rollouts, None while there is none.
    """

    answer: Answer | None = None
    outage: Outage | None = None


CALM = Outside()
"""Nothing besides."""


class _MismatchError(ValueError):
    """The answer is not what the condition speaks of."""


def read(gate: ServiceGate, body: bytes) -> tuple[Verdict, str]:
    """Return what an answer means for the stage, and why.

    Args:
        gate: what was asked, with a valid condition.
        body: what came back.
    """
    path, comparison, wanted = gate.condition.split(" ", 2)
    try:
        value = _find(_document(body), path)
        met = _compare(value, comparison, json.loads(wanted, parse_int=float))
    except _MismatchError as error:
        return Verdict.HOLD, f"the answer of the service cannot be judged: {error}"
    if met:
        return Verdict.PASS, f"{gate.condition} holds"
    verdict = Verdict.HALT if gate.if_unmet is IfUnmet.HALT else Verdict.HOLD
    return verdict, f"{gate.condition} does not hold: it is {_shown(value)}"


def alarm(gate: ServiceGate | None, answer: Answer | None, stage: int, moved_at: float) -> Reason | None:
    """Return why an answer halts the rollout, None if it does not."""
    if gate is None or answer is None or answer.stage != stage or answer.asked_at <= moved_at:
        return None
    return Reason("service_gate", answer.text) if answer.verdict is Verdict.HALT else None


def holds(gate: ServiceGate | None, answer: Answer | None, stage: int, since: float, now: float) -> Reason | None:
    """Return why the service holds a stage in which everything else held since a time, None if it lets it pass."""
    if gate is None:
        return None
    if answer is None or answer.stage != stage or answer.asked_at < since:
        return Reason("service_gate", f"{gate.place} is being asked whether {gate.condition}")
    if now - answer.asked_at > gate.fresh_s:
        return Reason("service_gate", f"{gate.place} was last asked {now - answer.asked_at:.0f} s ago; that is too old")
    return None if answer.verdict is Verdict.PASS else Reason("service_gate", answer.text)


def _document(body: bytes) -> object:
    if len(body) > MAX_BODY_BYTES:
        raise _MismatchError(f"it is larger than {MAX_BODY_BYTES} bytes")
    try:
        return json.loads(body.decode("utf-8"), parse_int=float, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _MismatchError("it is not JSON in UTF-8") from None


def _no_number(word: str) -> NoReturn:
    raise ValueError(word)


def _find(document: object, path: str) -> object:
    found, walked = document, ""
    for name, place in _STEP.findall(path):
        walked += f"[{place}]" if place else f".{name}" if walked else name
        if place and isinstance(found, list) and int(place) < len(found):
            found = found[int(place)]
        elif name and isinstance(found, dict) and name in found:
            found = found[name]
        else:
            raise _MismatchError(f"it has no {walked}")
    return found


def _compare(value: object, comparison: str, wanted: object) -> bool:
    """Compare two values of one kind; whatever may be null is compared with null alone."""
    if type(value) is not type(wanted) and value is not None and wanted is not None:
        raise _MismatchError(f"its value is {_KINDS[type(value)]}, not {_KINDS[type(wanted)]}")
    if comparison not in ("==", "!=") and value is None:
        raise _MismatchError("its value is null, not a number")
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise _MismatchError("its value is too large a number")
    return _COMPARE[comparison](value, wanted)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
