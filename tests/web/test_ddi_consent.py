"""hawkBit's consent flow: a plan that asks users, and clients that ask them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.model import UpdateState
from orchestrator.errors import PayloadError
from orchestrator.web.dialects import ddi_feedback
from orchestrator.web.dialects.ddi_consent import LOOK_AGAIN_S, PUT_OFF_S
from tests.web.ddi_client import IMAGE, PUBLIC, Client, allow, enrol, state
from tests.web.site import Site, problem

S = UpdateState
AT = f"{PUBLIC}/DEFAULT/controller/v1/d1/confirmationBase"
ASK: dict[str, Any] = {"mode": "ask", "deferrals": 2, "longest": "12h"}


async def asking(web: Site, *, consent: dict[str, Any] = ASK, **plan: Any) -> Client:
    """Start a rollout that asks users, and return the client of its device."""
    await allow(web)
    await web.release(IMAGE)
    await enrol(web, "d1")
    await web.roll_out(consent=consent, **plan)
    return Client(web)


async def advance(web: Site, seconds: float = LOOK_AGAIN_S) -> None:
    web.plant.clock.advance(seconds)
    rollout = await web.plant.store.read(lambda tx: tx.rollout_named("spring"))
    assert rollout is not None
    await web.plant.advance(rollout)
    await web.plant.seal()


async def answer(client: Client, word: object, number: object = 1) -> httpx2.Response:
    body = {"confirmation": word, "code": 10, "details": ["a", "b"]}
    return await client.call("POST", f"/confirmationBase/{number}/feedback", content=json.dumps(body))


async def test_a_user_who_agrees_gets_the_deployment_of_the_same_number(web: Site) -> None:
    client = await asking(web)
    assert await client.poll() == {"confirmationBase": f"{AT}/1?c=1"}
    question = (await client.follow(f"{AT}/1?c=1")).json()
    assert (question["id"], list(question)) == ("1", ["id", "confirmation"])
    [chunk] = question["confirmation"]["chunks"]
    assert (chunk["name"], chunk["version"], chunk["artifacts"][0]["size"]) == ("radio", "2.0.0", len(IMAGE))
    assert (await client.call("GET", "/deploymentBase/1")).status_code == 404
    assert (await client.call("GET", "/softwaremodules/1/artifacts/radio-2.0.0.bin")).status_code == 404
    said = await answer(client, "confirmed")
    assert (said.status_code, said.content) == (200, b"")
    await advance(web)
    assert await client.poll() == {"deploymentBase": f"{PUBLIC}/DEFAULT/controller/v1/d1/deploymentBase/1?c=1"}
    assert (await client.call("GET", "/confirmationBase/1")).status_code == 404
    assert await state(web) == (S.OFFERED, "")


async def test_a_user_who_denies_is_asked_again_later_and_not_before(web: Site) -> None:
    client = await asking(web)
    assert (await answer(client, "denied")).status_code == 200
    await advance(web)
    assert await client.poll() == {}
    assert (await client.call("GET", "/confirmationBase/1")).status_code == 404
    assert (await answer(client, "confirmed")).status_code == 200  # nobody asked
    [item] = (await web.ops("GET", "/devices/d1/explain")).json()["rollouts"]
    assert (item["reasons"][0]["code"], item["state"]) == ("deferred", "pending")
    await advance(web, 12 * 3600.0)
    assert "confirmationBase" in await client.poll()


async def test_a_deferral_is_a_day_where_the_plan_allows_more(web: Site) -> None:
    client = await asking(web, consent=ASK | {"longest": "7d"})
    await answer(client, "denied")
    situation = (await web.plant.store.read(lambda tx: tx.situations(["d1"])))["d1"]
    assert situation.wish.deferred_until == int(web.plant.clock() + PUT_OFF_S)


async def test_what_is_refused_for_ever_is_asked_for_ever_and_never_offered(web: Site) -> None:
    client = await asking(web)
    for _ in range(4):
        await answer(client, "denied")
        await advance(web, 12 * 3600.0 + 1)
    assert await state(web) in ((S.PENDING, ""), (S.UNREACHED, "consent"))
    assert "deploymentBase" not in await client.poll()


@pytest.mark.parametrize(
    "plan",
    [{}, {"consent": ASK, "delivery": "push"}, {"consent": ASK, "urgency": "security", "urgent_from": "security"}],
)
async def test_nobody_is_asked_where_nothing_depends_on_it(web: Site, plan: dict[str, Any]) -> None:
    client = await asking(web, **({"consent": {"mode": "not_needed"}} | plan))
    assert "confirmationBase" not in await client.poll()
    assert (await client.call("GET", "/confirmationBase/1")).status_code == 404


async def test_nobody_is_asked_about_what_the_device_may_not_have(web: Site) -> None:
    client = await asking(web)
    assert "confirmationBase" in await client.poll()
    await allow(web, "")
    assert await client.poll() == {}
    assert (await client.call("GET", "/confirmationBase/1")).status_code == 404


async def test_a_stopped_rollout_asks_nobody(web: Site) -> None:
    client = await asking(web)
    assert (await web.ops("POST", "/rollouts/spring/pause", {"reason": "a test"})).status_code == 200
    assert await client.poll() == {}


async def test_polls_with_nothing_to_do_look_for_questions_now_and_then_only(web: Site) -> None:
    await enrol(web, "d1")
    client = Client(web)
    await client.poll()
    web.plant.store.transactions = 0
    for _ in range(3):
        assert await client.poll() == {}
    assert web.plant.store.transactions == 0


async def test_a_user_may_agree_to_everything_and_take_it_back(web: Site) -> None:
    client = await asking(web)
    view = (await client.call("GET", "/confirmationBase")).json()
    assert view["autoConfirm"] == {"active": False}
    links = {"activateAutoConfirm": f"{AT}/activateAutoConfirm", "confirmationBase": f"{AT}/1?c=1"}
    assert {name: link["href"] for name, link in view["_links"].items()} == links
    body = {"initiator": "ann\n", "remark": "trusts us"}
    for content in (json.dumps(body), json.dumps({"initiator": "bob"}), ""):  # said again, it is the first one
        said = await client.call("POST", "/confirmationBase/activateAutoConfirm", content=content)
        assert (said.status_code, said.content) == (200, b"")
    at = int(web.plant.clock() * 1000)
    view = (await client.call("GET", "/confirmationBase")).json()
    assert view["autoConfirm"] == {"active": True, "initiator": "ann", "remark": "trusts us", "activatedAt": at}
    assert list(view["_links"]) == ["deactivateAutoConfirm"]
    await advance(web)
    assert "deploymentBase" in await client.poll()
    for _ in range(2):
        assert (await client.call("POST", "/confirmationBase/deactivateAutoConfirm")).status_code == 200
    assert (await client.call("GET", "/confirmationBase")).json()["autoConfirm"] == {"active": False}


async def test_an_agreement_to_everything_brings_back_who_was_not_waited_for(web: Site) -> None:
    client = await asking(web)
    await advance(web, 86_400.0)
    assert await state(web) == (S.UNREACHED, "consent")
    assert "confirmationBase" in await client.poll()
    await client.call("POST", "/confirmationBase/activateAutoConfirm")
    await client.poll()
    await advance(web)
    assert "deploymentBase" in await client.poll()


async def test_an_answer_of_or_about_another_device_means_nothing(web: Site) -> None:
    client = await asking(web)
    await enrol(web, "d2")
    other = Client(web, "d2")
    assert (await answer(other, "confirmed")).status_code == 200
    for number in ("7", "0", "2147483648", "9" * 5000, "-1", "abc"):
        assert (await answer(client, "confirmed", number)).status_code == 200
        assert (await client.call("GET", f"/confirmationBase/{number}")).status_code == 404
    assert (await other.call("GET", "/confirmationBase/1")).status_code == 404
    stolen = Client(web, token=f"TargetToken {web.tokens['d2']}")
    for method, path in (
        ("GET", ""),
        ("GET", "/1"),
        ("POST", "/1/feedback"),
        ("POST", "/activateAutoConfirm"),
        ("POST", "/deactivateAutoConfirm"),
    ):
        assert (await stolen.call(method, f"/confirmationBase{path}")).status_code == 401
    await advance(web)
    assert "confirmationBase" in await client.poll()


async def test_a_body_that_is_none_is_refused(web: Site) -> None:
    client = await asking(web)
    for body in (b"", b"[]", b"{}", b'{"confirmation":"perhaps"}', b'{"confirmation":null}', b"[" * 50_000):
        answered = await client.call("POST", "/confirmationBase/1/feedback", content=body)
        assert problem(answered) == (400, "malformed")
    for body in (b"[]", b'{"initiator":7}'):
        answered = await client.call("POST", "/confirmationBase/activateAutoConfirm", content=body)
        assert problem(answered) == (400, "malformed")
    large = json.dumps({"remark": "x" * 70_000})
    answered = await client.call("POST", "/confirmationBase/activateAutoConfirm", content=large)
    assert problem(answered) == (400, "oversize")


_BODIES = (
    st.fixed_dictionaries(
        {},
        optional={
            "confirmation": st.sampled_from(["confirmed", "denied", "CONFIRMED", 1, None]),
            "initiator": st.text() | st.none() | st.integers(),
            "remark": st.text(max_size=2000) | st.none(),
            "extra": st.lists(st.integers()),
        },
    )
    .map(json.dumps)
    .map(str.encode)
)


@settings(max_examples=200, deadline=None)
@given(body=_BODIES | st.binary(max_size=200))
def test_any_body_is_an_answer_or_refused(body: bytes) -> None:
    with contextlib.suppress(PayloadError):
        assert ddi_feedback.decode_confirmation(body) in (True, False)
    with contextlib.suppress(PayloadError):
        said = ddi_feedback.decode_standing(body)
        assert len(said.initiator) <= 64
        assert len(said.remark) <= 512
        assert not any(ord(character) < 32 for character in said.initiator + said.remark)
