"""`ota endpoints` and `ota fleet endpoints`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.main import cli
from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError, OrchestratorError, RequestError
from orchestrator.wire.endpoints import Endpoints, decode_endpoints
from orchestrator.wire.report import Hello
from tests.cli.house import House, house

GOOD = ("--mqtt", "mqtts://broker.example", "--http", "https://ota.example")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ota(*words: str) -> Result:
    return CliRunner().invoke(cli, ["endpoints", *words])


def error_of(result: Result) -> OrchestratorError:
    assert isinstance(result.exception, OrchestratorError), result.output
    return result.exception


def make(*words: str, out: str = "move.json") -> Result:
    return ota("make", "--deployment", "my-fleet", *words, "-o", out)


def test_what_was_made_is_what_a_device_reads() -> None:
    origins = ("--origin", "https://cdn.example", "--origin", "https://cdn2.example:8443")
    made = make("--mqtt", "mqtts://first.example:443", *GOOD, *origins)
    assert made.exit_code == 0
    assert "ota artifact sign move.json --comp endpoints --format otad-endpoints" in made.output
    assert decode_endpoints(Path("move.json").read_bytes(), "my-fleet") == Endpoints(
        "my-fleet",
        ("mqtts://first.example:443", "mqtts://broker.example"),
        ("https://ota.example",),
        ("https://cdn.example", "https://cdn2.example:8443"),
    )


def test_what_was_made_is_shown() -> None:
    make(*GOOD)
    lines = ota("show", "move.json").output.splitlines()
    assert lines[0].startswith("for the deployment my-fleet, ")
    assert [line.split() for line in lines[1:]] == [
        ["mqtt", "mqtts://broker.example"],
        ["http", "https://ota.example"],
        ["origins", "as", "they", "are"],
    ]
    data = json.loads(ota("show", "move.json", "--deployment", "my-fleet", "-o", "json").output)
    assert (data["mqtt"], data["origins"]) == (["mqtts://broker.example"], [])
    make(*GOOD, "--origin", "https://cdn.example", out="other.json")
    assert ota("show", "other.json").output.splitlines()[-1].split() == ["origins", "https://cdn.example"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "no_address"),
        (("--mqtt", "mqtts://10.0.0.1"), "bad_address"),
        (("--http", "https://ota.example/"), "bad_address"),
        ((*GOOD, "--origin", "mqtts://cdn.example"), "bad_address"),
        (("--mqtt", "mqtts://broker.example") * 5, "malformed"),
    ],
)
def test_what_devices_would_refuse_is_not_written(words: tuple[str, ...], code: str) -> None:
    error = error_of(make(*words))
    assert (type(error), error.code) == (RequestError, code)
    assert "devices would refuse" in error.message
    assert not Path("move.json").exists()


def test_no_file_is_overwritten_and_none_is_written_nowhere() -> None:
    make(*GOOD)
    assert isinstance(error_of(make(*GOOD)), ConflictError)
    assert isinstance(error_of(make(*GOOD, out="none/move.json")), ForbiddenError)


def test_files_that_cannot_be_shown() -> None:
    assert isinstance(error_of(ota("show", "none.json")), NotFoundError)
    assert error_of(ota("show", ".")).code == "unreadable"
    Path("long.json").write_bytes(b" " * 5000)
    assert error_of(ota("show", "long.json")).code == "oversize"
    make(*GOOD)
    assert error_of(ota("show", "move.json", "--deployment", "other")).code == "foreign_deployment"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("endpoints")) as running:
        running.do(running.site.enrol("d1", "d2", "d3"))
        hellos = [Hello(1, "d1", "m1", eps=0), Hello(1, "d2", "m1", eps=3)]
        running.do(running.site.plant.record(hellos=hellos))
        yield running


def test_devices_are_counted_by_their_endpoints(daemon: House) -> None:
    lines = [line.split() for line in daemon.well("fleet", "endpoints").splitlines()]
    assert lines == [
        ["ENDPOINTS", "DEVICES"],
        ["0", "(as", "provisioned)", "1"],
        ["3", "1"],
        ["cannot", "be", "moved", "1"],
    ]
    data = json.loads(daemon.well("fleet", "endpoints", "-o", "json"))
    assert (data["fleet"], data["unknown"]) == (3, 1)


def test_who_was_not_moved_is_listed(daemon: House) -> None:
    table = daemon.well("device", "list", "--select", "endpoints < 3").splitlines()
    assert table[0].split() == ["ID", "MODEL", "VERSION", "REL", "ENDPOINTS", "ONLINE", "SEEN"]
    assert [line.split()[0] for line in table[1:]] == ["d1"]
    unknown = daemon.well("device", "list", "--select", 'endpoints == ""').splitlines()
    assert [line.split()[:1] + line.split()[4:5] for line in unknown[1:]] == [["d3", "-"]]
