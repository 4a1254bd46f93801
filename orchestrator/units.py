"""Quantities as people write them: `30s`, `64MiB`, `20%`.

Rules:
- A number without a unit is refused: nobody should have to guess whether 30 meant seconds or minutes.
- One unit per value, no sign, no space inside; decimals only where they make sense (`1.5h`, `0.5%`).
- `format_*` writes what `parse_*` reads, in the largest unit that divides it.
"""

from __future__ import annotations

import re

_DURATIONS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SIZES = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%")


def parse_duration(value: object) -> float:
    """Return the seconds that a text such as `10ms`, `30s`, `10m`, `24h` or `2d` means.

    Raises:
        ValueError: no such text, or a number without its unit.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{_shown(value)} is not a duration; write a number with its unit, such as "30s" or "24h"')
    return float(match[1]) * _DURATIONS[match[2]]


def parse_size(value: object) -> int:
    """Return the bytes that a text such as `4096B`, `64KiB`, `64MiB` or `2GiB` means.

    Raises:
        ValueError: no such text, or a number without its unit.
    """
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{_shown(value)} is not a size; write a number with its unit, such as "64KiB" or "2GiB"')
    return int(match[1]) * _SIZES[match[2]]


def parse_share(value: object) -> float:
    """Return the share, from 0 to 1, that a text such as `20%` or `0.5%` means.

    Raises:
        ValueError: no such text, a number without the sign, or more than the whole.
    """
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    share = float(match[1]) / 100 if match else 2.0
    if share > 1:
        raise ValueError(f'{_shown(value)} is not a share; write a percentage from "0%" to "100%"')
    return share


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads as `seconds` (whole milliseconds)."""
    milliseconds = round(seconds * 1000)
    for unit, factor in _DURATIONS.items():
        count, rest = divmod(milliseconds, round(factor * 1000))
        if count and not rest:
            return f"{count}{unit}"
    return "0s"


def format_size(size_bytes: int) -> str:
    """Return the shortest text that `parse_size` reads as `size_bytes`."""
    for unit, factor in _SIZES.items():
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return "0B"


def format_share(share: float) -> str:
    """Return the shortest text that `parse_share` reads as `share` (whole millionths)."""
    return f"{share * 100:.4f}".rstrip("0").rstrip(".") + "%"


def _shown(value: object) -> str:
    return repr(value)[:40]
