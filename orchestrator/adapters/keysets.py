"""Keysets on their way: the next one proposed, signed line by line, and judged as devices would.

Rules:
- What makes a keyset weaker is refused unless it is allowed by name: fewer signers, a role without a key.
- Root keys may lie on machines that never meet: each adds its line to a file that goes from one to the next.
- The verifier of the devices has the last word; nothing is handed out that it would not take.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.adapters.keys import document_of, entry_of, role_of, write_file
from orchestrator.core.trigger import keyset_claims
from orchestrator.errors import NotFoundError, RequestError, TrustError
from orchestrator.ports import Signer
from orchestrator.verifier import KEYS, Keyset, PublicKey, Refused, adopt, load_keyset
from orchestrator.wire.token import TokenType, assemble, assemble_further, bundle, further_input, signing_input

MAX_FILE_BYTES = 65_536
_HEADER = re.compile(rb'\{"alg":"ES256","kid":"([A-Za-z0-9_-]{1,64})","typ":"ota-keys\+jws"\}')
_NO_KEY_LEFT = {
    "artifact": "no key is left that signs artifacts: devices will take no release",
    "trigger": "no key is left that signs triggers: the fleet cannot be updated, nor can anything be recalled",
    "beat": "no key is left that signs beats: devices cannot tell silence from being cut off",
    "cosign": "no cosigner is left: no emergency can be authorised",
}


@dataclass(frozen=True, slots=True)
class Change:
    """How the next keyset differs from the one that devices hold.

    Attributes:
        add: keys that it has more.
        remove: identifiers of keys that it has no more.
        need_root: how many root keys must sign the keyset after it, None to leave it.
        need_cosign: how many persons must sign a warrant, None to leave it.
    """

    add: tuple[PublicKey, ...] = ()
    remove: tuple[str, ...] = ()
    need_root: int | None = None
    need_cosign: int | None = None


@dataclass(frozen=True, slots=True)
class Weakening:
    """One way in which a keyset is weaker than the one before.

    Attributes:
        code: name by which it is allowed: `fewer-roots`, `fewer-cosigners` or `lost-role`.
        text: what it means.
    """

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A keyset on its way: what it says, and the lines that were signed so far.

    Attributes:
        claims: the payload.
        keyset: what devices read from it.
        lines: the first with the payload, the others without.
    """

    claims: Mapping[str, object]
    keyset: Keyset
    lines: tuple[bytes, ...] = ()

    @property
    def signers(self) -> tuple[str, ...]:
        """Identifiers of the keys that the lines name."""
        return tuple(_kid(line) for line in self.lines)

    @property
    def content(self) -> bytes:
        """The file: the payload as text while nobody has signed, then the lines."""
        return bundle(self.lines) if self.lines else json.dumps(self.claims, indent=2).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What devices would say to a draft, and what it still needs.

    Attributes:
        refusal: the reason, "" if they take it.
        of_held: root keys of the keyset held that have signed.
        of_new: root keys of the draft that have signed.
        may_sign: root keys that have not.
        weaker: in which ways the draft is weaker.
    """

    refusal: str
    of_held: int
    of_new: int
    may_sign: tuple[str, ...]
    weaker: tuple[Weakening, ...]


def propose(held: Keyset, change: Change, now: float, allowed: Collection[str] = ()) -> Draft:
    """Return the keyset after `held`, unsigned.

    Args:
        held: what devices hold.
        change: how the next one differs.
        now: epoch seconds.
        allowed: codes of the ways in which it may be weaker.

    Raises:
        RequestError: a key is not there, or twice; devices would refuse it; or it is weaker and that is not allowed.
    """
    if not held.need_root:
        raise RequestError(
            f"the devices of {held.iss} were provisioned without root keys and take no keyset; provision them anew",
            code="no_roots",
        )
    keys = {kid: key for kid, key in held.keys.items() if kid not in change.remove}
    for kid in change.remove:
        if kid not in held.keys:
            raise RequestError(f"there is no key {kid}; `ota keys list` shows them", code="unknown_key")
    for key in change.add:
        if key.kid in held.keys:
            raise RequestError(f"key {key.kid} is one that devices hold or have held; make another", code="key_twice")
        keys[key.kid] = key
    draft = _draft(
        keyset_claims(
            deployment=held.iss,
            epoch=held.ep + 1,
            keys=[entry_of(key) for key in keys.values()],
            need_root=change.need_root or held.need_root,
            need_cosign=change.need_cosign or held.need_cosign,
            issued_at=now,
        )
    )
    refuse_weaker(held, draft.keyset, allowed)
    return draft


def keys_of(held: Keyset, role: str, who: str = "") -> list[PublicKey]:
    """Return the keys of a role (and a person) that devices hold now."""
    return [key for key in held.keys.values() if role_of(key.typ) == role and key.who == who]


def weakenings(held: Keyset, new: Keyset) -> tuple[Weakening, ...]:
    """Return in which ways `new` is weaker than `held`."""
    found = []
    if new.need_root < held.need_root:
        text = f"{new.need_root} instead of {held.need_root} root keys will be able to replace every key"
        found.append(Weakening("fewer-roots", text))
    if new.need_cosign < held.need_cosign:
        text = f"{new.need_cosign} instead of {held.need_cosign} persons will be able to authorise an emergency"
        found.append(Weakening("fewer-cosigners", text))
    lost = {key.typ for key in held.keys.values()} - {key.typ for key in new.keys.values()}
    found += [Weakening("lost-role", _NO_KEY_LEFT[role_of(typ)]) for typ in sorted(lost)]
    return tuple(found)


def refuse_weaker(held: Keyset, new: Keyset, allowed: Collection[str]) -> None:
    """Refuse a keyset that is weaker in a way that is not allowed.

    Raises:
        RequestError: with every such way, and how to allow it.
    """
    found = [f"{item.text} (--allow-{item.code})" for item in weakenings(held, new) if item.code not in allowed]
    if found:
        raise RequestError(f"this keyset is weaker: {'; '.join(found)}", code="weaker_keyset")


def refuse_stranger(held: Keyset, new: Keyset) -> None:
    """Refuse to sign what does not follow the keyset that devices hold.

    Raises:
        RequestError: it is of another deployment, or not the next one.
    """
    if new.iss != held.iss:
        raise RequestError(f"this keyset is for {new.iss}, the devices belong to {held.iss}", code="wrong_issuer")
    if new.ep != held.ep + 1:
        raise RequestError(f"keyset {new.ep} does not follow {held.ep}, which devices hold", code="wrong_version")


def read_draft(path: Path) -> Draft:
    """Read a keyset file: a payload that nobody has signed, or lines.

    Raises:
        NotFoundError: no such file.
        TrustError: it is no keyset.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES)
    except OSError as error:
        text = f"keyset {path}: {error.strerror}; `ota keys rotate`, `revoke` and `propose` write such a file"
        raise NotFoundError(text, code="no_keyset") from None
    try:
        return parse_draft(content)
    except (TrustError, RequestError) as error:
        raise TrustError(f"{path} is no keyset that can be signed or taken: {error.message}", code=error.code) from None


