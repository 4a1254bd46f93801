"""Names of hosts as a test wants them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest


def name_is(monkeypatch: pytest.MonkeyPatch, address: str | None) -> list[str]:
    """Let every name have this address, or none; returns the names that are looked up."""
    loop = asyncio.get_running_loop()
    names: list[str] = []
    real: Callable[..., Awaitable[Any]] = loop.getaddrinfo

    async def found(host: Any, port: Any, **options: Any) -> Any:
        if str(host).replace(".", "").isdigit():
            return await real(host, port, **options)
        names.append(host)
        if address is None:
            raise socket.gaierror("there is no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(loop, "getaddrinfo", found)
    return names
