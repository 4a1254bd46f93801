"""One broker per mode for all tests of the doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.doctor.brokers import Place, place

StartPlace = Callable[[str, str], Place]


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPlace]:
    """Return a function that gives the broker of a mode of access and of a mode of logging in."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("brokers")
        yield cache(lambda access, identity: stack.enter_context(place(folder / access / identity, access, identity)))
