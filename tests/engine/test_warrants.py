"""Warrants: devices take what the daemon takes, and the daemon starts nothing that is not allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator import verifier
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.core.model import Phase, Plan, Reason, Rollout, Urgency
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.pace.requirement import Requirements, Unknown
from orchestrator.core.rollout import Command
from orchestrator.core.trust.roles import SHARED, Caller
from orchestrator.engine.offers import allowance
from orchestrator.engine.trust import approvals, warrants
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.errors import ConflictError, NotFoundError, OrchestratorError, RequestError, TrustError
from orchestrator.ports import DeliveryState
from orchestrator.verifier import COSIGN, Keyset, PublicKey
from orchestrator.wire import token
from orchestrator.wire.token import TokenType
from tests.support.builders import make_plan
from tests.support.factory import DEPLOYMENT, KEYS, TRIGGER_KEY, Plant, claims_of, make_verifier, plant, stock

ANN_KEY, BEN_KEY, BEN_SPARE = (FileSigner(ec.derive_private_key(number, ec.SECP256R1())) for number in (21, 22, 23))
WHO = {ANN_KEY.kid: "ann", BEN_KEY.kid: "ben", BEN_SPARE.kid: "ben"}
COSIGNERS = {
    key.kid: PublicKey(key.kid, COSIGN, key.x, key.y, who=WHO[key.kid]) for key in (ANN_KEY, BEN_KEY, BEN_SPARE)
}
KEYSET = Keyset(DEPLOYMENT, 1, {**KEYS, **COSIGNERS}, 0, 2)
ROOT = Wish(Caller("root@local", "", SHARED, local=True))


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Plant]:
    """An engine with ten devices and the emergency `spring` in draft."""
    async with plant(tmp_path) as made:
        await made.enrol(10)
        require = Requirements(battery_pct=30, unknown=Unknown.ALLOW)
        await add(made, make_plan(urgency=Urgency.EMERGENCY, require=require))
        await add(made, make_plan(name="calm"))
        yield made


async def add(engine: Plant, plan: Plan) -> None:
    def work(tx: Any) -> None:
        if tx.release(plan.release) is None:
            stock(tx)
        tx.add_rollout(Rollout(0, plan, Phase.DRAFT, Reason("created", ""), "ann", 0.0), b"secret")

    await engine.write(work)


async def draft(engine: Plant, name: str = "spring", keyset: Keyset = KEYSET) -> dict[str, object]:
    return await warrants.draft(engine.conductor, engine.store, keyset, name, 7, engine.clock())


def signed(claims: dict[str, object], signers: Sequence[FileSigner] = (ANN_KEY, BEN_KEY)) -> bytes:
    """Return claims signed by each of the signers."""
    lines: list[bytes] = []
    for signer in signers:
        if lines:
            given = token.further_input(TokenType.COSIGN, signer.kid, lines[0])
            lines.append(token.assemble_further(given, signer.sign(given)))
        else:
            given = token.signing_input(TokenType.COSIGN, signer.kid, claims)
            lines.append(token.assemble(given, signer.sign(given)))
    return token.bundle(lines)


async def submit(engine: Plant, lines: bytes, keyset: Keyset = KEYSET) -> dict[str, Any]:
    return await warrants.submit(engine.store, keyset, "spring", lines, "ann", engine.clock)


async def start(engine: Plant, wish: Wish = ROOT, what: Command = Command.START) -> Any:
    keyring = Keyring(KEYSET, (), [TRIGGER_KEY], engine.clock)
    return await approvals.command(engine.conductor, engine.store, keyring, Rules(), engine.clock, "spring", what, wish)


async def test_a_draft_names_the_rollout_its_statements_and_its_devices(engine: Plant) -> None:
    claims = await draft(engine)
    rollout = await engine.store.read(lambda tx: tx.rollout_named("spring"))
    assert rollout is not None
    assert (claims["iss"], claims["ep"], claims["cid"]) == (DEPLOYMENT, 1, str(rollout.id))
    assert (claims["aud"], claims["most"]) == (["m:m1"], 10)
    assert len(claims["asts"]) == 1  # type: ignore[arg-type]


async def test_an_emergency_starts_with_a_warrant_alone(engine: Plant) -> None:
    for wish in (ROOT, replace(ROOT, break_glass="fire")):
        with pytest.raises(ConflictError) as caught:
            await start(engine, wish)
        assert caught.value.code == "warrant_needed"
    claims = await draft(engine)
    assert await submit(engine, signed(claims)) == claims
    assert (await start(engine)).rollout.phase is Phase.PREPARING
    entries = await engine.store.read(lambda tx: tx.audit_entries(0, 100))
    assert "warrant.stored" in {item.action for item in entries}


async def test_it_reaches_no_more_devices_than_are_allowed(engine: Plant) -> None:
    await submit(engine, signed(await draft(engine)))
    await engine.enrol(1, prefix="late")
    with pytest.raises(ConflictError) as caught:
        await start(engine)
    assert (caught.value.code, caught.value.message) == (
        "warrant_exceeded",
        "spring reaches 11 devices, and its warrant allows 10",
    )


async def test_a_warrant_that_ended_since_starts_nothing(engine: Plant) -> None:
    await submit(engine, signed(await draft(engine)))
    engine.clock.advance(7 * 86_400)
    with pytest.raises(TrustError) as caught:
        await start(engine)
    assert caught.value.code == "warrant_expired"


@pytest.mark.parametrize(
    ("changes", "signers", "code"),
    [
        ({}, (ANN_KEY,), "too_few_signers"),
        ({}, (BEN_KEY, BEN_SPARE), "too_few_signers"),
        ({}, (ANN_KEY, ANN_KEY), "signed_twice"),
        ({}, (ANN_KEY, TRIGGER_KEY), "wrong_role"),
        ({"cid": "99"}, (ANN_KEY, BEN_KEY), "warrant_field"),
        ({"iss": "other-fleet"}, (ANN_KEY, BEN_KEY), "warrant_field"),
        ({"ep": 2}, (ANN_KEY, BEN_KEY), "warrant_field"),
        ({"asts": ["A" * 43]}, (ANN_KEY, BEN_KEY), "warrant_field"),
        ({"aud": ["m:m2"]}, (ANN_KEY, BEN_KEY), "warrant_field"),
    ],
)
async def test_what_is_no_warrant_for_it(
    engine: Plant, changes: dict[str, object], signers: Sequence[FileSigner], code: str
) -> None:
    with pytest.raises(TrustError) as caught:
        await submit(engine, signed(await draft(engine) | changes, signers))
    assert caught.value.code == code
    assert "; " in caught.value.message  # what to do next
    assert await engine.store.read(lambda tx: tx.warrant(1)) is None


@pytest.mark.parametrize("lines", [b"", b"x", b"\n", b"a.b.c", b"..\n..", b"." * 3000])
async def test_bytes_that_are_no_warrant(engine: Plant, lines: bytes) -> None:
    with pytest.raises(TrustError, match="devices would not take this warrant"):
        await submit(engine, lines)


async def test_what_takes_none(engine: Plant) -> None:
    calls: list[tuple[str, Keyset, type[OrchestratorError], str]] = [
        ("autumn", KEYSET, NotFoundError, "not_found"),
        ("calm", KEYSET, RequestError, "no_emergency"),
        ("spring", replace(KEYSET, need_cosign=0), RequestError, "no_cosigners"),
    ]
    for name, keyset, kind, code in calls:
        with pytest.raises(kind) as caught:
            await draft(engine, name, keyset)
        assert caught.value.code == code


async def test_groups_are_named_where_the_plan_does_and_not_too_many(engine: Plant) -> None:
    for count in (8, 9):
        groups = tuple(f"g{at}" for at in range(count))
        await add(engine, make_plan(name=f"of-{count}", urgency=Urgency.EMERGENCY, groups=groups))
    assert (await draft(engine, "of-8"))["aud"] == [f"g:g{at}" for at in range(8)]
    with pytest.raises(RequestError) as caught:
        await draft(engine, "of-9")
    assert caught.value.code == "warrant_too_large"


async def test_a_later_warrant_takes_the_place_of_the_first(engine: Plant) -> None:
    await submit(engine, signed(await draft(engine)))
    second = signed(await draft(engine) | {"most": 20})
    await submit(engine, second)
    assert await engine.store.read(lambda tx: tx.warrant(1)) == second


async def test_a_draft_for_one_that_runs_names_its_whole_cohort(engine: Plant) -> None:
    """Also those that run the release by now: the warrant must not be one for fewer than were taken in."""
    await submit(engine, signed(await draft(engine)))
    await start(engine)
    await sealed(engine)
    rollout = await engine.rollout(1)
    await engine.confirm((await engine.updates(rollout))[:4])
    claims = await draft(engine)
    assert claims["most"] == 10
    await submit(engine, signed(claims))


async def test_a_later_warrant_for_fewer_than_were_taken_in_is_refused(engine: Plant) -> None:
    first = signed(await draft(engine))
    await submit(engine, first)
    await start(engine)
    await sealed(engine)
    with pytest.raises(ConflictError) as caught:
        await submit(engine, signed(await draft(engine) | {"most": 9}))
    assert caught.value.code == "warrant_exceeded"
    assert await engine.store.read(lambda tx: tx.warrant(1)) == first


async def test_a_pause_before_the_cohort_is_known_passes_no_warrant_by(engine: Plant) -> None:
    await submit(engine, signed(await draft(engine)))
    await start(engine)
    await engine.conductor.command("spring", Command.PAUSE, actor="ann", reason="")
    await engine.enrol(1, prefix="late")
    with pytest.raises(ConflictError) as caught:
        await start(engine, what=Command.RESUME)
    assert caught.value.code == "warrant_exceeded"


async def sealed(engine: Plant) -> list[bytes]:
    """Let the conductor open the emergency and seal what it offers; returns the bundles that wait."""
    rollout = await engine.store.read(lambda tx: tx.rollout_named("spring"))
    assert rollout is not None
    engine.clock.advance(engine.settings.grace_s)
    await engine.conductor.advance(rollout.id)
    await engine.seal()
    return [item.token.encode() for item in await engine.parcels(rollout) if item.state is DeliveryState.SEALED]


async def test_devices_take_what_is_sealed_with_the_warrant_behind_it(engine: Plant) -> None:
    await submit(engine, signed(await draft(engine)))
    await start(engine)
    bundles = await sealed(engine)
    assert len(bundles) == 10
    for bundle in bundles:
        assert len(bundle.split(b"\n")) == 4
        assert claims_of(bundle)["pol"] == {"bat": 30}  # no urgency overrides what a device must be able to do
        name = claims_of(bundle)["aud"][0].removeprefix("d:")
        device = replace(make_verifier(name), keys=KEYSET.keys, need_cosign=2)
        assert verifier.verify(bundle, device, int(engine.clock())).kind == "install"
        with pytest.raises(verifier.Refused) as caught:
            verifier.verify(b"\n".join(bundle.split(b"\n")[:3]), device, int(engine.clock()))
        assert caught.value.code == "too_few_signers"


async def test_another_warrant_takes_the_place_of_the_first_in_what_waits(engine: Plant) -> None:
    await submit(engine, signed(await draft(engine)))
    await start(engine)
    before = await sealed(engine)
    await submit(engine, signed(await draft(engine), (BEN_KEY, ANN_KEY)))
    after = await sealed(engine)
    assert len(before) == len(after) == 10
    assert {item.split(b"\n")[2] for item in before}.isdisjoint({item.split(b"\n")[2] for item in after})
    assert sorted(claims_of(item)["att"] for item in before) == sorted(claims_of(item)["att"] for item in after)


async def test_who_registered_since_the_start_is_left_out(engine: Plant) -> None:
    await submit(engine, signed(await draft(engine)))
    await start(engine)
    await engine.enrol(5, prefix="late")
    assert len(await sealed(engine)) == 10


async def test_a_warrant_raises_the_ceiling_of_its_rollout_alone(engine: Plant) -> None:
    await submit(engine, signed(await draft(engine)))
    limits = Ceiling(share=0.0, floor=2)

    def room(tx: Any, name: str) -> int:
        return allowance.room(tx, limits, 0.0, allowance.warranted(tx, tx.rollout_named(name))).devices

    assert await engine.store.read(lambda tx: [room(tx, name) for name in ("spring", "calm")]) == [12, 2]


async def test_without_a_good_warrant_nothing_is_sealed_that_devices_would_refuse(engine: Plant) -> None:
    """A refusal would be the device's last word in this rollout; an offer that waits is not."""
    await submit(engine, signed(await draft(engine)))
    await start(engine)
    second = replace(KEYSET, ep=2)
    engine.keyring = Keyring(second, (), [TRIGGER_KEY], engine.clock)
    assert await sealed(engine) == []
    rollout = await engine.rollout(1)
    assert await engine.states(rollout) == {"offered": 10}
    await submit(engine, signed(await draft(engine, keyset=second)), second)
    bundles = await sealed(engine)
    assert len(bundles) == 10
    for bundle in bundles:
        name = claims_of(bundle)["aud"][0].removeprefix("d:")
        device = replace(make_verifier(name), keys=KEYSET.keys, need_cosign=2, ep=2)
        assert verifier.verify(bundle, device, int(engine.clock())).kind == "install"


