"""`ota fleet exposed` and `ota rollout curve`, as a person and as a machine read them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from io import StringIO

import pytest

from orchestrator.cli import fleet
from tests.cli.house import House, house
from tests.support.factory import stock
from tests.web.site import PLAN


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("fleet")) as running:
        running.do(_stock(running))
        yield running


async def _stock(running: House) -> None:
    web = running.site
    await web.enrol("d1", "d2")
    body = {"devices": [{"id": "evil", "model": "m1", "version": "=1+1", "rel": 1}, {"id": "mute", "model": "m1"}]}
    assert (await web.ops("POST", "/devices", body)).status_code == 201
    await web.release()
    mends = {"severity": "critical", "advisories": ["CVE-2026-1234"], "fixes": {"below": 2}}
    await web.roll_out(**mends)
    await web.plant.write(lambda tx: stock(tx, 5, ("m5",)))
    await web.ops("POST", "/rollouts", PLAN | {"name": "later", "release": "radio-5.0.0"})


def test_who_is_exposed_is_counted(daemon: House) -> None:
    text = daemon.well("fleet", "exposed", "spring")
    assert text.splitlines()[:3] == [
        "3 of 4 devices run a vulnerable version",
        "of 1 device more nobody knows what runs there",
        "  vulnerable on m1: below release counter 2",
    ]
    assert text == daemon.well("fleet", "exposed", "--advisory", "CVE-2026-1234")
    found = json.loads(daemon.well("fleet", "exposed", "--below-rel", "2", "-o", "json"))
    assert (found["vulnerable"], found["unknown"]) == (3, 1)


def test_every_one_of_them_is_exported(daemon: House) -> None:
    lines = daemon.well("fleet", "exposed", "spring", "--export", "json").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["d1", "d2", "evil", "mute"]
    rows = list(csv.DictReader(StringIO(daemon.well("fleet", "exposed", "spring", "--export", "csv"))))
    assert [(row["id"], row["status"]) for row in rows] == [
        ("d1", "vulnerable"),
        ("d2", "vulnerable"),
        ("evil", "vulnerable"),
        ("mute", "unknown"),
    ]


def test_what_a_device_says_is_no_formula(daemon: House) -> None:
    rows = list(csv.DictReader(StringIO(daemon.well("fleet", "exposed", "spring", "--export", "csv"))))
    assert rows[2]["version"] == "'=1+1"


@pytest.mark.parametrize("words", [(), ("spring", "--below-rel", "2"), ("--advisory", "CVE-2026-1234", "spring")])
def test_one_question_at_a_time(daemon: House, words: tuple[str, ...]) -> None:
    result = daemon.ota("fleet", "exposed", *words)
    assert result.exit_code == 1
    assert "name one of a rollout, --advisory and --below-rel" in result.stderr


def test_what_is_not_there_is_exit_code_5(daemon: House) -> None:
    for words in (("none",), ("none", "--export", "csv")):
        assert daemon.ota("fleet", "exposed", *words).exit_code == 5
    assert daemon.ota("rollout", "curve", "none").exit_code == 5


def test_the_curve_of_a_rollout(daemon: House) -> None:
    lines = daemon.well("rollout", "curve", "spring").splitlines()
    assert lines[0].startswith("spring  running  4 devices")
    assert "time from the start at" in lines[1]
    assert lines[2].startswith("  offered  ")
    assert lines[2].endswith("█  4")
    assert lines[3].strip() == "50 % after 30s, 90 % after 30s, 95 % after 30s"
    assert lines[5].strip() == "50 % after -, 90 % after -, 95 % after -"
    data = json.loads(daemon.well("rollout", "curve", "spring", "-o", "json"))
    assert data["advisories"] == ["CVE-2026-1234"]
    rows = list(csv.reader(StringIO(daemon.well("rollout", "curve", "spring", "-o", "csv"))))
    assert rows[0] == ["after_s", "offered", "confirmed"]
    assert rows[-1][1:] == ["4", "0"]
    assert "it was not started" in daemon.well("rollout", "curve", "later")


def test_what_a_rollout_mends_is_shown_everywhere(daemon: House) -> None:
    mends = "  mends   CVE-2026-1234 below release counter 2  severity critical"
    assert mends in daemon.well("rollout", "get", "spring").splitlines()
    assert mends in daemon.well("rollout", "explain", "spring").splitlines()
    assert "critical" in daemon.well("rollout", "list")


def test_a_bar_shows_anything_that_is_there() -> None:
    assert fleet._bars([0, 1, 50, 100], 100) == " ▁▄█"
    assert fleet._bars([0, 0], 0) == "  "
