"""`docs/getting-started.md`, done literally by a new user: its commands, in order, with the wheel and nothing else.

Rules:
- The wheel is built from the checkout and installed into a fresh environment, in a folder of its own. The checkout lies
  beside it under the name that the page gives it; nothing of it can be imported. To build it, pip fetches hatchling,
  as it does for `make`.
- What the wheel needs is not fetched once more: the fresh environment is shown the packages that the project declares,
  and what these declare in their turn, as they lie in the environment of the tests, and no others. What runs is the
  wheel, and what it forgot to declare is missing.
- The two ports of the page are replaced by free ones wherever they stand. Nothing else is changed.
- A command must end with 0, or with what the page says behind it: `# ends with 3`.
- What the page shows below its commands, these have printed, figures and spaces aside.
- All that the page starts holds one pipe and is in one process group: when the pipe ends, all of it has ended.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from orchestrator.demo.broker import free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "getting-started.md"
PORTS = ("18080", "18830")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENDS = re.compile(r"^(ota .*?) +# ends with (\d+)$", re.MULTILINE)
PLAY_S = 300
END_S = 15

pytestmark = pytest.mark.timeout(PLAY_S + 2 * END_S)

JUDGE = """\
set -E
judge() {{
  echo "$1 $2" >> {folder}/ended
  grep -qxF -- "$1 $2" {folder}/expected || exit 1
}}
trap 'judge $? "$BASH_COMMAND"' ERR
"""
INSTALLED = """\
cp {folder}/packages.pth venv/lib/python3.*/site-packages/
venv/bin/python -c 'import orchestrator; print(orchestrator.__file__)' > {folder}/imported
venv/bin/pip check
cp ota_orchestrator-*.whl {folder}
"""


@dataclass
class Block:
    """Commands of the page, what it shows below them, and what they printed."""

    commands: str
    shown: str = ""
    printed: str = ""


@dataclass
class Played:
    """What came of the page.

    Attributes:
        blocks: in their order.
        expected: code and command of what does not end with 0, as the page says.
        ended: the same, as it was.
        imported: which file the fresh environment imports as the project.
        wheel: what lies in the wheel.
        left: whether something was still running when the last command had ended.
    """

    blocks: list[Block]
    expected: list[str]
    ended: list[str]
    imported: Path
    wheel: list[str]
    left: bool


def read(page: Path) -> list[Block]:
    """Return the commands of a page, each with what is shown right below it."""
    blocks: list[Block] = []
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "sh":
            blocks.append(Block(text))
        elif not language:
            blocks[-1].shown += text
    return blocks


def declared() -> dict[str, importlib.metadata.Distribution]:
    """Return the packages that the project declares, and those that these declare."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    left = [(text, "") for text in project["dependencies"]]
    while left:
        text, extra = left.pop()
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": extra}):
            continue
        package = found[need.name] = importlib.metadata.distribution(need.name)
        for wanted in {"", *need.extras}:
            if (need.name, wanted) not in seen:
                seen.add((need.name, wanted))
                left += [(text, wanted) for text in package.requires or ()]
    return found


def show_packages(folder: Path) -> None:
    """Make a folder with the declared packages, as links to where they are installed."""
    folder.mkdir()
    for package in declared().values():
        tops = {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}
        for top in tops:
            if not (folder / top).is_symlink():
                (folder / top).symlink_to(str(package.locate_file(top)))


