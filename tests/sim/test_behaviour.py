from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.sim.behaviour import MAX_DEVICES, Behaviour, altered, load

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "fleet.yaml"
PAGE = Path(__file__).parents[2] / "docs" / "simulate.md"


def test_the_example_names_every_key() -> None:
    text = EXAMPLE.read_text()
    assert [each.name for each in fields(Behaviour) if f"\n{each.name}:" not in text] == []
    assert load(EXAMPLE).devices == 200


def test_the_page_explains_every_key() -> None:
    text = PAGE.read_text()
    assert [each.name for each in fields(Behaviour) if f"`{each.name}`" not in text] == []


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("# nothing\n")
    assert load(path) == Behaviour()


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("devices: 7\nbad_share: 0.3\ndownload_s: [1, 2]\nchannels: {push: 1, poll: 3}\nmodels: {m-1: 1}\n")
    behaviour = load(path)
    assert (behaviour.devices, behaviour.bad_share, behaviour.download_s) == (7, 0.3, (1.0, 2.0))
    assert behaviour.channels == {"push": 1.0, "poll": 3.0}
    assert behaviour.silent_share == 0.0


def test_all_faults_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        altered(
            Behaviour(),
            {"bad_shares": 0.3, "devices": 0, "lie_share": 1.5, "speed": "fast", "models": {"SIM A": 1}},
        )
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "bad_shares",
        "devices",
        "speed",
        "lie_share",
        "'SIM A'",
    ]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("download_s", [8, 2], "first number must not be larger"),
        ("battery_pct", [0, 101], "<= 100"),
        ("channels", {"push": 0}, "at least one part"),
        ("channels", {"pull": 1}, "pull"),
        ("devices", MAX_DEVICES + 1, "<= 20000"),
        ("devices", True, "Expected `int`"),
        ("id_pattern", "sim", "another identifier of each number"),
        ("id_pattern", "Sim {}", "another identifier of each number"),
        ("id_pattern", "{0.real.x}", "another identifier of each number"),
        ("id_pattern", "{name}", "another identifier of each number"),
        ("groups", ["a/b"], "not an identifier"),
        ("component", "#", "not an identifier"),
        ("component", "endpoints", "give what they run another name"),
        ("seed", -1, ">= 0"),
    ],
)
def test_wrong_values_are_refused(key: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        altered(Behaviour(), {key: value})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("devices: [", "fleet.yaml: line"),
        ("devices: 1\ndevices: 2\n", "duplicate key 'devices'"),
        ("- devices\n", "must be a mapping"),
        ("\xff", "not UTF-8"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=says):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.yaml: cannot be read \(No such file"):
        load(tmp_path / "gone.yaml")


def test_the_pattern_makes_the_identifiers() -> None:
    assert Behaviour(devices=2).device_ids() == ["sim-00000", "sim-00001"]
