"""`limits:` of the fleet, of a provider and of a pool: each holds for what it names, and is told once while it lasts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec import structs

from fixtures.world import World
from navarch_common.config.load import load_text
from navarch_common.events.kinds import LimitReached
from navarch_common.model.node import Cordon, Drain, Phase, ProviderState
from navarch_common.model.pool import SUPPLY, SupplyRecord
from navarch_provisioner import limits
from navarch_provisioner.plan import plan
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.steps import Plan
from navarch_provisioner.view import NodeView, PoolView
from support.provisioner_pools import at, idle, instance, node, pool, wish
from support.provisioner_world import CONFIG, POOL_NAME, Rig

NOW = at(100)
SCOPES = {"limits": "fleet", "providers.cloud.limits": "provider/cloud", "pools.training.limits": "pool/training"}


def limited(view: PoolView, path: str, more: str = "", **values: float) -> PoolView:
    """The same pool where the limits at `path` are these."""
    said = "{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"
    fleet = f"limits: {said}" if path == "limits" else ""
    provider = f", limits: {said}" if path.startswith("providers") else ""
    own = f", limits: {said}" if path.startswith("pools") else ""
    text = f"""
{fleet}
providers: {{cloud: {{type: fake{provider}}}, other: {{type: fake}}}}
pools:
  training: {{provider: cloud, instance_type: h100-8x, min_nodes: 1, max_nodes: 20{own}{more}}}
