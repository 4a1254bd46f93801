"""Sessions of the pages: an operator's token opens one, a cookie names it, and every form carries its secret.

Rules:
- A session holds no token, only which one opened it; that token is judged anew at every request.
- The value of the cookie is kept as its SHA-256, in memory alone: a daemon that starts again knows no session.
- A session ends when it rests too long, and after a working day however busy it is.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.errors import ForbiddenError

IDLE_S = 3_600.0
LONGEST_S = 12 * 3_600.0
MOST = 1_000
"""Sessions that are known at once; one more ends the one that has rested the longest."""
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Notice:
    """What is said once, on the next page.

    Attributes:
        kind: `done`, `waits` or `failed`.
        text: a sentence for a person.
    """

    kind: str
    text: str


@dataclass(slots=True)
class Session:
    """One browser that is signed in.

    Attributes:
        token_id: public part of the token that opened it, "" for that of the token file.
        secret: what every form of it carries.
        made_at: when it was opened.
        used_at: when it was last used.
        notices: what is said on its next page.
    """

    token_id: str
    secret: str
    made_at: float
    used_at: float
    notices: list[Notice] = field(default_factory=list)

    def check(self, said: str) -> None:
        """Make sure that a form is of this session.

        Raises:
            ForbiddenError: it is not.
        """
        if not hmac.compare_digest(said.encode(), self.secret.encode()):
            text = "this form is of another session, so nothing was done; load the page again"
            raise ForbiddenError(text, code="other_session")

    def take_notices(self) -> list[Notice]:
        """Return what is to be said, and forget it."""
        found, self.notices = self.notices, []
        return found


class Sessions:
    """All sessions.

    Args:
        now: the clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: dict[str, Session] = {}

    def open(self, token_id: str) -> str:
        """Open a session for who has shown this token; returns the value of its cookie, which stands nowhere else."""
        now = self._now()
        if len(self._known) >= MOST:
            del self._known[min(self._known, key=lambda key: self._known[key].used_at)]
        value = secrets.token_urlsafe(_SECRET_BYTES)
        self._known[_key(value)] = Session(token_id, secrets.token_urlsafe(_SECRET_BYTES), now, now)
        return value

    def find(self, value: str, *, touch: bool = True) -> Session | None:
        """Return the session that a cookie names, None if there is none any more.

        Args:
            value: of the cookie.
            touch: whether this use keeps it from ending; what a page asks by itself does not.
        """
        key, now = _key(value), self._now()
        found = self._known.get(key)
        if found is None:
            return None
        if now - found.used_at >= IDLE_S or now - found.made_at >= LONGEST_S:
            del self._known[key]
            return None
        if touch:
            found.used_at = now
        return found

    def close(self, value: str) -> None:
        """End the session that a cookie names, if there is one."""
        self._known.pop(_key(value), None)


def _key(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
