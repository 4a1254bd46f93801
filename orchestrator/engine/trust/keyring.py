"""The keyring: which keys devices hold by now, and with which of ours we may sign.

Rules:
- It begins with the document that devices were provisioned with and follows the chain of keysets as a device does;
  what a device would not take, the daemon does not believe either.
- Keysets that were taken once are followed again at each start without the clock: that their root keys have expired
  since changes nothing. A new one is judged at the present time.
- Who signs asks each time: a key that was revoked or has expired signs nothing more, its successor goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.errors import TrustError, UnavailableError
from orchestrator.ports import Signer
from orchestrator.verifier import ARTIFACT, BEAT, COSIGN, KEYS, TRIGGER, Keyset, PublicKey, Refused, adopt

_ROLES = {KEYS: "root", ARTIFACT: "artifact", TRIGGER: "trigger", BEAT: "beat", COSIGN: "cosigner"}


@dataclass(frozen=True, slots=True)
class Standing:
    """With what to sign now.

    Attributes:
        epoch: key epoch to name in the token.
        signer: a key that devices of that epoch accept.
    """

    epoch: int
    signer: Signer


class Keyring:
    """What the daemon believes about keys.

    Args:
        provisioned: the keyset of the document that devices were given.
        stored: epoch and lines of keysets that were taken before, in any order; those up to the document are left out.
        signers: the private keys at hand; where several fit, the first signs.
        now: the clock.

    Raises:
        TrustError: a stored keyset is missing, or does not follow from the one before.
    """

    def __init__(
        self,
        provisioned: Keyset,
        stored: Iterable[tuple[int, bytes]],
        signers: Sequence[Signer],
        now: Callable[[], float],
    ) -> None:
        self._keyset = self._provisioned = provisioned
        self._signers = tuple(signers)
        self._now = now
        for epoch, lines in sorted(item for item in stored if item[0] > provisioned.ep):
            if epoch != self._keyset.ep + 1:
                raise TrustError(
                    f"keyset {self._keyset.ep + 1} is missing, {epoch} is stored, and devices take one by one; "
                    "submit the missing one, or name a newer document in trust.public_keys_file",
                    code="keyset_missing",
                )
            self._keyset = _follow(lines, self._keyset, None)

    @property
    def keyset(self) -> Keyset:
        """The keyset that devices hold once they have all that we publish."""
        return self._keyset

    @property
    def epoch(self) -> int:
        """Key epoch: the version of the keyset."""
        return self._keyset.ep

    def key(self, kid: str) -> PublicKey | None:
        """Return the key of that identifier, None if it is not or no more in the keyset."""
        return self._keyset.keys.get(kid)

    def judge(self, lines: bytes) -> Keyset:
        """Return the keyset that would take the place of the present one; believes nothing yet.

        Raises:
            TrustError: devices would not take it.
        """
        try:
            return _follow(lines, self._keyset, int(self._now()))
        except TrustError as error:
            if error.code != "wrong_version" or self._keyset is not self._provisioned:
                raise
            text = (
                f"{error.message}. Keyset {self.epoch} is that of trust.public_keys_file; if it is new, devices do not "
                "have it yet: name the document of the keyset before it there, start once with "
                f"`ota serve --accept-keyset {self.epoch - 1}`, and submit it then"
            )
            raise TrustError(text, code=error.code) from None

    def take(self, lines: bytes) -> Keyset:
        """Believe a new keyset that was judged. Store its lines first: devices will hold it from now on.

        Raises:
            TrustError: devices would not take it, whatever the time.
        """
        self._keyset = _follow(
            lines, self._keyset, None
        )  # it is stored: a root key that has ended since changes nothing
        return self._keyset

    def standing(self, typ: str) -> Standing:
        """Return with what to sign a token of a type now.

        Raises:
            UnavailableError: no key at hand is good for that; with the reason for each.
        """
        keyset = self._keyset
        for signer in self._signers:
            if not self._fault(signer.kid, keyset, typ):
                return Standing(keyset.ep, signer)
        raise UnavailableError(" ".join(self.faults(typ)), code="no_signer")

    def faults(self, typ: str, keyset: Keyset | None = None) -> list[str]:
        """Return what is wrong with each key at hand for a type of token, nothing if one is good.

        Args:
            typ: the type.
            keyset: the keyset that would have to allow it, None for the present one.
        """
        keyset, role = keyset or self._keyset, _ROLES.get(typ, typ)
        found = [self._fault(signer.kid, keyset, typ) for signer in self._signers]
        if "" in found:
            return []
        wanted = [key.kid for key in keyset.keys.values() if key.typ == typ]
        remedy = f"configure the private key of {' or '.join(wanted)}" if wanted else "`ota keys rotate` makes one"
        return [f"No {role} key at hand is good under keyset {keyset.ep}: {remedy}.", *found]

    def expiries(self) -> list[tuple[str, int]]:
        """Return name and end (epoch seconds) of every key that ends."""
        return [(_name(key), key.exp) for key in self._keyset.keys.values() if key.exp is not None]

    def _fault(self, kid: str, keyset: Keyset, typ: str) -> str:
        key, now = keyset.keys.get(kid), int(self._now())
        if key is None:
            return f"Key {kid} is not in it."
        if key.typ != typ:
            return f"Key {kid} is of another role: {_ROLES.get(key.typ, key.typ)}."
        if now < key.nbf:
            return f"Key {kid} signs from {key.nbf} on, and now it is {now}."
        if key.exp is not None and now >= key.exp:
            return f"Key {kid} has expired at {key.exp}, and now it is {now}."
        return ""


def _follow(lines: bytes, held: Keyset, now: int | None) -> Keyset:
    try:
        return adopt(lines, held, now)
    except Refused as refusal:
        raise TrustError(
            f"the keyset after {held.ep} is not one that devices take: {refusal}", code=refusal.code
        ) from None


def _name(key: PublicKey) -> str:
    return f"{_ROLES.get(key.typ, key.typ)} key {key.kid}{f' of {key.who}' if key.who else ''}"