"""
    settings = ProvisionerSettings.of(load_text(text, "navarch.yaml", {}).config, nats_url="nats://here")
    return replace(view, settings=settings, config=settings.pools["training"])


def holding(view: PoolView, *names: str, what: str) -> PoolView:
    """Every bucket of one kind is held by these; machines that hold dollars cost what they cost."""
    spent = {f"{what}/{name}": frozenset(names) for name in SCOPES.values()}
    prices = {
        name: (one.record.instance.price_per_hour or 0.0) if one.record.instance else None
        for name, one in view.nodes.items()
    }
    return replace(view, spent={**view.spent, **spent}, prices={**prices, **view.prices})


def acts(planned: Plan) -> list[str]:
    return [step.act for step in planned.steps if step.act not in ("note", "count")]


def reached(planned: Plan) -> set[str]:
    return {block.why.limit for block in planned.blocked if block.why.limit}


def two() -> tuple[NodeView, NodeView]:
    return node("a"), node("b")


@pytest.mark.parametrize("path", SCOPES)
@pytest.mark.parametrize(
    ("key", "limit", "what", "planned"),
    [
        pytest.param("nodes", 2, "nodes", 0, id="no machine more than nodes"),
        pytest.param("nodes", 3, "nodes", 1, id="as many machines as nodes"),
        pytest.param("launches_per_hour", 2, "launches", 0, id="no launch more than launches_per_hour"),
        pytest.param("launches_per_hour", 4, "launches", 2, id="as many launches as launches_per_hour"),
        pytest.param("dollars_per_hour", 5.9, "dollars", 0, id="no machine that money is not left for"),
        pytest.param("dollars_per_hour", 6, "dollars", 1, id="one machine for the money that is left"),
        pytest.param("dollars_per_hour", 9, "dollars", 2, id="two machines for the money that is left"),
        pytest.param("dollars_per_hour", 0, "dollars", 0, id="no money at all"),
    ],
)
def test_no_more_is_launched_than_a_limit_allows(path: str, key: str, limit: float, what: str, planned: int) -> None:
    view = holding(limited(pool(*two(), desired=5), path, **{key: limit}), "a", "b", what=what)
    found = plan(view, NOW)
    assert acts(found) == ["plan"] * planned
    if planned == 0:
        assert reached(found) == {f"{path}.{key}"}


@pytest.mark.parametrize("path", SCOPES)
def test_a_launch_takes_its_place_in_the_commit_that_begins_it(path: str) -> None:
    view = limited(
        pool(node("a"), node("n", Phase.PLANNED)), path, nodes=9, launches_per_hour=8, dollars_per_hour=10
    )  # fmt: skip
    view = holding(holding(view, "a", what="nodes"), "a", what="dollars")
    [step] = [step for step in plan(view, NOW).steps if step.act == "launch"]
    name = SCOPES[path]
    assert {(place.bucket, place.holder, place.limit, place.window) for place in step.spend} == {
        (f"nodes/{name}", "n", 9, None),
        (f"launches/{name}", "n", 8, timedelta(hours=1)),
        (f"dollars/{name}", "n", 5, None),  # one is there for $2, and four more may be
    }


def test_intents_that_wait_count_before_new_ones_are_made() -> None:
    view = limited(pool(node("a"), node("n", Phase.PLANNED), desired=5, in_flight=frozenset({"n"})), "limits", nodes=2)
    found = plan(holding(view, "a", what="nodes"), NOW)
    assert acts(found) == []
    assert reached(found) == {"limits.nodes"}


def test_two_launches_of_one_pass_do_not_take_one_place() -> None:
    view = limited(pool(node("a"), node("n", Phase.PLANNED), node("m", Phase.PLANNED)), "limits", nodes=2)
    found = plan(holding(view, "a", what="nodes"), NOW)
    assert acts(found) == ["launch"]


def test_a_price_that_nobody_told_yet_is_learned_from_one_machine_at_a_time() -> None:
    first = limited(pool(desired=3), "limits", dollars_per_hour=100)
    assert acts(plan(first, NOW)) == ["plan"]
    coming = limited(
        pool(node("n", Phase.LAUNCHING), desired=3, in_flight=frozenset({"n"})), "limits", dollars_per_hour=100
    )
    found = plan(holding(coming, "n", what="dollars"), NOW)
    assert acts(found) == []
    assert reached(found) == {"limits.dollars_per_hour"}


def test_a_provider_that_tells_no_price_costs_nothing() -> None:
    free = node("a", instance=instance("a", price_per_hour=None))
    view = limited(pool(free, desired=3), "limits", dollars_per_hour=1)
    assert acts(plan(holding(view, "a", what="dollars"), NOW)) == ["plan", "plan"]


def test_machines_of_other_pools_count_by_their_own_price() -> None:
    view = holding(
        limited(pool(*two(), desired=5), "limits", dollars_per_hour=20), "a", "b", "elsewhere", what="dollars"
    )
    assert acts(plan(replace(view, prices={**view.prices, "elsewhere": 13.0}), NOW)) == ["plan"]


def test_a_machine_gives_its_places_back_when_it_is_gone() -> None:
    ending = node("a", Phase.TERMINATING, instance=instance("a", state=ProviderState.GONE))
    view = limited(pool(ending, desired=0), "limits", nodes=9, dollars_per_hour=9, launches_per_hour=9)
    [step] = [step for step in plan(view, NOW).steps if step.act == "terminated"]
    assert {refund.bucket for refund in step.refund} == {"nodes/fleet", "dollars/fleet"}


def test_places_of_a_node_that_has_ended_are_found_and_given_back() -> None:
    view = limited(pool(node("a"), node("old", Phase.TERMINATED), desired=1), "limits", nodes=9)
    [step] = [step for step in plan(holding(view, "a", "old", what="nodes"), NOW).steps if step.act == "refund"]
    assert [(refund.bucket, refund.holder) for refund in step.refund] == [("nodes/fleet", "old")]


def test_machines_that_were_there_before_the_limit_are_counted_whether_or_not_there_is_room() -> None:
    view = limited(pool(*two()), "limits", nodes=1)
    counted = [step for step in plan(view, NOW).steps if step.act == "count"]
    assert {place.holder for step in counted for place in step.spend} == {"a", "b"}
    assert plan(view, NOW).changes is False


def test_a_failed_node_goes_first_where_the_limit_leaves_no_room_for_one_more() -> None:
    view = holding(limited(pool(node("a", health="failed"), node("b")), "limits", nodes=2), "a", "b", what="nodes")
    [step] = [step for step in plan(view, NOW).steps if step.act == "replace"]
    [new] = [key.name for key in step.put if key.name != "a" and key.family.name == "node"]
    drained = structs.replace(step.put[view.nodes["a"].key].drain, drained_at=at(99))  # type: ignore[attr-defined]
    old = structs.replace(step.put[view.nodes["a"].key], drain=drained)
    after = replace(
        view,
        nodes={
            "a": replace(view.nodes["a"], record=old),  # type: ignore[arg-type]
            "b": view.nodes["b"],
            new: node(new, Phase.PLANNED, replaces="a"),
        },
    )
    found = plan(after, NOW)
    assert [(one.act, one.node) for one in found.steps if one.act in ("launch", "terminate")] == [("terminate", "a")]
    [ending] = [one for one in found.steps if one.act == "terminate"]
    assert "limits.nodes is 2" in ending.why.text


def test_an_operators_replacement_waits_where_the_limit_leaves_no_room_for_one_more() -> None:
    view = limited(pool(node("a", wish=wish("replace")), node("b")), "limits", nodes=2)
    found = plan(holding(view, "a", "b", what="nodes"), NOW)
    assert acts(found) == []
    assert reached(found) == {"limits.nodes"}


@pytest.mark.parametrize("path", SCOPES)
def test_no_more_is_replaced_in_an_hour_than_a_limit_allows(path: str) -> None:
    view = limited(pool(node("a", health="failed"), node("b"), node("c")), path, replacements_per_hour=1)
    [step] = [step for step in plan(view, NOW).steps if step.act == "replace"]
    assert f"replacements/{SCOPES[path]}" in {place.bucket for place in step.spend}
    found = plan(holding(view, "other", what="replacements"), NOW)
    assert acts(found) == ["cordon"]
    again = plan(
        holding(
            limited(
                pool(node("a", health="failed", cordons=cordons()), node("b"), node("c")), path, replacements_per_hour=1
            ),
            "other", what="replacements",
        ),
        NOW,
    )  # fmt: skip
    assert reached(again) == {f"{path}.replacements_per_hour"}


def cordons() -> dict[str, Cordon]:
    return {"health": Cordon(reason="fell off", at=at(0))}


def test_a_limit_is_told_once_while_it_lasts_and_again_when_it_comes_back() -> None:
    view = holding(limited(pool(*two(), desired=5), "limits", nodes=2), "a", "b", what="nodes")
    [step] = [step for step in plan(view, NOW).steps if step.emit]
    [event] = step.emit
    assert isinstance(event, LimitReached)
    assert (event.limit, event.code, event.pool) == ("limits.nodes", "limit-reached", POOL_NAME)
    supply = step.put[SUPPLY.key(POOL_NAME)]
    assert isinstance(supply, SupplyRecord)
    told = replace(view, supply=supply)
    assert [one for one in plan(told, NOW).steps if one.emit] == []
    over = replace(told, desired=structs.replace(view.desired, desired=2))  # type: ignore[type-var]
    [cleared] = [one for one in plan(over, NOW).steps if one.act == "note"]
    assert cleared.put[SUPPLY.key(POOL_NAME)].limits == {}  # type: ignore[attr-defined]


def floored(view: PoolView, min_nodes: int) -> PoolView:
    assert view.config is not None
    return replace(view, config=structs.replace(view.config, min_nodes=min_nodes))


@pytest.mark.parametrize(
    ("other", "drained", "waits"),
    [
        pytest.param("silent", [], "floor", id="it stays while too few usable nodes would be left"),
        pytest.param("healthy", ["a"], "", id="it goes when enough are left"),
    ],
)
def test_a_healthy_node_that_an_operator_replaces_never_takes_the_pool_below_its_floor(
    other: str, drained: list[str], waits: str
) -> None:
    view = pool(node("a", replaced_by="n"), node("n", replaces="a"), node("c", health=other), desired=2)
    found = plan(floored(view, 2), NOW)
    assert [step.node for step in found.steps if step.act == "drain"] == drained
    assert next((block.why.code for block in found.blocked if block.node == "a"), "") == waits


def test_scale_down_takes_no_node_that_the_floor_needs() -> None:
    idle_long = idle(99, since=-9999)
    view = pool(node("a", work=idle_long), node("b", work=idle_long), node("c", health="silent"), desired=1)
    assert [step.act for step in plan(floored(view, 2), NOW).steps if step.act == "drain"] == []
    assert [step.act for step in plan(floored(view, 1), NOW).steps if step.act == "drain"] == ["drain"]


def test_a_scale_down_under_way_is_called_off_when_the_floor_needs_the_node() -> None:
    going = Drain(cause="scale-down", actor="provisioner", since=at(0), deadline=at(900))
    view = pool(node("a", Phase.DRAINING, drain=going, work=idle(99)), node("b"), node("c", health="silent"), desired=1)
    assert ("cancel", "a") in [(step.act, step.node) for step in plan(floored(view, 2), NOW).steps]


LIMITED = CONFIG.replace("scale_down:", "limits: {nodes: 3}, scale_down:")


async def test_a_pool_stops_at_its_limit_without_trying_again_and_again(world: World) -> None:
    async with Rig(world, text=LIMITED).running() as rig:
        await rig.desire(5)
        await rig.reach(lambda rs: sum(r.phase is Phase.BOOTING for r in rs) == 3, "three machines")
        await asyncio.sleep(0.3)
        assert len(rig.cloud.made) == 3
        assert len(await rig.nodes()) == 3, "no intent waits for what cannot be"
        last = rig.service._workers[POOL_NAME][0].reconciler.last
        assert last is not None
        assert last.counts["conflicts"] == 0
    [event] = await world.events("cluster.limit-reached")
    assert "pools.training.limits.nodes is 3" in event.reason


async def test_a_place_that_a_machine_gave_back_is_taken_by_the_next(world: World) -> None:
    async with Rig(world, text=LIMITED).running() as rig:
        names = await rig.grow(3)
        await rig.desire(4)
        await rig.wish(names[0], "terminate", force=True)
        await rig.reach(lambda rs: sum(r.phase is Phase.BOOTING for r in rs) == 1, "the next machine")
        assert len(rig.cloud.made) == 4
    assert len(await world.store.holders("nodes/pool/training")) == 3


def test_every_bucket_that_is_spent_is_also_read() -> None:
    view = limited(pool(node("a")), "limits", nodes=1, dollars_per_hour=2, launches_per_hour=3, replacements_per_hour=4)
    assert limits.buckets(view.settings, POOL_NAME) == {
        "nodes/fleet": None, "dollars/fleet": None, "launches/fleet": limits.HOUR, "replacements/fleet": limits.HOUR,
    }  # fmt: skip
