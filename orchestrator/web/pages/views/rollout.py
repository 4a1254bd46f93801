"""The page of one rollout: where it stands, its stages, its evidence, what happened, and what may be done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core import rollout as machine
from orchestrator.core.model import DAEMON, Phase
from orchestrator.core.rollout import Command
from orchestrator.core.trust.roles import ACT_OF, Act, Caller, holders
from orchestrator.web.pages import words
from orchestrator.web.pages.charts import Axis, Dot, Part, bar, log, steps
from orchestrator.web.pages.views.approvals import proposal

View = dict[str, Any]

_SAID_ELSEWHERE = ("a person may:", "nothing: it is over")
_REASONED = frozenset({Command.ADVANCE, Command.SKIP})
_PAST_STOP = frozenset({Phase.HALTED, Phase.INCONCLUSIVE})
_ROLLED_BACK_FROM = frozenset({Phase.HALTED, Phase.DONE, Phase.ABORTED})
_OPEN = ("proposed", "approved")
_PASSES = {"operator_skip": "skipped", "operator_advance": "passed by a person"}
"""How it is told that a person put their word in the place of a stage's evidence, by the code of the event."""

_ACTS: dict[Command, tuple[str, str, str]] = {
    Command.START: ("Start", "main", "Fixes the cohort, and offers the release to the devices of the first stage."),
    Command.PAUSE: (
        "Pause",
        "",
        "Offers nothing more. Devices that have begun go on; triggers not sent are withdrawn.",
    ),
    Command.RESUME: ("Resume", "main", "Goes on where it stopped."),
    Command.HALT: (
        "Halt",
        "danger",
        "Stops it for safety: offers nothing more, and recalls the release from devices that have not installed it.",
    ),
    Command.RETRY: (
        "Retry failed",
        "",
        "Gives devices that failed another attempt. Their failures stay evidence; no gate becomes easier.",
    ),
    Command.ADVANCE: (
        "Advance now",
        "warn",
        "Passes this stage on your word, without waiting for the rest of its evidence. It can still halt.",
    ),
    Command.SKIP: (
        "Skip stage",
        "warn",
        "Goes to the next stage on your word; devices of this one without an offer wait for the next.",
    ),
    Command.ABORT: ("Abort", "danger", "Ends the rollout for good and recalls offers. This cannot be undone."),
}


def page(shown: View, why: View, trail: View, proposals: Sequence[View], seen: str, caller: Caller, now: float) -> View:
    """Return what the template of a rollout shows.

    Args:
        shown: `views.rollout_view`.
        why: `explain.explain_rollout`.
        trail: `trail.of_rollout`.
        proposals: those about this rollout, newest first, as the API shows them.
        seen: how it stands (`seen.mark`).
        caller: who looks.
        now: present time.
    """
    rest = "not updated" if Phase(shown["phase"]) in machine.FINISHED else "waiting"
    stages = [_stage(item, shown["stage"], rest) for item in shown["stages"]]
    return {
        "name": shown["name"],
        "release": shown["release"],
        "phase": shown["phase"],
        "line": why["because"],
        "since": why["since"],
        "actor": "by itself" if why["actor"] == DAEMON else f"by {why['actor']}",
        "wake_at": why["wake_at"],
        "facts": _facts(shown),
        "mends": _mends(shown),
        "stages": stages,
        "waits": [_wait(item) for item in why["waits_for"][1:]],
        "next": [_sentence(line) for line in why["next"] if not line.startswith(_SAID_ELSEWHERE)],
        "evidence": [_evidence(item) for item in why["evidence"]],
        "bound": _bound(why["bound"]),
        "lost": why["lost"],
        "diversity": why["diversity"],
        "failures": [_reason(item) for item in why["failures"]],
        "refusals": [_reason(item) for item in why["refusals"]],
        "charts": _charts(trail, now),
        "timeline": _timeline(why),
        "proposals": [proposal(item, caller) for item in proposals if item["state"] in _OPEN],
        "acts": _acts(shown, caller, proposals),
        "may_roll_back": Phase(shown["phase"]) in _ROLLED_BACK_FROM and caller.may(Act.CREATE),
        "seen": seen,
    }


