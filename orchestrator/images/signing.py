"""Signatures that devices check by themselves, made: ESP8266, Pico, and Arduino on the ESP32.

Rules:
- Only an image of that format without a fault and without a signature is signed: what a device would refuse, or take
  and not start from, gets no signature.
- A compressed image is signed as it is: compress first, then sign. The other order is a fault of what comes out.
- The statement is made over what comes out, signature included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from orchestrator.errors import RequestError
from orchestrator.images import arduino_trailer, padded_trailer
from orchestrator.images.findings import (
    ESP32,
    ESP32_ARDUINO,
    ESP8266,
    ESP8266_LEGACY,
    MCUBOOT,
    PICO,
    RAUCB,
    SWU,
    Findings,
)
from orchestrator.images.fit import as_declared
from orchestrator.images.image_keys import ImagePrivateKey
from orchestrator.images.reader import Reader
from orchestrator.images.recognition import inspect

SIGNABLE: Final = (ESP8266, ESP8266_LEGACY, ESP32_ARDUINO, PICO)
_DEFAULT_HASH: Final = "sha256"
_OTHER_TOOLS: Final = {
    ESP32: "espsecure sign-data, or --format esp32-arduino",
    MCUBOOT: "imgtool sign",
    SWU: "the build system of the archive",
    RAUCB: "rauc bundle",
}


def trailer_for(path: Path, word: str, key: ImagePrivateKey, *, algorithm: str = _DEFAULT_HASH) -> bytes:
    """Return what to write behind an image so that devices of this kind take it.

    Args:
        path: the image, unsigned, as the build or gzip made it.
        word: one of `SIGNABLE`.
        key: of the owner of the devices.
        algorithm: hash that the sketch names; other than SHA-256 only for Arduino on the ESP32.

    Raises:
        RequestError: `not_signable`, `wrong_key`, `wrong_hash`, `already_signed`, or `bad_image`: it is no image of
            this format, or has a fault.
        OSError: it cannot be read.
    """
    if word not in SIGNABLE:
        tool = _OTHER_TOOLS.get(word, f"--format with one of {', '.join(SIGNABLE)}")
        raise RequestError(f"images of the format {word} are not signed here; use {tool}", code="not_signable")
    if algorithm not in padded_trailer.HASHES or (word != ESP32_ARDUINO and algorithm != _DEFAULT_HASH):
        raise RequestError(f"devices of the format {word} know no {algorithm}; use sha256", code="wrong_hash")
    if word != ESP32_ARDUINO and not isinstance(key, RSAPrivateKey):
        text = f"devices of the format {word} check RSA signatures only; name an RSA key"
        raise RequestError(text, code="wrong_key")
    _check(inspect(path), word)
    with path.open("rb") as file:
        reader = Reader(file)
        digest = reader.digest(reader.size_bytes, algorithm)
    if isinstance(key, RSAPrivateKey) and word != ESP32_ARDUINO:
        return arduino_trailer.trailer_of(digest, key, legacy=word == ESP8266_LEGACY)
    return padded_trailer.trailer_of(digest, key, algorithm)


def _check(findings: Findings, word: str) -> None:
    """Refuse to sign what no device should get."""
    faults = [*findings.faults, *as_declared(findings, word)]
    if faults:
        text = f"it is no {word} image that devices should get: {' / '.join(map(str, faults))}"
        raise RequestError(text, code="bad_image")
    signed = dict(findings.facts).get("signature", "none")
    if signed != "none":
        text = f"it is signed already ({signed}); sign the file as the build made it"
        raise RequestError(text, code="already_signed")
