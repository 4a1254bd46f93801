from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest

def test_passes(): pass

@pytest.mark.skip(reason="no broker")
def test_skipped(): pass

def test_skips_itself(): pytest.skip("no broker")

@pytest.mark.xfail(strict=True)
def test_known(): assert False
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    conftest = Path(__file__).with_name("conftest.py").read_text()
    pytester.makeconftest(conftest)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(TESTS)
    return pytester


def test_elsewhere_a_skip_is_a_skip(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    project.runpytest().assert_outcomes(passed=1, skipped=2, xfailed=1)


def test_in_ci_a_skip_is_a_failure(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    result = project.runpytest()
    result.assert_outcomes(passed=1, failed=1, errors=1, xfailed=1)
    result.stdout.fnmatch_lines(["*skipped, which fails in CI:*no broker*"])


def test_in_ci_a_skipped_module_is_an_error(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    project.makepyfile(test_module="import pytest\npytest.importorskip('no_such_module')\n")
    assert project.runpytest("test_module.py").ret == pytest.ExitCode.INTERRUPTED
