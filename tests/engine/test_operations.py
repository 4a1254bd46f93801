"""What operators make: devices, releases and rollouts; each wholly or not at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any

import pytest

from orchestrator.core.model import Phase
from orchestrator.core.targeting.cohort import secret_from_seed
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.operations import NewDevice, token_hash
from orchestrator.errors import ConflictError, NotFoundError, OrchestratorError, RequestError, TrustError
from orchestrator.ports import Tx
from tests.support.builders import make_plan
from tests.support.factory import Plant, make_artifact, stock


async def refused(it: Plant, kind: type[OrchestratorError], match: str, work: Callable[[Tx], Any]) -> None:
    with pytest.raises(kind, match=match):
        await it.write(work)


async def test_a_device_token_is_shown_once_and_stored_as_its_hash(it: Plant) -> None:
    devices = [NewDevice("d1", "m1", ("north",), "1.0", 1), NewDevice("d2", "m1")]
    tokens = await it.write(lambda tx: operations.enrol(tx, devices, 5.0))
    assert tokens.keys() == {"d1", "d2"}
    for device_id, token in tokens.items():
        assert token.startswith("otad_")
        assert len(token) == 48
        found = await it.store.read(methodcaller("device_by_token", token_hash(token)))
        assert found is not None
        assert (found.id, found.registered_at, found.seen_at) == (device_id, 5.0, None)
    again = await it.write(lambda tx: operations.enrol(tx, devices, 6.0))
    assert set(again.values()).isdisjoint(tokens.values())
    assert await it.store.read(lambda tx: tx.device_by_token(token_hash(tokens["d1"]))) is None


async def test_devices_that_cannot_be_are_refused_all_together(it: Plant) -> None:
    good = NewDevice("d1", "m1")
    await refused(it, RequestError, "twice", lambda tx: operations.enrol(tx, [good, good], 5.0))
    for bad in (NewDevice("D 1", "m1"), NewDevice("d2", "M#"), NewDevice("d2", "m1", ("a/b",))):
        await refused(it, RequestError, "not an identifier", partial(operations.enrol, devices=[good, bad], now=5.0))
    assert await it.store.read(lambda tx: tx.fleet_size()) == 0


async def test_a_release_is_made_of_artifacts_of_one_version(it: Plant) -> None:
    one, two = make_artifact(2, ("m1",)), make_artifact(2, ("m2",))
    other, double = make_artifact(3, ("m3",)), make_artifact(2, ("m1", "m9"), name="radio-b")
    for artifact in (one, two, other, double):
        assert await it.write(partial(operations.register_artifact, artifact=artifact, now=1.0)) is True
    hashes = [one.sha256, two.sha256, one.sha256]
    release = await it.write(lambda tx: operations.create_release(tx, "radio-2", hashes, 5.0))
    assert (release.version, release.rel, release.artifacts) == ("2.0.0", 2, (one.sha256, two.sha256))
    cases: list[tuple[type[OrchestratorError], str, str, list[str]]] = [
        (RequestError, "not an identifier", "Radio 2", [one.sha256]),
        (RequestError, "at least one", "radio-2b", []),
        (RequestError, "one version", "radio-2b", [one.sha256, other.sha256]),
        (RequestError, "for m1", "radio-2b", [one.sha256, double.sha256]),
        (NotFoundError, "no artifact 'unknown'", "radio-2b", ["unknown"]),
        (ConflictError, "exists", "radio-2", [one.sha256]),
    ]
    for kind, match, name, given in cases:
        await refused(it, kind, match, partial(operations.create_release, name=name, hashes=given, now=5.0))
    assert len(await it.store.read(lambda tx: tx.releases())) == 1


async def test_other_bytes_under_a_known_counter_are_refused(it: Plant) -> None:
    await it.write(stock)
    reused = make_artifact(2, ("m1", "m2"))
    await refused(it, TrustError, "other bytes", lambda tx: operations.register_artifact(tx, reused, 1.0))


async def test_a_rollout_begins_as_a_draft_with_a_secret_order(it: Plant) -> None:
    await it.write(stock)
    made = [await it.create(make_plan(name=name, seed=seed)) for name, seed in (("a", None), ("b", None), ("c", 7))]
    secrets = [await it.store.read(methodcaller("secret", item.id)) for item in made]
    assert secrets[2] == secret_from_seed(7)
    assert len({*secrets}) == 3
    assert {len(secret) for secret in secrets} == {32}
    assert {(item.phase, item.reason.code, item.actor) for item in made} == {(Phase.DRAFT, "created", "ann")}
    events = await it.store.read(lambda tx: tx.events(made[0].id))
    assert [(item.phase, item.code, item.actor) for item in events] == [(Phase.DRAFT, "created", "ann")]


async def test_a_rollout_that_cannot_be_is_refused(it: Plant) -> None:
    await it.write(stock)
    await it.create(make_plan(name="a"))
    cases: list[tuple[type[OrchestratorError], str, dict[str, Any]]] = [
        (NotFoundError, "no release named 'none'", {"release": "none"}),
        (RequestError, "no artifact for m8, m9", {"models": ("m9", "m1", "m8")}),
        (ConflictError, "exists", {"name": "a"}),
    ]
    for kind, match, changes in cases:
        plan = make_plan(**({"name": "b"} | changes))
        await refused(it, kind, match, partial(operations.create_rollout, plan=plan, actor="ann", now=5.0))
    assert len(await it.store.read(lambda tx: tx.rollouts())) == 1
