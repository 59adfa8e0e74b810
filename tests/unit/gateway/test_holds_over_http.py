"""Holds and freezes through the door: who may still act, and what is accepted while a server is away."""

from __future__ import annotations

from typing import Any

import pytest

from navarch_api.errors import ApiError
from navarch_common.guarding import Guards
from navarch_common.guards import hold_key
from navarch_common.model.node import NODE, Phase
from navarch_common.model.pool import GUARD
from navarch_common.store.meta import open_meta
from navarch_gateway import guards
from navarch_gateway.asks import HoldAsk
from navarch_gateway.guarded import Guarded
from support.gateway_world import START, GatewayWorld, node


async def keep(gateway: GatewayWorld) -> dict[str, int]:
    """What the gateway does each second."""
    return await gateway.service._guarded.keep()


async def test_a_hold_is_in_the_store_and_on_the_bus_and_told(gateway: GatewayWorld) -> None:
    accepted = await gateway.client.hold("n1", reason="counting fans", for_s=3600)
    assert (accepted.kind, accepted.node, accepted.pool, accepted.active) == ("hold", "n1", "training", True)
    assert (accepted.until - START).total_seconds() == 3600  # type: ignore[operator]
    stored = await gateway.world.found(hold_key(node="n1"))
    assert stored.revision == accepted.revision
    assert (await Guards(gateway.deps).read()).bus == (stored.record,)
    [event] = await gateway.world.events("operator.action")
    assert (event.id, event.code, event.node) == (accepted.event_id, "hold", "n1")
    assert "counting fans" in event.reason


async def test_a_hold_lasts_four_hours_unless_it_is_said(gateway: GatewayWorld) -> None:
    accepted = await gateway.client.hold("training", reason="audit")
    assert (accepted.node, accepted.pool) == (None, "training")
    assert (accepted.until - START).total_seconds() == 4 * 3600  # type: ignore[operator]


@pytest.mark.parametrize("target", ["n1", "training"])
async def test_an_operators_own_terminate_of_what_is_held_is_refused_until_it_is_forced_or_released(
    gateway: GatewayWorld, target: str
) -> None:
    await gateway.client.hold(target, reason="counting fans")
    for verb in ("terminate", "replace"):
        with pytest.raises(ApiError, match=r"is held by operator:ada until .* UTC: counting fans") as caught:
            await gateway.client.wish_node("n1", verb)  # type: ignore[arg-type]
        assert (caught.value.status, caught.value.code) == (409, "held")
    for verb in ("cordon", "drain"):
        await gateway.client.wish_node("n1", verb)  # type: ignore[arg-type]
    await gateway.client.wish_node("n1", "terminate", force=True)
    await gateway.client.release(target, reason="counted")
    await gateway.client.wish_node("n1", "replace")


async def test_a_held_pool_is_not_resized_by_its_operator(gateway: GatewayWorld) -> None:
    await gateway.client.hold("training", reason="audit")
    with pytest.raises(ApiError, match="release it first") as caught:
        await gateway.client.wish_pool("training", "scale", nodes=4)
    assert caught.value.code == "held"
    await gateway.client.wish_pool("burst", "scale", nodes=4)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({"target": "nobody", "reason": "x"}, 404, "not-found", id="a target that is not there"),
        pytest.param({"target": "n5", "reason": "x"}, 409, "terminated", id="a node that has ended"),
        pytest.param({"target": "n1"}, 422, "bad-field", id="no reason"),
        pytest.param({"target": "n1", "reason": "x", "for_s": 0}, 422, "bad-field", id="no time at all"),
        pytest.param({"target": "N 1", "reason": "x"}, 422, "bad-field", id="no id"),
        pytest.param({"target": "n1", "reason": "x", "level": "all"}, 422, "unknown-field", id="a freeze's field"),
    ],
)
async def test_a_hold_that_makes_no_sense_is_refused(
    gateway: GatewayWorld, body: dict[str, Any], status: int, code: str
) -> None:
    problem = await gateway.refused("POST", "/hold", json=body)
    assert (problem["status"], problem["code"]) == (status, code), problem


async def test_a_node_that_is_being_terminated_cannot_be_held(gateway: GatewayWorld) -> None:
    await gateway.world.plant((NODE.key("n1"), node("n1", phase=Phase.TERMINATING)))
    await gateway.refresh()
    with pytest.raises(ApiError, match="never taken back"):
        await gateway.client.hold("n1", reason="too late")


async def test_a_release_of_what_is_not_held_says_what_is(gateway: GatewayWorld) -> None:
    await gateway.client.hold("n1", reason="audit")
    with pytest.raises(ApiError, match="n2 is not held by itself; held: n1") as caught:
        await gateway.client.release("n2")
    assert caught.value.code == "not-held"


