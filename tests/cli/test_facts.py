"""`ota device set` and `import`, selections and previews, against a running daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.model import UpdateState
from orchestrator.core.rollout import Command
from orchestrator.ports import Lane
from tests.cli.house import House, house
from tests.support.factory import stock

PLAN = """name: spring
release: radio-2.0.0
select: not id == dev-00007
stratify: site
stages:
  - {group: lab, devices: rest}
  - {devices: 30%}
  - {devices: rest}
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as found:
        found.do(found.site.plant.store.transact(Lane.OPERATOR, stock))
        found.well("device", "add", "--model", "m1", "--count", "12", "--credentials", str(tmp_path / "credentials"))
        yield found


def written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def faults(daemon: House, *words: str) -> list[str]:
    """Return what a command that must fail says."""
    result = daemon.ota(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    return result.stderr.splitlines()


def ids(daemon: House, select: str) -> list[str]:
    return [item["id"] for item in json.loads(daemon.well("device", "list", "--select", select, "-o", "json"))]


def test_what_is_set_is_shown_and_asked_for(daemon: House) -> None:
    said = ["--site", "berlin-1", "--tag", "canary", "--group", "lab", "--attr", "region=eu", "--time-zone", "UTC"]
    assert daemon.well("device", "set", "dev-00001", "dev-00002", *said, "--revision", "1.2") == "2 devices changed\n"
    shown = daemon.well("device", "get", "dev-00001")
    for line in (
        "revision  1.2",
        "site      berlin-1",
        "time zone UTC",
        "groups    lab",
        "tags      canary",
        "region = eu",
    ):
        assert f"  {line}\n" in shown
    assert ids(daemon, 'site like "berlin-*" and tag(canary)') == ["dev-00001", "dev-00002"]
    daemon.well(
        "device", "set", "dev-00001", "--untag", "canary", "--no-group", "lab", "--attr", "region=", "--site", ""
    )
    assert ids(daemon, "tag(canary) or group(lab) or attr.region == eu or site != ''".replace("''", '""')) == [
        "dev-00002"
    ]


def test_what_cannot_be_set_is_told(daemon: House) -> None:
    assert faults(daemon, "device", "set", "dev-00001") == [
        "error: say what shall be different, such as --site or --tag"
    ]
    assert faults(daemon, "device", "set", "dev-00001", "none", "--time-zone", "Mars") == [
        "error: dev-00001: 'Mars' is no time zone; write a name such as Europe/Berlin",
        "error: none: 'Mars' is no time zone; write a name such as Europe/Berlin",
        "error: none: there is no such device",
    ]
    assert faults(daemon, "device", "set", "dev-00001", "--attr", "x")[0].startswith(
        "error: --attr x: write NAME=VALUE"
    )
    assert faults(daemon, "device", "list", "--select", "site = 3") == [
        "error: column 6: '=' means nothing here; write ==",
        "  site = 3",
        "       ^",
    ]


def test_a_csv_file_says_things_of_many_devices(daemon: House, tmp_path: Path) -> None:
    text = 'id,site,tags,groups,attr.region\ndev-00004,berlin,b;a,lab,eu\n\n"dev-00005","paris, x",,,\n'
    assert daemon.well("device", "import", written(tmp_path, "a.csv", text)) == "2 of 2 devices changed\n"
    assert ids(daemon, "tag(a) and group(lab) and attr.region == eu") == ["dev-00004"]
    assert ids(daemon, 'site == "paris, x"') == ["dev-00005"]
    assert daemon.well("device", "import", written(tmp_path, "a.csv", text)) == "0 of 2 devices changed\n"
    daemon.well("device", "import", written(tmp_path, "b.csv", "id,tags,attr.region\ndev-00004,,\n"))
    assert ids(daemon, 'tag(a) or attr.region != ""') == []
    assert ids(daemon, "site == berlin") == ["dev-00004"]


def test_a_file_of_json_lines_says_things_of_many_devices(daemon: House, tmp_path: Path) -> None:
    lines = [{"id": "dev-00001", "site": "a", "attributes": {"x": "1"}}, {"id": "dev-00002", "tags": ["t"]}]
    path = written(tmp_path, "a.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert json.loads(daemon.well("device", "import", path, "-o", "json")) == {"changed": ["dev-00001", "dev-00002"]}
    assert ids(daemon, "tag(t) or attr.x == 1") == ["dev-00001", "dev-00002"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "id,tags\ndev-00004,B!\n", ["2: 'B!' is no tag"]),
        ("a.csv", "id,site\nd1\nX,\nd2,\nd2,\n", ["2: 1 values for 2 columns", "3: id: 'X'", "5: d2 stands in line 4"]),
        ("a.csv", "id,colour\nd1,red\n", ["1: unknown column 'colour'"]),
        ("a.csv", "site\nx\n", ["1: the columns must be different, with id"]),
        ("a.csv", "", ["1: the columns must be different, with id"]),
        ("a.csv", 'id,site\nd1,"x\n', ["2: not CSV"]),
        ("a.csv", "id,time_zone\nd1,Mars\n", ["2: 'Mars' is no time zone"]),
        ("a.jsonl", '{"id":"d1"}\n{\n[]\n', ["2: not JSON", "3: not an object"]),
        ("a.jsonl", '{"id":3}\n{"site":"x"}\n', ["1: id is a text", "2: id: '' is no identifier"]),
        (
            "a.jsonl",
            '{"id":"d1","tags":"x"}\n{"id":"d2","colour":1}\n',
            ["1: tags is a list", "2: unknown key 'colour'"],
        ),
        ("a.jsonl", '{"id":"d1","attributes":{"x":1}}\n', ["1: attributes is an object of texts"]),
    ],
)
def test_a_faulty_file_is_refused_as_a_whole_with_its_lines(
    daemon: House, tmp_path: Path, name: str, text: str, expected: list[str]
) -> None:
    path = written(tmp_path, name, text)
    found = faults(daemon, "device", "import", path)
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(f"error: {path}:{start}")


