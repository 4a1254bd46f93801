"""Images for simulations: bytes that tell a simulated device how they will behave.

Rules:
- The first lines of an image are text; what follows is filler that depends on the seed alone.
- A device believes the header only after the hash of the whole image was right.
- Bytes without our header are a good image: real builds can be simulated too.
"""

from __future__ import annotations

import hashlib

HEAD_BYTES = 128
_MAGIC = b"ota-sim-image 1\n"
_BAD = "crashes: yes"
_GOOD = "crashes: no"


def make_image(version: str, rel: int, size_bytes: int, *, bad: bool, seed: int) -> bytes:
    """Make an image of exactly `size_bytes`.

    Args:
        version: version for display.
        rel: release counter.
        size_bytes: size of the image; at least `HEAD_BYTES`.
        bad: whether it crashes on devices that have the bad fault.
        seed: equal arguments give equal bytes.

    Raises:
        ValueError: the size cannot hold the header.
    """
    lines = f"version: {version}\nrel: {rel}\n{_BAD if bad else _GOOD}\n\n"
    head = _MAGIC + lines.encode()
    if size_bytes < HEAD_BYTES or len(head) > HEAD_BYTES:
        raise ValueError(f"an image needs at least {HEAD_BYTES} bytes and a header of at most as many")
    filler = hashlib.shake_256(head + seed.to_bytes(8, "big")).digest(size_bytes - len(head))
    return head + filler


def crashes(head: bytes) -> bool:
    """Say whether the image that begins with `head` was made to crash."""
    if not head.startswith(_MAGIC):
        return False
    text, _, _ = head[:HEAD_BYTES].partition(b"\n\n")
    return text.endswith(_BAD.encode())
