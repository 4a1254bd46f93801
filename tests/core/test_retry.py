"""Retries: every code has its class, the waits keep their bounds, and the attempts end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.pace import retry
from orchestrator.core.pace.retry import (
    CODES,
    Again,
    FailureClass,
    Never,
    Retry,
    RetryPolicy,
    class_of,
    next_attempt,
    wait_s,
)
from orchestrator.verifier.download import DOWNLOAD_REASONS
from orchestrator.verifier.reasons import REASONS

NOW = 1_800_000_000.0
ROOT = Path(__file__).parents[2]
POLICY = RetryPolicy()


def after(code: str, attempt: int = 1, policy: RetryPolicy = POLICY) -> Again | Never:
    return next_attempt(policy, code, attempt, "d1", b"secret", NOW)


def test_every_code_of_the_verifier_has_a_class() -> None:
    assert set(REASONS) - set(CODES) == set()
    assert set(DOWNLOAD_REASONS) - set(CODES) == set()


def test_every_reason_code_of_the_protocol_has_a_class() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    tables = [
        page[page.index("### 7.4 Reason codes") : page.index("## 8. Reports")],
        page[page.index("| `too_many_redirects` |") : page.index("## 10. Worked example")],
    ]
    named = {code for table in tables for code in re.findall(r"^\| `([a-z0-9_]+)` \|", table, re.MULTILINE)}
    assert len(named) > 60 and named - set(CODES) == set()


@pytest.mark.parametrize(
    ("place", "pattern"),
    [
        ("core/update.py", r'code="([a-z_]+)"'),
        ("engine/reports/recording.py", r'^[A-Z_]+ = "([a-z_]+)"'),
        ("sim/device.py", r'(?:_fail|_again|_go_down|_give_up)\(turn, (?:code=)?"([a-z_]+)"'),
        ("sim/download.py", r'DownloadError\("([a-z_]+)"'),
    ],
)
def test_every_code_of_a_report_that_we_make_ourselves_has_a_class(place: str, pattern: str) -> None:
    text = (ROOT / "orchestrator" / place).read_text(encoding="utf-8")
    named = set(re.findall(pattern, text, re.MULTILINE))
    assert named and named - set(CODES) == set()


def test_a_code_stands_in_one_class_only() -> None:
    listed = [code for codes in retry._MEMBERS.values() for code in codes.split()]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("link_lost", "transient"),
        ("storage_busy", "transient"),
        ("low_battery", "transient"),
        ("wrong_hardware", "permanent"),
        ("too_large", "permanent"),
        ("bad_signature", "suspicious"),
        ("hash_mismatch", "suspicious"),
        ("self_test_crash", "unexplained"),
        ("a_code_of_their_own", "unexplained"),
        ("", "unexplained"),
    ],
)
def test_what_a_code_means(code: str, kind: str) -> None:
    assert class_of(code) == kind


def test_a_permanent_failure_is_never_tried_again_and_nobody_is_left_out_for_it() -> None:
    found = after("wrong_hardware")
    assert isinstance(found, Never)
    assert found.reason.text == "wrong_hardware cannot end differently however often it is tried"


def test_attempts_end_and_say_the_class_and_the_last_code() -> None:
    assert isinstance(after("link_lost", 4), Again)
    found = after("link_lost", 5)
    assert isinstance(found, Never)
    assert found.reason.text == "failed 5 attempts, the last with link_lost (transient)"
    once = after("bad_signature", 1)
    assert isinstance(once, Never)
    assert once.reason.text == "failed 1 attempt, the last with bad_signature (suspicious)"
    silent = after("", 1)
    assert isinstance(silent, Never)
    assert silent.reason.text == "failed 1 attempt, the last with no reason given (unexplained)"


def test_waits_double_up_to_their_cap() -> None:
    patient = Retry(100, 300.0, 2.0, 3000.0)
    assert [round(wait_s(patient, attempt), 6) for attempt in (1, 2, 3, 4, 5, 6, 9999)] == [
        300.0,
        600.0,
        1200.0,
        2400.0,
        3000.0,
        3000.0,
        3000.0,
    ]
    assert wait_s(Retry(9, 300.0, 1.0), 7) == 300.0
    assert wait_s(Retry(9, 300.0, 3.0, 300.0), 1) == 300.0


retries = st.builds(
    lambda attempts, base, factor, above, jitter: Retry(attempts, base, factor, base + above, jitter),
    st.integers(1, 9999),
    st.floats(0.001, 10**6),
    st.floats(1, 1000),
    st.floats(0, 10**7),
    st.floats(0, 1),
)
policies = st.builds(RetryPolicy, retries, retries, retries)


@given(policies, st.sampled_from(sorted(CODES)) | st.just("theirs"), st.integers(1, 9999), st.text(max_size=8))
def test_a_wait_keeps_its_bounds_and_attempts_end(policy: RetryPolicy, code: str, attempt: int, device: str) -> None:
    found = next_attempt(policy, code, attempt, device, b"k", NOW)
    assert found == next_attempt(policy, code, attempt, device, b"k", NOW)
    kind = class_of(code)
    if kind is FailureClass.PERMANENT:
        assert isinstance(found, Never)
        return
    used: Retry = getattr(policy, kind.value)
    if isinstance(found, Again):
        assert attempt < used.attempts
        wait = wait_s(used, attempt)
        assert used.base_s * (1 - 1e-9) <= wait <= used.cap_s
        assert wait * (1 - used.jitter) - 1e-3 <= found.at - NOW <= wait + 1e-3
    else:
        assert attempt >= used.attempts


@given(retries, st.integers(1, 200))
def test_a_wait_never_shrinks(used: Retry, attempt: int) -> None:
    assert wait_s(used, attempt) <= wait_s(used, attempt + 1) * (1 + 1e-9)


def test_a_crowd_that_failed_together_does_not_come_back_together() -> None:
    policy = RetryPolicy(transient=Retry(5, 600.0, jitter=0.5))
    found = [next_attempt(policy, "link_lost", 1, f"d{number}", b"k", NOW) for number in range(1000)]
    times = sorted(item.at - NOW for item in found if isinstance(item, Again))
    assert len(times) == 1000 and times[0] >= 300 and times[-1] <= 600
    assert max(sum(1 for at in times if begin <= at < begin + 30) for begin in range(300, 600, 30)) < 150
