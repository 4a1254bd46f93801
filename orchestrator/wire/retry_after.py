"""When to come again, as a server says it: the header `Retry-After` (RFC 9110, 10.2.3).

Rules:
- It is a number of seconds or a date, in any of the three forms that HTTP has had.
- It is a wish: what cannot be read is none, and nothing that stands there is an error.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_CHARS = 64
"""More than any date takes, and any number of seconds that somebody means."""


def wait_s(text: str, now: float) -> float:
    """Return how long to wait from now, 0 if the header asks for nothing that can be read.

    Args:
        text: the header, "" where there is none.
        now: the present time, which a date is compared with.
    """
    text = text.strip(" \t")
    if len(text) > MAX_CHARS or not text.isascii():
        return 0.0
    if text.isdigit():
        return float(text)
    return max(_at(text, now) - now, 0.0)


def _at(text: str, now: float) -> float:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a number in it may be larger than a date can hold
        return now
    # A date without a zone is the form of C's asctime, which HTTP means in UTC.
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
