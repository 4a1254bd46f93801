"""The demo: a good release goes all the way, a bad one halts by itself.

Rules:
- It fails (exit code 1, with the folder of all logs) if anything else happens.
- What it prints is what a user would do and see; the numbers are read from the daemon.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.demo.scene import Scene, Wishes, scene
from orchestrator.errors import OrchestratorError

DEVICES = 200
MOST_REACHED = 45
_ENDED = {"done", "halted", "inconclusive", "aborted"}
_ROLLOUT_S = 90.0
_SETTLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the two rollouts.

    Attributes:
        good: the good rollout as the API shows it.
        bad: the bad one.
        faults: what is not as it must be.
    """

    good: dict[str, Any]
    bad: dict[str, Any]
    faults: list[str]


def plan(name: str, seed: int) -> dict[str, object]:
    """Return the plan of both rollouts: 20 devices, 60 more, the rest."""
    return {
        "name": name,
        "release": name,
        "seed": seed,
        "in_flight": 50,
        "stages": [
            {"devices": 20, "max_failure_bound": "20%"},
            {"devices": 60, "max_failure_bound": "8%"},
            {"devices": "rest", "max_failure_bound": "5%"},
        ],
        "halt": {"tolerated": "1%", "alpha": "5%"},
        "deadlines": {"accept": "30s", "download": "20s", "install": "20s", "confirm": "20s"},
    }


async def play(made: Scene, seed: int, say: Callable[[str], None]) -> Outcome:
    """Run both rollouts on a scene and judge them."""
    say(f"$ ota simulate --devices {made.wishes.devices} --bad-share {made.wishes.bad_share} --seed {seed}")
    await made.start_fleet()
    say(f"  {made.wishes.devices} devices are connected over MQTT ({made.broker.kind})")
    good = await _roll_out(made, "good", "2.0.0", 2, seed, say)
    bad = await _roll_out(made, "bad", "3.0.0", 3, seed, say)
    bad = await _settled(made, "bad", bad)
    return Outcome(good, bad, _faults(good, bad, made.wishes.devices))


def summary(outcome: Outcome) -> list[str]:
    """Return the closing table."""
    lines = ["", f"{'release':8}  {'ended':7} {'reached':>7} {'healthy':>7} {'rolled back':>11}  evidence"]
    for view in (outcome.good, outcome.bad):
        states, evidence, bound = view["states"], view["evidence"][0], view["bound"]
        lines.append(
            f"{view['name']:8}  {view['phase']:7} {view['reached']:>7} {states.get('confirmed', 0):>7} "
            f"{states.get('rolled_back', 0):>11}  k={evidence['k']} n={evidence['n']} E={evidence['e']:.3g} "
            f"(halts at {evidence['threshold']:.3g}), bound {bound['upper']:.1%}"
        )
    lines += ["", f"the bad release stopped because {outcome.bad['reason']['text']}"]
    return lines


async def demo(seed: int, keep: bool) -> int:
    """Run the demo and return the exit code."""
    started = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="ota-demo-"))
    print("starting an S3 endpoint, a broker and the daemon on loopback ...", flush=True)
    try:
        async with scene(directory, Wishes(devices=DEVICES, seed=seed)) as made:
            print(f"  S3 {made.endpoint}   broker {made.broker.url}   daemon {made.server}", flush=True)
            outcome = await play(made, seed, lambda line: print(line, flush=True))
            print("\n".join(summary(outcome)))
            for fault in outcome.faults:
                print(f"not as it must be: {fault}", file=sys.stderr)
            if keep:
                await _stay(made)
    except (OrchestratorError, TimeoutError) as error:
        print(f"the demo failed: {error or 'it took too long'}; all logs are in {directory}", file=sys.stderr)
        return 1
    if outcome.faults:
        print(f"all logs are in {directory}", file=sys.stderr)
        return 1
    shutil.rmtree(directory)
    print(f"demo passed in {time.monotonic() - started:.0f} s")
    return 0


