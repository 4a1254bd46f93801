"""Numbers, times and states as words on a page. Pure.

Rules:
- A time is shown in UTC, as everywhere else; how long ago it was is said beside it.
- Colour never says anything alone: every tone comes with its word.
"""

from __future__ import annotations

import time

TONES = {
    "draft": "quiet",
    "preparing": "busy",
    "running": "busy",
    "paused": "quiet",
    "halted": "bad",
    "inconclusive": "warn",
    "done": "good",
    "aborted": "quiet",
    "passed": "good",
    "open": "busy",
    "waiting": "quiet",
    "proposed": "warn",
    "approved": "good",
}
"""How a state is coloured, by its word."""

MARKS = {"good": "✓", "bad": "✕", "warn": "!", "busy": "●", "quiet": "○"}
"""The sign that stands beside a word of each tone."""

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def number(value: float | None) -> str:
    """Return a count with its thousands apart."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share of 1 as percent."""
    return "–" if share is None else f"{share:.{digits}%}".replace("%", "\u202f%")


def plain(value: float | None) -> str:
    """Return a number with three significant digits, large ones as a power of ten."""
    if value is None:
        return "–"
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa}×10^{int(power)}"
    return f"{value:.3g}" if abs(value) < 1_000 else number(value)


def more(count: int, what: str) -> str:
    """Return how many more of something there must be."""
    return f"{number(count)} more {what}{'' if count == 1 else 's'}"


def clock(at: float | None) -> str:
    """Return a time as date and time of day."""
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def iso(at: float) -> str:
    """Return a time as machines read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def span(seconds: float) -> str:
    """Return how long something is, with its two largest units."""
    left = round(abs(seconds))
    found: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or found:
            found.append(f"{count} {unit}" if count else "")
        if len(found) == 2:
            break
    if not found:
        return f"{left} s"
    if len(found) == 1 and left:
        found.append(f"{left} s")
    return " ".join(item for item in found if item)


def ago(at: float | None, now: float) -> str:
    """Return how long ago a time was, or when it will be."""
    if at is None:
        return "never"
    if abs(now - at) < 1:
        return "now"
    return f"{span(now - at)} ago" if at < now else f"in {span(at - now)}"


def tone(state: str) -> str:
    """Return how a state is coloured."""
    return TONES.get(state, "quiet")
