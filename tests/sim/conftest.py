from __future__ import annotations

import pytest

from tests.sim.issuer import Build, Issuer


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
def good() -> Build:
    return Build.make("1.1.0", 2)


@pytest.fixture(scope="session")
def bad() -> Build:
    return Build.make("1.2.0", 3, bad=True)
