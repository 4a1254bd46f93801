"""What devices log in with, as `ota device add` wrote it: one JSON object per line.

Rules:
- Every faulty line is named, all at once, and no secret stands in a message.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from orchestrator.errors import ConfigError
from orchestrator.wire.topics import is_identifier


class Credential(msgspec.Struct, frozen=True):
    """One device's identity and secrets.

    Attributes:
        device: device identifier; also its MQTT username and client identifier.
        model: hardware model, or None where the behaviour decides.
        mqtt_password: password at the broker, or None.
        token: bearer token at the HTTP side, or None.
    """

    device: str
    model: str | None = None
    mqtt_password: str | None = None
    token: str | None = None


_DECODER = msgspec.json.Decoder(Credential)


def load(path: Path) -> list[Credential]:
    """Read a credentials file.

    Raises:
        ConfigError: listing every line that is refused.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); make it with `ota device add`"]) from None
    faults: list[str] = []
    found: dict[str, Credential] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            credential = _decode(line)
        except ValueError as error:
            faults.append(f"{path}:{number}: {error}")
            continue
        if credential.device in found:
            faults.append(f"{path}:{number}: device {credential.device} is there twice")
        found[credential.device] = credential
    if not found and not faults:
        faults.append(f"{path}: no device in it; add some with `ota device add`")
    if faults:
        raise ConfigError(faults)
    return list(found.values())


def _decode(line: bytes) -> Credential:
    credential = _DECODER.decode(line)
    for word in (credential.device, credential.model):
        if word is not None and not is_identifier(word):
            raise ValueError("device and model must be identifiers ([a-z0-9][a-z0-9._-]*)")
    return credential
