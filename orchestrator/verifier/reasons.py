"""Why something is refused: the stable codes of `otad/1`.

Rules:
- A code never changes its meaning and is never used again; new ones are added at the end.
- Whatever is not allowed is refused with one of these codes; no other exception leaves the verifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A code never changes its meaning and is never used again: agents send it in reports, people look it up.
REASONS: Mapping[str, str] = {
    "bad_bundle": "The message is not one recall, or one trigger and one statement, each on its own line.",
    "too_long": "A token is longer than 2,048 bytes, or its payload than 1,200; of a keyset, 6,144 and 4,096.",
    "not_a_token": "A line is not three parts with a dot between.",
    "bad_base64": "A part is not canonical base64url without padding.",
    "bad_header": "The header is not, byte for byte, of the one form that this format allows.",
    "wrong_type": "The token is of another type than the one expected in its place.",
    "unknown_key": "The header names a key that this device does not hold.",
    "wrong_role": "The key may not sign tokens of this type.",
    "bad_signature": "The signature does not hold over these bytes.",
    "high_s": "The signature is the twin with the high s, which no signer of this format makes.",
    "bad_json": "The payload is not one JSON object in strict UTF-8 without null and control characters.",
    "duplicate_name": "An object in the payload has the same name twice.",
    "bad_number": "A number is not an integer from 0 to 2^53-1.",
    "too_deep": "The payload nests deeper than four levels.",
    "missing_field": "A field that must be there is missing.",
    "bad_field": "A field has a type, form or range that is not allowed.",
    "unknown_critical": "A field must be understood, says the issuer, and this verifier does not know it.",
    "wrong_issuer": "The token was made for another deployment.",
    "wrong_epoch": "The token was made under another key epoch.",
    "not_addressed": "The audience names neither this device nor its model nor a group of it.",
    "unknown_component": "The device has no such component.",
    "unsupported_act": "The verifier does not know what the token asks for.",
    "stale_seq": "The sequence number was passed already: a replay, or a message that was overtaken.",
    "seq_jump": "The sequence number is more than 2^40 ahead.",
    "expired": "The trigger or recall has expired.",
    "wrong_hardware": "The artifact is not for this hardware model.",
    "from_too_low": "The running release is older than the oldest that may jump to this one.",
    "security_epoch": "The security epoch is lower than the one that the device has reached.",
    "downgrade": "The release is older than the running one.",
    "other_image": "The release has the number of the running one, but another image.",
    "statement_missing": "There is no artifact statement behind the trigger.",
    "statement_hash": "The statement is not the one that the trigger names.",
    "statement_field": "Trigger and statement do not say the same about the artifact.",
    "statement_expired": "The artifact statement has expired.",
    "downgrade_not_allowed": "A rollback is asked for that the artifact statement does not allow.",
    "requirement_unmet": "Another component is older than the statement requires.",
    "cosign_required": "An emergency needs cosignatures, and no cosigners are provisioned.",
    "url_malformed": "A URL is not printable ASCII of the form scheme://host[:port]/path without a fragment.",
    "url_scheme": "A URL is neither https nor, where allowed, plain http to loopback.",
    "url_userinfo": "A URL carries a user name or password.",
    "url_ip_literal": "A URL names its host by an address instead of a name.",
    "url_origin": "A URL leads to an origin that this device may not fetch from.",
    "bad_keys": "The document of public keys is too long, names a key twice, or holds a point off the curve.",
    "not_detached": "A further line of a token with several signatures carries a payload of its own.",
    "too_many_lines": "A token with several signatures has more than eight lines.",
    "signed_twice": "One key signed two lines of a token; a key counts once, whatever it is called.",
    "too_few_signers": "Fewer keys, or for a warrant fewer persons, signed than must.",
    "key_not_yet": "The key is not to be used yet.",
    "key_expired": "The key is no longer to be used.",
    "key_scope": "The artifact key may not sign for all of the hardware models of the statement.",
    "key_field": "A key has a field that its type does not have, lacks one of its own, or ends before it begins.",
    "need_unmet": "The keyset holds fewer root keys or cosigners than must sign.",
    "root_required": "A keyset needs root signatures, and no root keys are provisioned.",
    "wrong_version": "The keyset is not the one that follows the keyset held.",
    "keyset_expired": "The keyset has expired.",
    "beat_expired": "The beat has expired.",
    "below_floor": "The sequence number is below the lowest that is still good.",
    "warrant_missing": "There is no warrant behind an emergency.",
    "warrant_field": "The warrant is not for this rollout, this statement or this device.",
    "warrant_expired": "The warrant has expired.",
}


class Refused(Exception):  # noqa: N818 - a verdict, not a fault
    """Something is not believed. Report only a refusal that has `claims`: anybody could have caused the others."""

    def __init__(self, code: str, detail: object) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code  # one of REASONS
        self.detail = str(detail)  # for a person, never judged
        self.claims: Mapping[str, Any] = {}  # of a trigger or recall that is authentic and meant for this device


def require(code: str, holds: object, detail: object) -> None:
    """Raise `Refused` with `code` unless it `holds`."""
    if not holds:
        raise Refused(code, detail)
