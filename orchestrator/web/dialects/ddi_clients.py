"""The clients that speak hawkBit's API, by what they call themselves, and how they differ.

Rules:
- Everything that depends on which client it is stands in this table.
- Who is not known is taken for one that tells least: its success is proven by the version that it shows.
- Nor is it sent to other hosts: the stacks of small clients follow no redirection.
"""

from __future__ import annotations

from typing import NamedTuple


class Client(NamedTuple):
    """How a client behaves.

    Attributes:
        name: what people call it.
        agent: what its user agent begins with, in small letters.
        closes_late: whether it closes an action only after the reboot, when it knows what came of it.
        installed: text with which it says that it has installed and is about to reboot, "" for none.
        follows: whether it survives a redirection to another host.
    """

    name: str
    agent: str
    closes_late: bool = False
    installed: str = ""
    follows: bool = True


OTHER = Client("another", "", follows=False)
_INSTALLED = "All Chunks Installed."
CLIENTS = (
    Client("SWUpdate", "libcurl-agent/", closes_late=True, installed=_INSTALLED),
    Client("SWUpdate", "swupdate", closes_late=True, installed=_INSTALLED),
    Client("rauc-hawkbit-updater", "rauc-hawkbit-c-agent/"),
    Client("rauc-hawkbit", "python/"),
    Client("Zephyr", "zephyr", follows=False),
)


def client_of(user_agent: str) -> Client:
    """Return the client that calls itself so."""
    said = user_agent.strip().lower()
    return next((item for item in CLIENTS if said.startswith(item.agent)), OTHER)
