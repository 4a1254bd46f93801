"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

from tests.support import schemas, secrets
from tests.support.broker import open_broker, start_broker
from tests.support.shares import TOGETHER, Shares
from tests.support.softhsm import soft_token, soft_tokens

__all__ = ["open_broker", "soft_token", "soft_tokens", "start_broker"]


def pytest_configure() -> None:
    """Look for secrets in everything that is said from now on, and make each schema once."""
    secrets.install()
    schemas.install()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares:
    """Share the tests out as `shares` says, whatever `--dist` is."""
    return Shares(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trace no whole deployment and no browser: it would double what they take, and change what they measure."""
    for item in items:
        if item.nodeid.startswith(TOGETHER):
            item.add_marker(pytest.mark.no_cover)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which fails in CI: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that is skipped has failed: what is needed must be installed. One that says a secret has failed."""
    report = yield
    _refuse_skip(report)
    secrets.judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI a module that is skipped has failed as well."""
    report = yield
    _refuse_skip(report)
    return report