def _facts(shown: View) -> list[tuple[str, str]]:
    size, slots = shown["cohort_size"], f"{shown['in_flight']} of at most {shown['in_flight_limit']}"
    return [
        ("Release", shown["release"]),
        ("Cohort", "not counted yet" if size is None else f"{words.number(size)} devices"),
        ("Reached", words.number(shown["reached"])),
        ("In flight", slots),
        ("Healthy", words.number(shown["states"].get("confirmed", 0))),
        ("Urgency", shown["urgency"]),
        ("Delivery", shown["delivery"]),
    ]


def _mends(shown: View) -> str:
    parts = [*shown["advisories"]] if shown["advisories"] else []
    if shown["severity"] != "none":
        parts.append(f"severity {shown['severity']}")
    return ", ".join(parts)


def _stage(item: View, current: int, rest: str) -> View:
    opened, target = item["opened"], item["target"]
    waiting = max((target or 0) - item["confirmed"] - item["failures"] - item["in_flight"] - item["unreached"], 0)
    parts = [
        Part("healthy", item["confirmed"], "healthy"),
        Part("failed", item["failures"], "failed"),
        Part("flight", item["in_flight"], "in flight"),
        Part("unreached", item["unreached"], "unreached"),
        Part("waiting", waiting if opened else 0, rest),
    ]
    number = item["index"] + 1
    said = ", ".join(f"{part.count} {part.name}" for part in parts if part.count) or "nothing yet"
    return {
        "number": number,
        "phase": item["phase"],
        "is_current": item["index"] == current and item["phase"] == "open",
        "target": target,
        "opened": opened,
        "parts": [part for part in parts[:4] if part.count] + ([Part("waiting", waiting, rest)] if waiting else []),
        "bar": bar(parts, target or opened, f"stage {number}: {said}"),
        "passed_at": item.get("passed_at"),
    }


def _wait(item: View) -> View:
    have, need = item["have"], item["need"]
    if have is None:
        progress = "" if need is None or item["may_change_at"] is not None else words.span(need)
    elif item["code"] in ("offers", "retries"):
        progress = words.number(have)
    else:
        progress = f"{words.number(have)} of {words.number(need)}" if need is not None else words.number(have)
    return {"text": item["text"].removeprefix("seconds of "), "progress": progress, "at": item["may_change_at"]}


def _evidence(item: View) -> View:
    share = 0.0 if item["e"] <= 1 else min(log(item["e"]) / log(item["threshold"]), 1.0)
    tone = "bad" if item["e"] >= item["threshold"] else "warn" if share >= 0.5 else "good"
    word = {"bad": "halts", "warn": "close", "good": "calm"}[tone]
    left = (
        "so few cannot halt"
        if item["more"] is None
        else "halts now"
        if not item["more"]
        else words.more(item["more"], "failure")
    )
    name = "all devices" if item["stratum"] == "all" else item["stratum"]
    return item | {"name": name, "tone": tone, "word": word, "left": left}


def _bound(item: View | None) -> View | None:
    if item is None or not item["n"]:
        return None
    holds = item["upper"] <= item["limit"]
    needs = (
        "no number of healthy devices is enough"
        if item["more"] is None
        else f"{words.number(item['more'])} more healthy"
        if item["more"]
        else "enough"
        if holds
        else "enough as soon as no device that is under way fails"
    )
    return item | {"tone": "good" if holds else "quiet", "word": "within" if holds else "not yet", "needs": needs}


def _charts(trail: View, now: float) -> list[View]:
    if trail["since"] is None:
        return []
    found = []
    for item in trail["strata"]:
        name = "all devices" if item["stratum"] == "all" else item["stratum"]
        charts = {"name": name, "e": _e_chart(trail, item, name, now), "bound": None}
        if item["stratum"] == "all":
            charts["bound"] = _bound_chart(trail, item, now)
        found.append(charts)
    return found


def _axis(trail: View, now: float, **sides: Any) -> Axis:
    since, until = trail["since"], trail["until"]
    right = "now" if until >= now else f"{words.clock(until)[5:16]} UTC"
    return Axis(since, until, f"{words.clock(since)[5:16]} UTC", right, **sides)