async def test_holds_are_shown_with_the_pool_the_cluster_and_the_node(gateway: GatewayWorld) -> None:
    await gateway.client.hold("n1", reason="fans")
    await gateway.client.hold("burst", reason="audit")
    await gateway.refresh()
    assert [guard.name for guard in (await gateway.client.pool("training")).guards] == ["hold/node/n1"]
    assert [(pool.pool, pool.held, pool.frozen) for pool in (await gateway.client.pools()).items] == [
        ("burst", True, False), ("training", False, False),
    ]  # fmt: skip
    assert {guard.name for guard in (await gateway.client.status()).guards} == {"hold/node/n1", "hold/pool/burst"}
    blocked = (await gateway.client.explain_node("n1")).blocked
    assert blocked is not None
    assert (blocked.code, blocked.text.startswith("n1 is held by operator:ada until")) == ("held", True)


async def test_a_freeze_is_accepted_while_the_store_is_away_and_written_there_when_it_is_back(
    gateway: GatewayWorld,
) -> None:
    gateway.world.store.unavailable = True
    accepted = await gateway.client.freeze(reason="smoke")
    assert (accepted.event_id, accepted.number) == ("", 1)
    assert (await Guards(gateway.deps).read()).guards[0].reason == "smoke"
    gateway.world.store.unavailable = False
    assert await gateway.world.store.get(GUARD.key("freeze")) is None
    assert await keep(gateway) == {"guards": 1, "restored": 1}
    stored = await gateway.world.found(GUARD.key("freeze"))
    assert stored.record.reason == "smoke"  # type: ignore[attr-defined]
    [event] = await gateway.world.events("cluster.frozen")
    assert "written again" in event.reason
    assert await keep(gateway) == {"guards": 1, "restored": 0}


async def test_a_freeze_is_accepted_while_the_bus_is_away_and_told_there_when_it_is_back(gateway: GatewayWorld) -> None:
    gateway.world.bus.lose_connection()
    accepted = await gateway.client.freeze(reason="smoke")
    assert accepted.revision > 0
    gateway.world.bus.restore_connection()
    assert (await Guards(gateway.deps).read()).bus == ()
    await keep(gateway)
    assert [guard.reason for guard in (await Guards(gateway.deps).read()).bus or ()] == ["smoke"]


async def test_while_both_are_away_nothing_is_accepted_and_it_is_said_that_all_is_frozen(gateway: GatewayWorld) -> None:
    gateway.world.store.unavailable = True
    gateway.world.bus.lose_connection()
    with pytest.raises(ApiError, match="everything is frozen already") as caught:
        await gateway.client.freeze(reason="smoke")
    assert caught.value.status == 503


async def test_a_store_that_was_lost_has_its_guards_again_and_an_unfreeze_stays_one(gateway: GatewayWorld) -> None:
    world = gateway.world
    await gateway.client.freeze(reason="smoke", pool="training")
    await gateway.client.freeze(reason="fire")
    await gateway.client.unfreeze(reason="out")
    await gateway.client.hold("n1", reason="fans")
    world.store.server.lose_everything()
    world.store.bind("")
    await open_meta(
        world.store, world.bus, world.clock, world.rng, cluster=world.cluster, installation="installation",
        subjects=world.subjects,
    )  # fmt: skip
    assert (await keep(gateway))["restored"] == 3
    found = {one.record.name: one.record.active for one in await world.store.records(GUARD)}
    assert found == {"freeze": False, "freeze/training": True, "hold/node/n1": True}
    fresh = await gateway.client.freeze(reason="again")
    assert fresh.number == 5


async def test_two_gateways_that_change_guards_at_once_give_out_different_numbers(gateway: GatewayWorld) -> None:
    other = Guarded(gateway.deps)
    original = other._guards.read
    raced: list[int] = []

    async def read_then_be_overtaken(keys: Any = None) -> Any:
        reading = await original(keys)
        if not raced:
            raced.append((await gateway.client.freeze(reason="quick")).number)
        return reading

    other._guards.read = read_then_be_overtaken  # type: ignore[method-assign]
    mine = await other.change(_hold)
    assert (raced, mine.number) == ([1], 2)


def _hold(known: Any, now: Any) -> Any:
    return guards.hold(known, HoldAsk(target="n1", reason="slow"), "operator:bob", now, pool="training", node="n1")


async def test_more_holds_than_one_message_carries_are_refused(
    gateway: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navarch_gateway.guards.HOLDS_MAX", 1)
    await gateway.client.hold("n1", reason="one")
    with pytest.raises(ApiError, match="hold the pools instead") as caught:
        await gateway.client.hold("n2", reason="two")
    assert caught.value.status == 429