def parse_draft(content: bytes) -> Draft:
    """Read what a keyset file holds; signatures are not looked at.

    Raises:
        RequestError: devices would refuse what it says.
        TrustError: it has not the form.
    """
    if content.lstrip().startswith(b"{"):
        return _draft(_claims(content))
    lines = tuple(content.rstrip(b"\n").split(b"\n"))
    parts = lines[0].split(b".")
    if len(parts) != 3:
        raise TrustError("it is neither a payload nor lines of three parts", code="not_a_keyset")
    draft = replace(_draft(_claims(_decode(parts[1]))), lines=lines)
    if signing_input(TokenType.KEYS, draft.signers[0], draft.claims) != lines[0].rpartition(b".")[0]:
        raise TrustError("the payload is not written as it is signed", code="not_a_keyset")
    return draft


def add_line(draft: Draft, signer: Signer, held: Keyset) -> Draft:
    """Return the draft with one signature more.

    Raises:
        RequestError: the key is no root key of either keyset, or has signed already.
    """
    known = held.keys.get(signer.kid) or draft.keyset.keys.get(signer.kid)
    if known is None or known.typ != KEYS:
        raise RequestError(f"key {signer.kid} is no root key; use one of {', '.join(_roots(held))}", code="wrong_role")
    if signer.kid in draft.signers:
        raise RequestError(f"key {signer.kid} has signed this keyset already; another one must", code="signed_twice")
    if not draft.lines:
        signed = signing_input(TokenType.KEYS, signer.kid, draft.claims)
        return replace(draft, lines=(assemble(signed, signer.sign(signed)),))
    signed = further_input(TokenType.KEYS, signer.kid, draft.lines[0])
    return replace(draft, lines=(*draft.lines, assemble_further(signed, signer.sign(signed))))


