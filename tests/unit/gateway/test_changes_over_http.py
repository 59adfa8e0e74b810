"""Changes that wait, replacements that are stopped, and a breaker that is closed: through the door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from navarch_api.errors import ApiError
from navarch_api.v1 import fleet_pb2 as pb
from navarch_api.v1.fleet_pb2_grpc import FleetStub
from navarch_common.guards import hold_key
from navarch_common.model.node import NODE, Cordon, Phase
from navarch_common.model.pool import SUPPLY, Breaker, Change, Guard, SupplyRecord
from navarch_common.model.wish import CHANGE_WISH, POOL_WISH, Answer, ChangeWish
from navarch_gateway.rpc.server import serve_grpc
from support import gateway_world
from support.gateway_world import START, GatewayWorld, node

WAITING = Change(id="c-0123456789", act="replace", node="n3", text="replace n3: Xid 79", since=START)
CONFIG = gateway_world.CONFIG.replace("max_nodes: 5}", "max_nodes: 5, automation: approve}")


@pytest.fixture
async def gateway(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GatewayWorld]:
    """Pool `training` waits for approvals, and one change waits."""
    original = gateway_world.make_deps
    monkeypatch.setattr(gateway_world, "make_deps", lambda world: original(world, CONFIG))
    async with gateway_world.gateway_world() as made:
        await supply(made, changes=(WAITING,))
        yield made


async def supply(gateway: GatewayWorld, **fields: Any) -> None:
    await gateway.world.plant((SUPPLY.key("training"), SupplyRecord(pool="training", **fields)))
    await gateway.refresh()


async def test_a_change_that_waits_is_shown_with_its_pool_and_in_the_list(gateway: GatewayWorld) -> None:
    [change] = (await gateway.client.changes()).items
    assert (change.id, change.pool, change.node, change.automation) == (WAITING.id, "training", "n3", "approve")
    shown = await gateway.client.pool("training")
    assert (shown.automation, [one.id for one in shown.changes]) == ("approve", [WAITING.id])


@pytest.mark.parametrize("verb", ["approve", "cancel"])
async def test_a_word_about_a_change_is_a_wish_and_is_told(gateway: GatewayWorld, verb: Any) -> None:
    preview = await gateway.client.preview_change_wish(WAITING.id, verb)
    assert preview.would == f"{verb} {WAITING.id}: replace n3: Xid 79"
    accepted = await gateway.client.wish_change(WAITING.id, verb, reason="go", request_id="r1")
    assert (await gateway.client.wish_change(WAITING.id, verb, request_id="r1")).repeated
    stored = (await gateway.world.found(CHANGE_WISH.key(WAITING.id))).record
    assert isinstance(stored, ChangeWish)
    assert (stored.pool, stored.node, stored.wish.verb, stored.wish.actor) == ("training", "", verb, "operator:ada")
    [event] = await gateway.world.events("operator.action")
    assert (event.id, event.code) == (accepted.event_id, verb)
    assert "replace n3: Xid 79" in event.reason
    assert (await gateway.client.pool_wish("training", "r1")).state == "open", "also before the lists are read again"
    await gateway.refresh()
    said = Answer(at=START, outcome="done", code="approved", reason="as wished")
    await supply(gateway, changes=(), answers={"r1": said})
    assert (await gateway.client.pool_wish("training", "r1")).state == "answered"
    await gateway.service._prune()
    assert await gateway.world.store.get(CHANGE_WISH.key(WAITING.id)) is None


async def test_a_word_that_nobody_answered_is_forgotten_when_it_has_run_out(gateway: GatewayWorld) -> None:
    await gateway.client.wish_change(WAITING.id, "approve")
    await gateway.refresh()
    await gateway.service._prune()
    assert await gateway.world.store.get(CHANGE_WISH.key(WAITING.id)) is not None
    gateway.world.clock.advance(timedelta(hours=3))
    await gateway.refresh()
    await gateway.service._prune()
    assert await gateway.world.store.get(CHANGE_WISH.key(WAITING.id)) is None


@pytest.mark.parametrize(
    ("name", "verb", "status", "code"),
    [
        pytest.param("c-9999999999", "approve", 404, "not-found", id="a change that is not there"),
        pytest.param("n1", "approve", 409, "not-waiting", id="a node is approved by the change's id"),
        pytest.param("n1", "cancel", 409, "not-replacing", id="a node that nobody replaces"),
        pytest.param("C-1", "approve", 400, "bad-id", id="what is no id"),
        pytest.param("c-0123456789", "wave", 422, "bad-field", id="another verb"),
    ],
)
async def test_a_word_that_makes_no_sense_is_refused(
    gateway: GatewayWorld, name: str, verb: str, status: int, code: str
) -> None:
    problem = await gateway.refused("POST", f"/changes/{name}/wishes", json={"verb": verb})
    assert (problem["status"], problem["code"]) == (status, code), problem


async def test_what_is_only_observed_waits_for_nobodys_word(gateway: GatewayWorld) -> None:
    await gateway.world.plant(
        (SUPPLY.key("burst"), SupplyRecord(pool="burst", changes=(Change(id="c-b", act="plan", text="launch 1 node"),)))
    )
    await gateway.refresh()
    with pytest.raises(ApiError, match="automation of burst is 'act'") as caught:
        await gateway.client.wish_change("c-b", "approve")
    assert caught.value.code == "not-waiting"


async def test_a_cancelled_replacement_holds_its_node_until_it_is_released(gateway: GatewayWorld) -> None:
    cordons = {"health": Cordon(reason="GPU 3 fell off the bus", at=START)}
    draining = node("n3", phase=Phase.DRAINING, replaced_by="n4", cordons=cordons)
    await gateway.world.plant((NODE.key("n3"), draining))
    await gateway.refresh()
    accepted = await gateway.client.wish_change("n3", "cancel", reason="under warranty")
    assert accepted.node == "n3"
    hold = (await gateway.world.found(hold_key(node="n3"))).record
    assert isinstance(hold, Guard)
    assert (hold.active, hold.until, hold.reason) == (True, None, "under warranty")
    stored = (await gateway.world.found(CHANGE_WISH.key("n3"))).record
    assert isinstance(stored, ChangeWish)
    assert stored.node == "n3"


# --- the breaker ---

OPEN = Breaker(since=START, code="too-many-unhealthy", reason="3 of 5 nodes are unhealthy", retry_at=START)


async def test_an_open_breaker_is_shown_and_explained(gateway: GatewayWorld) -> None:
    await supply(gateway, breaker=OPEN, failed_starts=2)
    shown = await gateway.client.pool("training")
    assert shown.supply is not None
    assert shown.supply.breaker is not None
    assert (shown.supply.breaker.code, shown.supply.failed_starts) == ("too-many-unhealthy", 2)
    assert shown.reason == "the breaker is open: 3 of 5 nodes are unhealthy"
    blocked = (await gateway.client.explain_pool("training")).blocked
    assert blocked is not None
    assert (blocked.code, "navarch pool close-breaker training" in blocked.text) == ("breaker-open", True)


async def test_an_operator_may_close_a_breaker_that_is_open(gateway: GatewayWorld) -> None:
    with pytest.raises(ApiError, match="the breaker of training is closed") as caught:
        await gateway.client.wish_pool("training", "close-breaker")
    assert caught.value.code == "breaker-closed"
    await supply(gateway, breaker=OPEN)
    assert "3 of 5 nodes" in (await gateway.client.preview_pool_wish("training", "close-breaker")).would
    accepted = await gateway.client.wish_pool("training", "close-breaker", request_id="r1", reason="it was the policy")
    assert (await gateway.client.wish_pool("training", "close-breaker", request_id="r1")).repeated
    assert accepted.verb == "close-breaker"
    assert (await gateway.client.pool_wish("training", "r1")).state == "open"
    said = Answer(at=START, outcome="done", code="closed-by-operator", reason="closed")
    await supply(gateway, answers={"r1": said})
    state = await gateway.client.pool_wish("training", "r1")
    assert (state.state, state.answer and state.answer.code) == ("answered", "closed-by-operator")
    await gateway.service._prune()
    assert await gateway.world.store.get(POOL_WISH.key("training", "close-breaker")) is None


async def test_changes_over_grpc_are_the_same(gateway: GatewayWorld) -> None:
    await supply(gateway, changes=(WAITING,), breaker=OPEN, limits={"limits.nodes": START})
    async with (
        serve_grpc(gateway.service.fleet, "127.0.0.1", 0) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        fleet: Any = FleetStub(channel)
        listed = await fleet.ListChanges(pb.ListChangesRequest(), timeout=5)
        assert [one.id for one in listed.items] == [WAITING.id]
        request = pb.MakeChangeWishRequest(change=WAITING.id, verb="approve")
        assert (await fleet.MakeChangeWish(request, timeout=5)).verb == "approve"
        status = await fleet.GetPool(pb.GetPoolRequest(pool="training"), timeout=5)
        assert (status.supply.breaker.code, [limit.key for limit in status.supply.limits]) == (
            "too-many-unhealthy",
            ["limits.nodes"],
        )