def test_a_dry_run_makes_nothing_and_names_every_device(daemon: House, tmp_path: Path) -> None:
    daemon.well("device", "set", "dev-00001", "dev-00002", "--group", "lab", "--site", "berlin")
    path = written(tmp_path, "plan.yaml", PLAN)
    shown = daemon.well("rollout", "create", "--dry-run", "-f", path)
    assert "spring  release radio-2.0.0  11 of 12 devices; an example" in shown
    assert "  stage 1  2 devices of group lab (berlin 2)\n    dev-00001 dev-00002\n" in shown
    assert "  of 11 of the devices that match nobody knows what they run\n" in shown
    assert "  left out  1 device: it does not meet the selector not id == dev-00007\n    dev-00007\n" in shown
    assert json.loads(daemon.well("rollout", "list", "-o", "json")) == []
    daemon.well("rollout", "create", "-f", path)
    exact = json.loads(daemon.well("rollout", "preview", "spring", "-o", "json"))
    assert exact["exact"]
    assert exact == json.loads(daemon.well("rollout", "preview", "spring", "-o", "json"))
    named = [name for part in (*exact["stages"], *exact["left_out"]) for name in part["ids"]]
    assert sorted(named) == [f"dev-{at:05}" for at in range(12)]
    assert [stage["devices"] for stage in exact["stages"]] == [2, 4, 5]


def test_who_is_no_witness_and_which_strata_are_missing_is_told(daemon: House, tmp_path: Path) -> None:
    daemon.well("device", "set", "dev-00001", "dev-00002", "--group", "lab", "--site", "berlin")
    path = written(tmp_path, "plan.yaml", PLAN + "evidence: {registered: 1d, strata: 2}\n")
    shown = daemon.well("rollout", "create", "--dry-run", "-f", path)
    assert "  stage 1  0 of 2 devices of group lab\n  stage 2  0 of 4 devices\n  stage 3  11 devices (" in shown
    assert "  11 devices were registered too late for any but the last stage\n" in shown
    strata = written(tmp_path, "strata.yaml", PLAN + "evidence: {strata: 2}\n")
    warned = daemon.well("rollout", "create", "--dry-run", "-f", strata)
    assert (
        "  warning  stage 1: 2 strata must be healthy by themselves, each with 3 devices or more, and 0 can" in warned
    )
    daemon.well("rollout", "create", "-f", path)
    plant = daemon.site.plant
    rollout = daemon.do(plant.rollout(1))
    daemon.do(plant.command(rollout, Command.START))
    rollout = daemon.do(plant.advance(rollout))
    assert "0 of the 2 that must be healthy by themselves\n" in daemon.well("rollout", "explain", "spring")
    for _ in range(2):  # the group, and the second stage
        plant.clock.advance(60)
        daemon.do(plant.advance(rollout))
        daemon.well("rollout", "resume", "spring", "--reason", "a new fleet")
        rollout = daemon.do(plant.advance(rollout))
    for _ in range(2):  # ten slots, eleven devices
        daemon.do(plant.confirm(daemon.do(plant.updates(rollout, UpdateState.OFFERED))))
        rollout = daemon.do(plant.advance(rollout))
    shown = daemon.well("rollout", "explain", "spring")
    assert shown.startswith("spring is inconclusive because of the 2 strata")
    assert "  strata  1 of the 2 that must be healthy by themselves\n" in shown
    assert "    berlin  not green  2 healthy, k=0 n=2, at most 0\n" in shown


def test_a_selector_in_a_plan_is_shown_under_a_caret(daemon: House, tmp_path: Path) -> None:
    path = written(tmp_path, "plan.yaml", PLAN.replace("==", "=", 1))
    assert faults(daemon, "rollout", "create", "--dry-run", "-f", path) == [
        f"error: {path}:3:9: select: column 8: '=' means nothing here; write ==",
        "  not id = dev-00007",
        "         ^",
    ]


def test_what_cannot_be_drawn_is_told(daemon: House, tmp_path: Path) -> None:
    path = written(tmp_path, "plan.yaml", PLAN.replace("radio-2.0.0", "none"))
    result = daemon.ota("rollout", "create", "--dry-run", "-f", path)
    assert (result.exit_code, result.stderr[:34]) == (5, "error: there is no release named '")
    assert daemon.ota("rollout", "preview", "none").exit_code == 5