async def seeds(count: int) -> int:
    """Run the demo for the seeds 0 to `count` - 1, print one line each, and return the exit code."""
    print(f"{'seed':>4}  {'good':6} {'healthy':>7}  {'bad':6} {'reached':>7} {'rolled back':>11}  k in n, E at the end")
    failed = 0
    for seed in range(count):
        with tempfile.TemporaryDirectory(prefix="ota-demo-") as directory:
            async with scene(Path(directory), Wishes(devices=DEVICES, seed=seed)) as made:
                outcome = await play(made, seed, lambda line: None)
        print(f"{seed:>4}  {_line(outcome)}", flush=True)
        failed += bool(outcome.faults)
    print(f"{count - failed} of {count} seeds as they must be")
    return 1 if failed else 0


def main() -> None:
    """Run `make demo`: `SEED=n` fixes who is bad, `SEEDS=n` runs many, `KEEP=1` leaves everything running."""
    if os.environ.get("SEEDS"):
        raise SystemExit(asyncio.run(seeds(int(os.environ["SEEDS"]))))
    seed = int(os.environ.get("SEED") or 0)
    raise SystemExit(asyncio.run(demo(seed, os.environ.get("KEEP", "") not in ("", "0"))))


def _line(outcome: Outcome) -> str:
    good, bad, evidence = outcome.good, outcome.bad, outcome.bad["evidence"][0]
    return (
        f"{good['phase']:6} {good['states'].get('confirmed', 0):>7}  {bad['phase']:6} {bad['reached']:>7} "
        f"{bad['states'].get('rolled_back', 0):>11}  {evidence['k']} in {evidence['n']}, {evidence['e']:.3g}"
        + "".join(f"  NOT AS IT MUST BE: {fault}" for fault in outcome.faults)
    )


async def _roll_out(
    made: Scene, name: str, version: str, rel: int, seed: int, say: Callable[[str], None]
) -> dict[str, Any]:
    share = f"; crashes on {made.wishes.bad_share:.0%} of the devices" if name == "bad" else ""
    say(f"$ ota artifact sign {name}.bin --version {version} --rel {rel}{share}")
    say(f"$ ota artifact import s3://releases/{name}.bin && ota release create {name}")
    await made.publish_release(name, version, rel, bad=name == "bad")
    say(f"$ ota rollout create -f {name}.yaml && ota rollout start {name} && ota rollout watch {name}")
    await made.roll_out(plan(name, seed))
    shown: object = None
    async with asyncio.timeout(_ROLLOUT_S):
        while True:
            view: dict[str, Any] = await made.api("GET", f"/rollouts/{name}")
            if shown != (shown := _progress(view)):
                say(f"  {shown}")
            if view["phase"] in _ENDED:
                return view
            await asyncio.sleep(0.5)


async def _settled(made: Scene, name: str, view: dict[str, Any]) -> dict[str, Any]:
    """Wait until no device is under way any more."""
    async with asyncio.timeout(_SETTLE_S):
        while view["in_flight"]:
            await asyncio.sleep(0.2)
            view = await made.api("GET", f"/rollouts/{name}")
    return view


def _progress(view: Mapping[str, Any]) -> str:
    stage = view["stages"][view["stage"]]
    return (
        f"{view['phase']:9} stage {view['stage'] + 1}: {stage['confirmed']:>3} of {stage['target'] or 0} healthy, "
        f"{stage['failures']} failed, {view['in_flight']} in flight"
    )


def _faults(good: Mapping[str, Any], bad: Mapping[str, Any], devices: int) -> list[str]:
    states = bad["states"]
    # A device has failed in one way only here: it crashed and went back to its old slot.
    failures = sum(states.get(state, 0) for state in ("failed", "expired", "lost", "relapsed"))
    checks = {
        f"the good release ended {good['phase']}": good["phase"] == "done",
        f"only {good['states'].get('confirmed', 0)} devices run the good release": good["states"].get("confirmed")
        == devices,
        f"the bad release ended {bad['phase']}": bad["phase"] == "halted",
        f"the bad release reached {bad['reached']} devices": bad["reached"] < MOST_REACHED,
        "no device rolled back": states.get("rolled_back", 0) > 0,
        f"{failures} devices failed without rolling back": failures == 0,
    }
    return [fault for fault, holds in checks.items() if not holds]


async def _stay(made: Scene) -> None:
    print(f"\neverything keeps running; files are in {made.directory}; try:")
    print(f"  .venv/bin/ota --server {made.server} --token-file {made.token_file} rollout list")
    print("end it with Ctrl-C", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
