"""On which keyset the daemon stands: it goes on from the one before, whatever document it is given.

Rules:
- The first start believes the document of public keys and remembers it; from then on only a keyset that was taken
  leads further. A document that is ahead was submitted by nobody, so that no device holds it.
- A person may say that devices hold the document all the same: they were provisioned anew.
- What is believed for either reason stands in the audit log, with the keys.
"""

from __future__ import annotations

import hashlib
import json

from orchestrator.core.model import DAEMON
from orchestrator.errors import ConfigError
from orchestrator.ports import Tx
from orchestrator.ports.keysets import Footing
from orchestrator.verifier import Keyset


def footing_of(keyset: Keyset) -> Footing:
    """Return a keyset as it is remembered; in which form and order it was written makes no difference."""
    keys = [
        [key.kid, key.typ, key.x.hex(), key.y.hex(), key.nbf, key.exp, key.who, list(key.hw)]
        for _, key in sorted(keyset.keys.items())
    ]
    said = [keyset.iss, keyset.ep, keyset.need_root, keyset.need_cosign, keys]
    return Footing(keyset.ep, hashlib.sha256(json.dumps(said).encode()).hexdigest())


def check_footing(keyset: Keyset, last: Footing | None, accepted: int | None = None) -> None:
    """Refuse to stand on another keyset than at the last time.

    Args:
        keyset: to which the document and the keysets that were taken lead.
        last: on which the daemon stood, None before its first start.
        accepted: number of a keyset that devices hold, as a person says.

    Raises:
        ConfigError: it is another one; with the way back.
    """
    if accepted is not None and accepted != keyset.ep:
        text = f"--accept-keyset {accepted}: the document of trust.public_keys_file leads to keyset {keyset.ep}"
        raise ConfigError([text])
    if last is None or accepted is not None or footing_of(keyset) == last:
        return
    raise ConfigError([f"trust.public_keys_file: {_why(keyset.ep, last.epoch)}. {_AS_WELL.format(keyset.ep)}"])


def remember(tx: Tx, keyset: Keyset, now: float) -> None:
    """Store on which keyset the daemon stands, if that is news."""
    last, footing = tx.footing(), footing_of(keyset)
    if footing == last:
        return
    tx.stand_on(footing, now)
    why = "none was known before" if last is None else f"a person says that devices hold it; it was {last.epoch} before"
    keys = {kid: key.typ for kid, key in sorted(keyset.keys.items())}
    tx.audit(DAEMON, "keyset.trusted", f"keyset {keyset.ep}", {"sha256": footing.digest, "keys": keys, "why": why}, now)


_AS_WELL = "If all devices were provisioned anew with it, start once with `ota serve --accept-keyset {}`"


def _why(found: int, last: int) -> str:
    back = f"the document of keyset {last} (`ota keys` keeps it as device-keys-{last}.json) there"
    if found > last:
        lines = " and ".join(f"keyset-{number}.jws" for number in dict.fromkeys((last + 1, found)))
        return (
            f"it holds keyset {found}, and keyset {last} is the last that devices were given. "
            f"Put {back}, start, and hand {lines} to `ota keys submit`, one after the other"
        )
    if found < last:
        return f"it leads to keyset {found}, and devices were given keyset {last}. Put {back}"
    return f"it holds another keyset {found} than the one that devices were given. Put that document back there"