async def test_a_trigger_ends_with_its_warrant(engine: Plant) -> None:
    claims = await draft(engine)
    await submit(engine, signed(claims | {"exp": int(engine.clock()) + 600}))
    await start(engine)
    for bundle in await sealed(engine):
        assert claims_of(bundle)["exp"] == int(engine.clock()) + 570
    rollout = await engine.rollout(1)
    assert {item.expires_at for item in await engine.parcels(rollout)} == {engine.clock() + 570}
    engine.clock.advance(570)
    await engine.dispatch()
    await engine.seal()
    assert [item.state for item in await engine.parcels(rollout)] == [DeliveryState.VOID] * 20


async def test_a_refusal_says_what_to_do_about_it(engine: Plant) -> None:
    stranger = FileSigner(ec.derive_private_key(99, ec.SECP256R1()))
    said = {}
    for name, lines in {
        "stranger": signed(await draft(engine), (ANN_KEY, stranger)),
        "changed": signed(await draft(engine))[:-4] + b"AAAA",
        "nonsense": b"x",
    }.items():
        with pytest.raises(TrustError) as caught:
            await submit(engine, lines)
        said[name] = caught.value.message.rpartition("; ")[2]
    assert said == {
        "stranger": "`ota keys list` shows them",
        "changed": "copy the file once more, or sign it again",
        "nonsense": "draft it anew with `ota warrant draft`, and let cosigners sign that",
    }
