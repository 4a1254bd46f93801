"""Time zones by name, read from the database of the system, or from the package `tzdata` where there is none.

Rules:
- A name that is not in the database is refused here; nothing further in ever sees one.
- What is read is the zone's changes from yesterday until beyond `window.HORIZON_S`, kept for a month: a zone costs a
  millisecond once, and a million devices have a few hundred.
- A newer database counts once the process starts again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from orchestrator.core.pace.window import DAY_S, HORIZON_S, Shift, Zone
from orchestrator.errors import ConfigError

_KEPT_S = 31 * DAY_S
_STEP_S = DAY_S
"""Since 1970 no zone has changed twice within six days."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_zone(name: str) -> bool:
    """Say whether the database has a zone of this name."""
    return _find(name) is not None


def zone(name: str, now: float) -> Zone:
    """Return the zone of this name, good from now on for as long as windows look ahead.

    Raises:
        ConfigError: there is no such zone.
    """
    return _read(name, int(now // _KEPT_S))


def refusal(name: object) -> str:
    """Return the sentence that refuses what is no zone."""
    return f'{name!r:.80} is no time zone; write a name of the IANA database, such as "Europe/Berlin" or "UTC"'


def _find(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


@lru_cache(maxsize=1024)
def _read(name: str, span: int) -> Zone:
    info = _find(name)
    if info is None:
        raise ConfigError([refusal(name)])
    begin = span * _KEPT_S - DAY_S
    end = begin + DAY_S + _KEPT_S + HORIZON_S + DAY_S
    shifts = [Shift(float(begin), _offset_s(info, begin))]
    for at in range(begin, end, _STEP_S):
        if _offset_s(info, at + _STEP_S) != shifts[-1].offset_s:
            shifts.append(_change(info, at, at + _STEP_S))
    return Zone(name, tuple(shifts))


def _change(info: ZoneInfo, before: int, after: int) -> Shift:
    """Return the one change between two times."""
    old = _offset_s(info, before)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset_s(info, middle) == old:
            before = middle
        else:
            after = middle
    return Shift(float(after), _offset_s(info, after))


def _offset_s(info: ZoneInfo, at: int) -> int:
    shown = (_EPOCH + timedelta(seconds=at)).astimezone(info)
    offset = shown.utcoffset()
    return 0 if offset is None else round(offset.total_seconds())