def _e_chart(trail: View, item: View, name: str, now: float) -> Any:
    threshold, points = item["threshold"], item["points"]
    highest = max([threshold, *(point["e"] for point in points)])
    top = log(highest) + 0.45
    ticks = [(log(1), "1")]
    axis = _axis(
        trail,
        now,
        ticks=ticks,
        limit=log(threshold),
        limit_text=f"halts at {words.plain(threshold)}",
        top=top,
        bottom=-1.2,
    )
    dots = [Dot(trail["since"], 0.0)]
    failed = 0
    for point in points:
        said = ""
        if point["k"] > failed:
            failed = point["k"]
            said = f"{failed} of {point['n']} failed, E {words.plain(point['e'])}, {words.clock(point['at'])} UTC"
        dots.append(Dot(point["at"], max(log(point["e"]), -1.2), said))
    last = points[-1]
    title = f"E of {name} over time: {words.plain(last['e'])} now, halts at {words.plain(threshold)}"
    return steps(dots, axis, "over" if last["e"] >= threshold else "calm", title)


def _bound_chart(trail: View, item: View, now: float) -> Any:
    limit, points = trail["limit"], item["points"]
    lowest = min([limit, *(point["upper"] for point in points)])
    ticks = [(log(share), words.percent(share, 0)) for share in (1.0, 0.1, 0.01) if share > lowest]
    axis = _axis(
        trail,
        now,
        ticks=ticks,
        limit=log(limit),
        limit_text=f"passes at {words.percent(limit)}",
        top=0.1,
        bottom=log(lowest) - 0.35,
    )
    dots = [Dot(trail["since"], 0.0), *(Dot(point["at"], log(point["upper"])) for point in points)]
    now_text, limit_text = words.percent(points[-1]["upper"]), words.percent(limit)
    title = f"upper bound of the failure rate over time: {now_text} now, passes at {limit_text}"
    return steps(dots, axis, "bound", title)


def _timeline(why: View) -> list[View]:
    found = [_event(item) for item in why["events"]]
    found += [
        {"at": item["at"], "tone": "warn", "what": item["did"], "text": item["text"], "who": item["actor"]}
        for item in why["people"]
        if item["did"].startswith(("asked for", "approved", "rejected"))
    ]
    return sorted(found, key=lambda item: float(item["at"]))[::-1]  # so that of one moment, too, the last comes first


def _event(item: View) -> View:
    phase, code, stage = item["phase"], item["code"], item["stage"] + 1
    tone, what = words.tone(phase), phase
    if code == "passed" and phase == Phase.RUNNING:
        tone, what = "good", f"stage {stage - 1} passed"  # the record says which one is open since
    elif code == "extended":
        what = f"stage {stage} extended"
    elif code in _PASSES and phase == Phase.RUNNING:
        tone, what = "warn", f"stage {stage} {_PASSES[code]}"
    elif code.startswith("operator_") and phase != Phase.DONE:
        what = code.removeprefix("operator_")
    return {
        "at": item["at"],
        "tone": tone,
        "what": what,
        "text": item["text"],
        "who": "" if item["actor"] == DAEMON else item["actor"],
    }


def _acts(shown: View, caller: Caller, proposals: Sequence[View]) -> list[View]:
    phase = Phase(shown["phase"])
    mine = {item["matter"]: item for item in proposals if item["proposer"] == caller.name and item["state"] in _OPEN}
    found = []
    for command in machine.possible(phase):
        label, kind, text = _ACTS[command]
        act = ACT_OF[command]
        waits = mine.get(command.value)
        needs_reason = command in _REASONED or (command is Command.RESUME and phase in _PAST_STOP)
        if command is Command.RESUME and phase is Phase.HALTED:
            text = "Goes on after the halt, in a new evidence epoch with half the alpha. Say why that is right."
        note = ""
        if waits is not None:
            note = f"Proposal {waits['id']} is {waits['state']}."
        found.append(
            {
                "command": command.value,
                "label": f"{label} (approved)" if waits is not None and waits["state"] == "approved" else label,
                "kind": kind,
                "text": text,
                "note": note,
                "needs_reason": needs_reason,
                "allowed": caller.may(act),
                "hint": "" if caller.may(act) else f"To {act} takes the role {holders(act)}.",
            }
        )
    return sorted(found, key=lambda item: item["kind"] == "danger")


def _reason(item: View) -> View:
    return item if item["code"] != "none" else item | {"code": "silence", "text": "it began, and said nothing more"}


def _sentence(line: str) -> str:
    return line[:1].upper() + line[1:] + "."
