"""How tests are shared out to processes.

Rules:
- Tests of whole deployments, and of pages in a browser, are each done by one process, one after the other: they wait
  more than they work, would be in each other's way, and share what is dear to make.
- All others are given out one by one.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/e2e/", "tests/browser/")


class Shares(LoadScopeScheduling):  # type: ignore[misc]
    """Gives the tests of some folders to one process each."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """Return what a test is done together with, itself if it stands alone."""
    return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid)
