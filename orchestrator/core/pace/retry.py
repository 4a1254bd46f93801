"""What follows a failed attempt: another one later, or none.

Rules:
- The code of a failure decides its class, and the class decides; the table of codes is data, and complete.
- What cannot end differently is not tried again: the device is not to blame, and not left out of other rollouts.
- What looks like an attack, or like a device with other keys than ours, is tried least; then people look.
- A code that nobody knows is the device's own: it is tried again only where the plan says so.
- The wait grows to a cap and is spread downwards, by a keyed hash: the cap holds, and no crowd comes back as one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.pace import ramp
from orchestrator.core.reason import Reason


class FailureClass(StrEnum):
    """What a failure code says about another attempt."""

    TRANSIENT = "transient"
    UNEXPLAINED = "unexplained"
    SUSPICIOUS = "suspicious"
    PERMANENT = "permanent"


C = FailureClass

_MEMBERS: Mapping[FailureClass, str] = {
    C.TRANSIENT: (
        # the link, the server, the storage and the power of the device
        "link_lost stalled deadline_passed download_timeout artifact_missing download_refused bad_range object_changed "
        "encoded power_lost reboot low_battery not_charging busy storage_busy "
        "no_space link_unsuitable just_booted "
        # overtaken by time or by other messages; a trigger made anew is good
        "expired stale_seq below_floor beat_expired superseded "
        # a rotation of keys that is under way
        "wrong_epoch new_keys key_not_yet key_expired keyset_expired wrong_version warrant_expired"
    ),
    C.UNEXPLAINED: "self_test_crash wrong_release flash_mismatch",
    C.SUSPICIOUS: (
        "bad_bundle too_long not_a_token bad_base64 bad_header wrong_type unknown_key wrong_role bad_signature high_s "
        "bad_json duplicate_name bad_number too_deep missing_field bad_field wrong_issuer not_addressed seq_jump "
        "statement_missing statement_hash statement_field bad_keys not_detached too_many_lines signed_twice "
        "too_few_signers key_scope key_field need_unmet warrant_missing warrant_field "
        "size_mismatch too_much_data hash_mismatch"
    ),
    C.PERMANENT: (
        "wrong_hardware from_too_low security_epoch downgrade other_image downgrade_not_allowed requirement_unmet "
        "statement_expired unknown_component unsupported_act unknown_critical too_large "
        # it runs the release, and the plan's measure calls it sick
        "unhealthy metric_missing "
        # how the device was provisioned does not change by itself
        "cosign_required root_required url_malformed url_scheme url_userinfo url_ip_literal url_origin "
        "too_many_redirects no_url "
        # a document of endpoints that is wrong for every device
        "malformed oversize foreign_deployment bad_address no_address"
    ),
}

CODES: Mapping[str, FailureClass] = {code: kind for kind, codes in _MEMBERS.items() for code in codes.split()}
"""Class of each failure code that is known."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How one class of failures is tried again.

    Attributes:
        attempts: largest number of attempts, the first included.
        base_s: wait after the first attempt.
        factor: what each further attempt multiplies the wait by, at least 1.
        cap_s: longest wait, at least `base_s`.
        jitter: part of the wait, from 0 to 1, that the spread may take off.
    """

    attempts: int
    base_s: float
    factor: float = 2.0
    cap_s: float = 86_400.0
    jitter: float = 0.5


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failures are tried again, by class; permanent ones never are.

    Attributes:
        transient: the link, the power, or a message that came too late.
        unexplained: a crash, or a code that nobody knows.
        suspicious: a refusal by the verifier, or bytes that are not those of the trigger.
        quarantine_after: rollouts in a row whose final failure puts a device into quarantine; 0 for never.
    """

    transient: Retry = Retry(attempts=5, base_s=300.0)
    unexplained: Retry = Retry(attempts=1, base_s=3_600.0)
    suspicious: Retry = Retry(attempts=1, base_s=3_600.0)
    quarantine_after: int = 3


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt follows.

    Attributes:
        at: not before.
    """

    at: float


@dataclass(frozen=True, slots=True)
class Never:
    """No other attempt follows by itself; the device stays available for other releases.

    Attributes:
        reason: why.
    """

    reason: Reason


def class_of(code: str) -> FailureClass:
    """Return the class of a failure code; one that is not known, and none at all, is unexplained."""
    return CODES.get(code, C.UNEXPLAINED)


def next_attempt(policy: RetryPolicy, code: str, attempt: int, device_id: str, key: bytes, now: float) -> Again | Never:
    """Return what follows an attempt that failed.

    Args:
        policy: how failures are tried again.
        code: reason code of the failure.
        attempt: number of the attempt that failed, from 1.
        device_id: the device.
        key: secret of the rollout, which spreads the devices.
        now: when it failed.
    """
    kind = class_of(code)
    if kind is C.PERMANENT:
        return Never(Reason("permanent", f"{code} cannot end differently however often it is tried"))
    retry = {C.TRANSIENT: policy.transient, C.UNEXPLAINED: policy.unexplained, C.SUSPICIOUS: policy.suspicious}[kind]
    if attempt >= retry.attempts:
        times = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        return Never(Reason("exhausted", f"failed {times}, the last with {code or 'no reason given'} ({kind})"))
    taken_off = retry.jitter * ramp.share(key, device_id, attempt)
    return Again(now + wait_s(retry, attempt) * (1.0 - taken_off))


def wait_s(retry: Retry, attempt: int) -> float:
    """Return the wait after an attempt, before the spread takes anything off."""
    growth = (attempt - 1) * math.log(retry.factor)
    if growth >= math.log(retry.cap_s / retry.base_s):
        return retry.cap_s
    return min(retry.base_s * math.exp(growth), retry.cap_s)
