"""A daemon's HTTP side in a thread of its own, for commands that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from orchestrator.cli.main import cli
from orchestrator.demo.broker import HOST
from orchestrator.web.server import HttpServer
from tests.web.site import TOKEN, Site, site


@dataclass
class House:
    """A running daemon, and the command line beside it."""

    origin: str
    site: Site
    token_file: Path
    loop: asyncio.AbstractEventLoop

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine where the daemon runs, and return what it gives."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def ota(self, *words: str, stdin: str | None = None) -> Result:
        """Run a command in this process."""
        options = ["--server", self.origin, "--token-file", str(self.token_file)]
        return CliRunner().invoke(cli, [*options, *words], input=stdin)

    def well(self, *words: str) -> str:
        """Run a command that must succeed, and return what it printed."""
        result = self.ota(*words)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout


@contextmanager
def house(folder: Path, **changes: Any) -> Iterator[House]:
    """Run a daemon until the block ends; `changes` are of its context."""
    token_file = folder / "operator-token"
    token_file.write_text(f"{TOKEN}\n")
    ready: list[tuple[int, Site, asyncio.AbstractEventLoop, asyncio.Event]] = []
    opened = threading.Event()

    async def live() -> None:
        leave = asyncio.Event()
        with capture_logs():  # they would stand among what commands print
            await _live(leave)

    async def _live(leave: asyncio.Event) -> None:
        async with site(folder, **changes) as running:
            server = HttpServer(running.app, HOST, 0, 100)
            serving = asyncio.create_task(server.run())
            ready.append((server.port, running, asyncio.get_running_loop(), leave))
            opened.set()
            await leave.wait()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        assert opened.wait(30)
        port, running, loop, leave = ready[0]
        yield House(f"http://{HOST}:{port}", running, token_file, loop)
    finally:
        if ready:
            loop.call_soon_threadsafe(leave.set)
        thread.join(30)