def judge(draft: Draft, held: Keyset, now: float) -> Judgement:
    """Return what devices that hold `held` would say to a draft at `now` (epoch seconds)."""
    refusal = "nobody has signed it"
    if draft.lines:
        try:
            adopt(bundle(draft.lines), held, int(now))
            refusal = ""
        except Refused as refused:
            refusal = str(refused)
    signers, old, new = draft.signers, _roots(held), _roots(draft.keyset)
    may_sign = [kid for kid in dict.fromkeys((*old, *new)) if kid not in signers]
    weaker = weakenings(held, draft.keyset)
    return Judgement(refusal, len({*signers} & {*old}), len({*signers} & {*new}), tuple(may_sign), weaker)


def sign_all(draft: Draft, held: Keyset, signers: Iterable[Signer], now: float) -> Draft:
    """Return the draft signed by all, after checking that devices take it.

    Raises:
        RequestError: these are not enough, or a key may not sign.
        TrustError: devices would refuse it for another reason.
    """
    for signer in signers:
        draft = add_line(draft, signer, held)
    found = judge(draft, held, now)
    if found.of_held < held.need_root or found.of_new < draft.keyset.need_root:
        raise RequestError(
            f"too few root keys: {found.of_held} of {held.need_root} that devices hold and {found.of_new} of "
            f"{draft.keyset.need_root} of the new ones; add --root for {', '.join(found.may_sign) or 'another'}",
            code="too_few_signers",
        )
    if found.refusal:
        raise TrustError(f"devices would refuse this keyset: {found.refusal}", code="refused")
    return draft


def place_of(path: Path, epoch: int) -> Path:
    """Return where the lines of a keyset lie, beside the document at `path`."""
    return path.with_name(f"keyset-{epoch}.jws")


def store(draft: Draft, held: Keyset, path: Path) -> Path:
    """Write a keyset that devices take beside the document of those that they hold, and the new document in its place.

    Args:
        draft: signed.
        held: what devices hold.
        path: the document of it; it stays as `device-keys-<epoch>.json`.

    Returns:
        Where the lines are, `keyset-<epoch>.jws`.

    Raises:
        ConflictError: another keyset of that number lies there.
        ForbiddenError: a file cannot be written.
    """
    place = place_of(path, draft.keyset.ep)
    if not place.exists() or place.read_bytes() != draft.content:
        write_file(place, draft.content, 0o644, replace=False)
    write_file(path.with_name(f"{path.stem}-{held.ep}.json"), document_of(held), 0o644, replace=True)
    write_file(path, document_of(draft.keyset), 0o644, replace=True)
    return place


def _roots(keyset: Keyset) -> list[str]:
    return [key.kid for key in keyset.keys.values() if key.typ == KEYS]


def _draft(claims: Mapping[str, object]) -> Draft:
    document = json.dumps(claims).encode()
    try:
        keyset = load_keyset(document)
    except Refused as refusal:
        raise RequestError(f"devices would refuse this keyset: {refusal}", code=refusal.code) from None
    for name in ("need", "iat"):
        if name not in claims:
            raise RequestError(f"devices would refuse this keyset: it has no {name}", code="missing_field")
    return Draft(claims, keyset)


def _claims(payload: bytes) -> Mapping[str, object]:
    try:
        load_keyset(payload)  # strict, as JSON here is not: one name twice is refused
        claims: Mapping[str, object] = json.loads(payload)
    except Refused as refusal:
        raise TrustError(str(refusal), code=refusal.code) from None
    return claims


def _decode(part: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise TrustError("a part is not base64url", code="not_a_keyset") from None


def _kid(line: bytes) -> str:
    header = _HEADER.fullmatch(_decode(line.partition(b".")[0]))
    if header is None:
        raise TrustError("a line has no header of a keyset", code="not_a_keyset")
    return header[1].decode()
