"""What templates are given: groups, figures, what needs somebody, and words instead of numbers where words say more."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.trust.roles import Caller, Role
from orchestrator.ports import Operator, Token
from orchestrator.web.pages.views import accounts, approvals, artifacts, device, fleet, keys, rollout, rollouts

LINE: dict[str, Any] = {
    "id": 1,
    "name": "spring",
    "release": "radio-2",
    "phase": "running",
    "stage": 0,
    "stages": 3,
    "cohort_size": 40,
    "confirmed": 10,
    "failures": 2,
    "in_flight": 8,
    "reason": "40 devices",
    "urgency": "normal",
    "moved_at": 0.0,
}
CENSUS: dict[str, Any] = {
    "devices": 10,
    "online": 7,
    "offline": 2,
    "unsaid": 1,
    "silent": 3,
    "quarantined": 1,
    "versions": [
        {"version": "", "rel": 0, "devices": 1, "models": ["m1"]},
        {"version": "", "rel": 9, "devices": 2, "models": ["m1"]},
        {"version": "1.0", "rel": 1, "devices": 7, "models": ["m1", "m2"]},
    ],
    "other_versions": 0,
    "models": [{"model": "m1", "devices": 10}],
}


def proposal(**changes: Any) -> dict[str, Any]:
    known = {
        "id": 7,
        "matter": "start",
        "object": "spring",
        "state": "proposed",
        "text": "start of spring",
        "votes": [],
    }
    return known | {"proposer": "ann", "person": "ann.b", "reason": "", "needed": 1} | changes


def test_what_needs_a_person_comes_first() -> None:
    lines = [LINE | {"name": phase, "phase": phase} for phase in ("done", "draft", "running", "halted", "paused")]
    found = rollouts.page(lines)
    assert [(group["name"], [item["name"] for item in group["rollouts"]]) for group in found["groups"]] == [
        ("Needs a person", ["halted"]),
        ("Under way", ["running", "paused"]),
        ("Drafts", ["draft"]),
        ("Over", ["done"]),
    ]
    assert rollouts.page([]) == {"groups": [], "count": 0, "older": 0}


def test_a_line_tells_its_bar_in_words() -> None:
    found = rollouts.line(LINE)
    assert 'aria-label="spring: 10 healthy, 2 failed, 8 in flight, 20 not updated"' in found["bar"]
    assert (found["stage_text"], found["share"]) == ("1 of 3", 0.25)
    draft = rollouts.line(LINE | {"phase": "draft", "cohort_size": None, "confirmed": 0, "failures": 0, "in_flight": 0})
    assert (draft["stage_text"], draft["share"]) == ("–", None)
    assert "no device yet" in draft["bar"]


def test_the_fleet_shows_who_is_there_and_what_it_runs() -> None:
    found = fleet.page(CENSUS, [LINE], [], 0, [], {})
    assert [(item["name"], item["count"]) for item in found["figures"]] == [
        ("Devices", 10),
        ("Online", 7),
        ("Silent for a day", 3),
        ("Quarantined", 1),
    ]
    assert [item["name"] for item in found["versions"]] == ["not known", "not said", "1.0"]
    assert found["needs"] == []


def test_an_empty_fleet_is_shown_as_well() -> None:
    nothing: dict[str, Any] = dict.fromkeys(CENSUS, 0) | {"versions": [], "models": []}
    assert fleet.page(nothing, [], [], 0, [], {})["figures"][1]["share"] == 0.0


def test_all_that_needs_somebody_is_named() -> None:
    status = {"store_fault": "no room", "broker_connected": False}
    proposals = [proposal(), proposal(id=8, state="used"), proposal(id=9, matter="operator", object="dee")]
    found = fleet.page(CENSUS, [LINE | {"phase": "halted"}, LINE | {"phase": "inconclusive"}], proposals, 2, [], status)
    assert [(item["tone"], item["what"], item["link"]) for item in found["needs"]] == [
        ("bad", "spring is halted", "/rollouts/spring"),
        ("warn", "spring is inconclusive", "/rollouts/spring"),
        ("warn", "Proposal 7 waits", "/rollouts/spring"),
        ("warn", "Proposal 9 waits", "/approvals"),
        ("bad", "2 open reviews", "/approvals"),
        ("bad", "The store cannot be written", ""),
        ("bad", "The broker is not connected", ""),
    ]


@pytest.mark.parametrize(
    ("caller", "may"),
    [
        (Caller("ben", "ben", frozenset({Role.APPROVER})), True),
        (Caller("ann2", "ann.b", frozenset({Role.APPROVER})), False),
        (Caller("vic", "vic", frozenset({Role.VIEWER})), False),
    ],
)
def test_who_may_vote_is_asked_to(caller: Caller, may: bool) -> None:
    found = approvals.proposal(proposal(), caller)
    assert (found["may_vote"], bool(found["hint"])) == (may, not may)


def test_evidence_is_told_by_how_far_it_is_from_a_halt() -> None:
    item = {"stratum": "all", "k": 1, "n": 10, "threshold": 20.0, "halts_at": 2}
    told = [rollout._evidence(item | {"e": e, "more": more}) for e, more in ((0.3, None), (8.0, 1), (25.0, 0))]
    assert [(found["word"], found["left"]) for found in told] == [
        ("calm", "so few cannot halt"),
        ("close", "1 more failure"),
        ("halts", "halts now"),
    ]


@pytest.mark.parametrize(
    ("upper", "more", "told"),
    [
        (0.02, 0, ("within", "enough")),
        (0.23, 0, ("not yet", "enough as soon as no device that is under way fails")),
        (0.23, 1_200, ("not yet", "1\u202f200 more healthy")),
        (0.23, None, ("not yet", "no number of healthy devices is enough")),
    ],
)
def test_a_bound_never_says_enough_where_it_is_not(upper: float, more: int | None, told: tuple[str, str]) -> None:
    found = rollout._bound({"n": 10, "upper": upper, "limit": 0.03, "more": more})
    assert found is not None
    assert (found["word"], found["needs"]) == told


@pytest.mark.parametrize("rest", ["waiting", "not updated"])
def test_nobody_waits_where_a_rollout_is_over(rest: str) -> None:
    counts = {"opened": 10, "target": 10, "confirmed": 7, "failures": 1, "in_flight": 0, "unreached": 0}
    found = rollout._stage(counts | {"index": 0, "phase": "passed"}, 1, rest)
    assert [(part.name, part.count) for part in found["parts"]] == [("healthy", 7), ("failed", 1), (rest, 2)]
    assert f"2 {rest}" in found["bar"]


def test_a_stage_that_passed_is_told_as_the_stage_before() -> None:
    item = {"at": 1.0, "phase": "running", "stage": 1, "code": "passed", "text": "so", "actor": "orchestrator"}
    assert rollout._event(item)["what"] == "stage 1 passed"
    assert rollout._event(item | {"phase": "done"})["what"] == "done"
    assert rollout._event(item | {"code": "operator_pause", "actor": "ann"})["who"] == "ann"


ARTIFACT_LINE: dict[str, Any] = {
    "sha256": "A" * 43,
    "name": "radio",
    "version": "2.0",
    "rel": 2,
    "hardware": ["m1"],
    "component": "firmware",
    "size_bytes": 3 << 20,
    "uri": "file:///images/radio.bin",
    "format": "esp32",
    "recognised": "esp32",
    "warnings": [],
    "signature": "esp-rsa",
    "sec": 0,
    "min_from": 0,
    "leaves": [],
}


def test_an_artifact_tells_what_was_recognised_and_what_it_is_part_of() -> None:
    releases = [{"name": "radio-2", "artifacts": ["A" * 43]}, {"name": "radio-2b", "artifacts": ["A" * 43, "B" * 43]}]
    plans = [("radio-2", "spring", "running"), ("other", "autumn", "done")]
    found = artifacts.page([ARTIFACT_LINE], releases, plans)
    [shown] = found["artifacts"]
    assert (shown["size"], shown["releases"], shown["doubts"]) == ("3.0\u202fMiB", ["radio-2", "radio-2b"], [])
    assert (shown["is"], shown["known"], shown["content"]) == ("esp32", True, "esp32")
    assert found["releases"][0]["rollouts"] == [{"name": "spring", "phase": "running"}]
    assert found["releases"][1]["made_of"] == ["radio", "B" * 12]


def test_what_nobody_vouches_for_is_warned_of() -> None:
    raw = ARTIFACT_LINE | {"format": "raw", "signature": "", "min_from": 5, "leaves": [9], "sec": 2}
    [shown] = artifacts.page([raw], [], [])["artifacts"]
    assert len(shown["doubts"]) == 2
    limits = ["from release counter 5 on", "may take the place of the newer 9", "security epoch 2"]
    assert shown["limits"] == limits
    assert [artifacts.size(count) for count in (12, 2048, 5 << 30)] == [
        "12\u202fB",
        "2.0\u202fKiB",
        "5.0\u202fGiB",
    ]


@pytest.mark.parametrize(
    ("declared", "recognised", "shown"),
    [
        ("raw", "esp32", ("esp32", True, "esp32")),
        ("raw", "raw", ("raw", False, "no format that is known")),
        ("vendor-7", "raw", ("vendor-7", False, "no format that is known; its statement declares vendor-7")),
        (
            "swu",
            "",
            ("swu", False, "imported before it was kept; import it again; its statement declares swu"),
        ),
    ],
)
def test_what_an_artifact_is_said_to_be_is_told_from_what_it_is(
    declared: str, recognised: str, shown: tuple[str, bool, str]
) -> None:
    line = ARTIFACT_LINE | {"format": declared, "recognised": recognised}
    [found] = artifacts.page([line], [], [])["artifacts"]
    assert (found["is"], found["known"], found["content"]) == shown


@pytest.mark.parametrize(
    ("left_s", "tone", "word"),
    [
        (None, "good", "has no end"),
        (-1, "bad", "expired"),
        (3 * 86_400, "bad", "3 d left"),
        (20 * 86_400, "warn", "20 d left"),
        (400 * 86_400, "good", "400 d left"),
    ],
)
def test_what_ends_soon_is_told_louder(left_s: int | None, tone: str, word: str) -> None:
    found = keys._standing(None if left_s is None else 1e9 + left_s, 1e9)
    assert (found["tone"], found["word"]) == (tone, word)


def test_a_source_that_cannot_be_asked_is_not_good() -> None:
    found = keys._certificate({"name": "certificate x", "error": "no such file"}, 0.0)
    assert (found["tone"], found["text"]) == ("warn", "no such file")


def test_tokens_stand_by_what_they_open() -> None:
    now = 1e9
    made = [
        Token("a", "ann", "", now - 9, now + 90 * 86_400),
        Token("b", "ann", "", now - 8, now + 3 * 86_400),
        Token("c", "ann", "", now - 7, now - 1),
        Token("d", "ann", "", now - 6, now + 90 * 86_400, revoked_at=now),
        Token("e", "ben", "", now - 6, now + 90 * 86_400),
    ]
    [shown] = accounts.page([Operator("ann", "ann.b", (Role.VIEWER,), now)], made, now)["accounts"]
    assert [(token["id"], token["word"]) for token in shown["tokens"]] == [
        ("d", "revoked"),
        ("c", "ended"),
        ("b", "ends soon"),
        ("a", "good"),
    ]
    assert shown["live"] == 2


@pytest.mark.parametrize(
    ("state", "tone"),
    [
        (None, "quiet"),
        ("confirmed", "good"),
        ("failed", "bad"),
        ("lost", "bad"),
        ("refused", "warn"),
        ("recalling", "warn"),
        ("downloaded", "busy"),
    ],
)
def test_the_state_of_an_update_has_its_colour(state: str | None, tone: str) -> None:
    assert device.tone(state) == tone


def test_versions_over_time_are_told_apart_as_far_as_colours_go() -> None:
    def day(at: int, *counts: int) -> dict[str, Any]:
        lines = [{"version": f"{place}.0", "rel": place, "devices": count} for place, count in enumerate(counts)]
        return {"at": at * 86_400.0, "versions": lines}

    assert fleet._history([day(1, 5)]) is None
    found = fleet._history([day(1, 9, 8, 7, 6, 5, 4, 3, 2), day(2, 0, 0, 0, 0, 0, 0, 0, 44)])
    assert found is not None
    assert (found["since"], found["until"]) == ("1970-01-02", "1970-01-03")
    assert "at last 7.0 44" in found["chart"]
    names = [part.name for part in found["parts"]]
    assert names == ["4.0", "3.0", "2.0", "1.0", "0.0", "7.0"]
    assert str(found["chart"]).count("<rect") == 14
