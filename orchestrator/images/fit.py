"""Whether an image fits what it shall run on.

Rules:
- At most 90 % of the smallest slot may be filled: images grow, and one that does not fit any more cannot be mended over
  the air. The size is that of the file, signatures included.
- A counter that a device burns into fuses never goes back, so an image with a lower one never starts there.
- What an image does not say is not judged.
"""

from __future__ import annotations

from orchestrator.images.findings import ESP8266, ESP8266_LEGACY, FORMATS, RAW, Fault, Findings

_MOST_PERCENT = 90


def against(
    findings: Findings, *, slot_bytes: int | None = None, chip: str = "", secure_version: int | None = None
) -> tuple[Fault, ...]:
    """Return what speaks against running this on a target.

    Args:
        findings: of the image.
        slot_bytes: size of the smallest slot; None where it is not known.
        chip: of the target, such as `esp32s3`; "" where it is not known.
        secure_version: the highest that a target confirmed; None where it is not known.
    """
    faults: list[Fault] = []
    if chip and findings.chip and findings.chip != chip:
        text = f"it is for {findings.chip}, the target is {chip}"
        faults.append(Fault("wrong_chip", text, f"sign the build for {chip}"))
    if slot_bytes is not None and findings.size_bytes * 100 > slot_bytes * _MOST_PERCENT:
        text = f"it has {findings.size_bytes} bytes, more than {_MOST_PERCENT} % of a slot of {slot_bytes}"
        faults.append(Fault("over_slot", text, "make it smaller, or the slots larger"))
    image = findings.security_version
    if secure_version is not None and image is not None and image < secure_version:
        text = f"its secure version is {image}, targets have {secure_version} and never go back"
        faults.append(Fault("secure_version", text, f"build it with at least {secure_version}"))
    return tuple(faults)


def as_declared(findings: Findings, word: str) -> tuple[Fault, ...]:
    """Return what speaks against the format that a statement declares.

    Args:
        findings: of the image.
        word: `fmt` of the statement; `raw`, and words that we do not know, declare nothing.

    A word and its variant are the same here: whether `esp8266` is `esp8266-legacy` shows only with the key.
    """
    if word not in FORMATS or _family(word) == _family(findings.format):
        return ()
    found = "nothing that is known" if findings.format == RAW else findings.format
    text = f"the statement says that it is {word}, its bytes are {found}"
    return (Fault("wrong_format", text, f"sign the right file, or this one with another --format than {word}"),)


def as_signed(findings: Findings) -> tuple[Fault, ...]:
    """Return what speaks against an image that was held against the public key of its devices."""
    if findings.verified or any(fault.code == "signature" for fault in findings.faults):
        return ()
    text = "it has no signature that this key can be held against"
    if findings.signature:
        text = f"its signature ({findings.signature}) is not one of this key, or cannot be checked here"
    return (Fault("unverified", text, "sign it with the key of the devices, or check it with the tool that signed it"),)


def signature_of(findings: Findings, declared: str) -> str:
    """Return the signature that devices check by themselves, one of `SIGNATURES`; "" for none that is whole.

    Args:
        findings: of the image.
        declared: format that its statement names; without the key, it alone tells `esp8266-legacy` from `esp8266`.
    """
    if findings.faults or as_declared(findings, declared):
        return ""
    legacy = findings.signature == ESP8266 and declared == ESP8266_LEGACY
    return ESP8266_LEGACY if legacy else findings.signature


def _family(word: str) -> str:
    return word.split("-", maxsplit=1)[0]