def surroundings(folder: Path) -> dict[str, str]:
    """Return the environment of a user with Python, and without anything of ours."""
    programs = folder / "bin"
    programs.mkdir()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (programs / "python3").symlink_to(Path(sys.base_prefix, "bin", version))  # that of the tests imports the checkout
    ours = ("OTA_", "PYTHON", "VIRTUAL_ENV", "COV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    places = f"{programs}:/usr/local/bin:/usr/bin:/bin"
    return kept | {"PATH": places, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def script(folder: Path, blocks: list[Block]) -> str:
    """Return what bash is to do: every block in the one shell, and what makes the environment whole behind one."""
    ports = {port: str(free_port()) for port in PORTS}
    lines = [JUDGE.format(folder=folder)]
    for number, block in enumerate(blocks):
        text = re.sub("|".join(PORTS), lambda found: ports[found[0]], block.commands)
        if "pip install" in text:
            text = f"export PIP_NO_DEPS=1\n{text}unset PIP_NO_DEPS\n{INSTALLED.format(folder=folder)}"
        (folder / f"block-{number}.sh").write_text(f"{text}:\n")
        lines.append(f". {folder}/block-{number}.sh > {folder}/printed-{number} 2>&1 < /dev/null")
    return "\n".join(lines)


def has_ended(leash: int, wait_s: float) -> bool:
    """Say whether nobody holds the other end of a pipe any more, or lets go of it within so long."""
    return bool(select.select([leash], [], [], wait_s)[0])


def play(folder: Path) -> Played:
    """Do what the page says.

    Raises:
        AssertionError: a command ended with what it should not; with what was printed.
    """
    blocks = read(PAGE)
    expected = [f"{code} {command}" for block in blocks for command, code in ENDS.findall(block.commands)]
    (folder / "expected").write_text("".join(f"{line}\n" for line in expected))
    (folder / "ended").touch()
    (folder / "ota-orchestrator").symlink_to(ROOT)
    show_packages(folder / "packages")
    (folder / "packages.pth").write_text(f"{folder / 'packages'}\n")
    leash, held = os.pipe()
    environment, work = surroundings(folder), script(folder, blocks)
    shell = subprocess.Popen(
        ["bash", "-c", work], cwd=folder, env=environment, pass_fds=(held,), start_new_session=True
    )
    os.close(held)
    try:
        code = shell.wait(PLAY_S)
        left = not has_ended(leash, 1)
        for number, block in enumerate(blocks):
            if (path := folder / f"printed-{number}").exists():
                block.printed = path.read_text(encoding="utf-8")
        ended = (folder / "ended").read_text().splitlines()
        said = "\n".join(f"$ {block.commands}{block.printed}" for block in blocks if block.printed)
        names = [name for wheel in folder.glob("*.whl") for name in zipfile.ZipFile(wheel).namelist()]
        assert code == 0, f"{ended[-1:]}\n{said}\n{logs(folder)}"
        return Played(blocks, expected, ended, Path((folder / "imported").read_text().strip()), names, left)
    finally:
        end(shell, leash)


def end(shell: subprocess.Popen[bytes], leash: int) -> None:
    """End all that the shell started, and the shell."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if has_ended(leash, 0):
            break
        os.killpg(shell.pid, number)
        has_ended(leash, END_S)
    shell.wait(END_S)
    os.close(leash)


def logs(folder: Path) -> str:
    """Return the last lines that what ran in the background wrote."""
    found = sorted((folder / "ota-try").glob("*.log"))
    return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in found)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("new-user")
    yield play(folder)
    shutil.rmtree(folder)


def plain(text: str) -> list[str]:
    """Return lines without what differs from run to run: keys, figures, spaces, and how long a bar is."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line != "..."]
    return [re.sub(r"(?<=\.pem key )\S+|[\d.]+(e[+-]\d+)?|[█▒·]+", "0", line) for line in lines]


def test_each_command_ends_as_the_page_says(played: Played) -> None:
    assert played.ended == played.expected != []


def test_what_the_page_shows_was_printed(played: Played) -> None:
    shown = [block for block in played.blocks if block.shown]
    assert len(shown) > 5
    for block in shown:
        printed = plain(block.printed)
        missing = [line for line in plain(block.shown) if line not in printed]
        assert not missing, f"{block.commands}\nshown: {missing}\nprinted: {printed}"


def test_the_rollouts_ended_as_the_page_tells(played: Played) -> None:
    printed = next(block.printed for block in played.blocks if "ota rollout list" in block.commands)
    (_, *lines) = [line.split() for line in printed.splitlines()]
    assert {words[0]: words[2] for words in lines} == {"door-2": "done", "door-3": "halted", "door-4": "done"}


def test_what_ran_is_the_wheel(played: Played) -> None:
    assert "ota-try" in played.imported.parts
    assert ROOT not in played.imported.parents


def test_nothing_of_the_package_is_missing_in_the_wheel(played: Played) -> None:
    files = [
        path for path in (ROOT / "orchestrator").rglob("*") if path.is_file() and path.parent.name != "__pycache__"
    ]
    assert sorted({str(path.relative_to(ROOT)) for path in files} - set(played.wheel)) == []


def test_nothing_is_left_running(played: Played) -> None:
    assert not played.left
