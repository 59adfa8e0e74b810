"""The breaker: opens when so much fails that it cannot be the machines' fault, and is closed by a canary's success."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from fixtures.world import World
from navarch_common.events.kinds import PoolBreakerClosed, PoolBreakerOpened
from navarch_common.model.node import NODE, Cordon, Drain, NodeRecord, Phase, ProviderState
from navarch_common.model.pool import SUPPLY, Breaker, SupplyRecord
from navarch_common.model.wish import POOL_WISH, PoolWish, Wish
from navarch_provisioner.breaker import STARTS, UNHEALTHY
from navarch_provisioner.plan import plan
from navarch_provisioner.steps import Plan, Step
from navarch_provisioner.view import NodeView, PoolView
from support.provisioner_pools import POOL, at, idle, instance, judged, node, pool, registration, wish
from support.provisioner_world import CONFIG, QUICK, Rig

NOW = at(1000)
CORDONED = {"health": Cordon(reason="fell off", at=at(0))}


def broken(name: str, **fields: Any) -> NodeView:
    return node(name, health="failed", **{"cordons": CORDONED, **fields})


def opened(code: str = UNHEALTHY, *, retry_at: float = 2000, **fields: Any) -> SupplyRecord:
    return SupplyRecord(
        pool=POOL, breaker=Breaker(since=at(0), code=code, reason="so much failed", retry_at=at(retry_at), **fields)
    )


def acts(planned: Plan) -> list[tuple[str, str]]:
    return [(step.act, step.node) for step in planned.steps if step.act not in ("note", "configure")]


def waits(planned: Plan) -> dict[str, str]:
    return {block.node: block.why.code for block in planned.blocked}


def supply_of(step: Step) -> SupplyRecord:
    record = step.put[SUPPLY.key(POOL)]
    assert isinstance(record, SupplyRecord)
    return record


def five(*failed: str, **fields: Any) -> PoolView:
    names = ("a", "b", "c", "d", "e")
    return pool(*(broken(n) if n in failed else node(n, work=idle(999)) for n in names), **fields)


def test_more_unhealthy_nodes_than_max_unhealthy_open_it_and_tell_so() -> None:
    [step] = plan(five("a", "b", "c"), NOW).steps
    assert step.act == "breaker"
    [event] = step.emit
    assert isinstance(event, PoolBreakerOpened)
    assert (event.unhealthy, event.code) == (3, UNHEALTHY)
    assert "3 of 5 nodes are unhealthy, disruption.max_unhealthy is 2: a, b, c" in event.reason
    breaker = supply_of(step).breaker
    assert breaker is not None
    assert breaker.retry_at == NOW + timedelta(minutes=5)


COUNTED: list[tuple[str, PoolView]] = [
    ("as many as max_unhealthy", five("a", "b")),
    ("machines that their provider says are gone", pool(
        *(broken(n, instance=instance(n, state=ProviderState.GONE)) for n in ("a", "b", "c")), node("d"), node("e"))),
    ("silence", pool(*(node(n, health="silent") for n in ("a", "b", "c")), node("d"), node("e"))),
    ("a higher max_unhealthy", five("a", "b", "c", extra="disruption: {max_unhealthy: 60%}")),
    ("failures from before it was last closed", five(
        "a", "b", "c", supply=SupplyRecord(pool=POOL, breaker_closed_at=at(500)))),
    ("new machines that fail before they take work", pool(
        *(node(n, Phase.VALIDATING, health="failed") for n in ("a", "b", "c")), node("d"), node("e"))),
]  # fmt: skip


@pytest.mark.parametrize("view", [row[1] for row in COUNTED], ids=[row[0] for row in COUNTED])
def test_what_does_not_open_it(view: PoolView) -> None:
    assert "breaker" not in [act for act, _ in acts(plan(view, NOW))]


def draining(name: str, cause: str, **fields: Any) -> NodeView:
    progress = Drain(cause=cause, actor="health", since=at(0), deadline=at(9000), drained_at=at(10))
    health = "failed" if cause == "fault" else "healthy"
    return node(name, Phase.DRAINING, drain=progress, work=idle(999), health=health, **fields)


STOPPED: list[tuple[str, PoolView, list[str], dict[str, str]]] = [
    ("no failed node is replaced", five("a", "b", "c", supply=opened()), [], {"a": "breaker-open", "b": "breaker-open"}),
    ("a failed node is still cordoned",
     pool(node("a", health="failed"), broken("b"), broken("c"), supply=opened()), ["cordon"], {}),
    ("a drained node is not ended", pool(draining("a", "fault", replaced_by="n"), node("n", replaces="a"), broken("c"),
     broken("d"), broken("e"), desired=4, supply=opened()), [], {"a": "breaker-open"}),
    ("nobody is scaled down",
     pool(node("a", work=idle(999, since=-9999)), broken("b"), broken("c"), broken("d"), desired=1, supply=opened()),
     [], {"": "breaker-open"}),
    ("what is missing is launched", five("a", "b", "c", desired=6, supply=opened()), ["plan"], {}),
    ("a machine that is gone is refilled", pool(
        broken("a", instance=instance("a", state=ProviderState.GONE)), broken("b"), broken("c"), broken("d"),
        supply=opened()), ["replace"], {"b": "breaker-open"}),
    ("a new machine that is broken goes back", pool(
        node("n", Phase.VALIDATING, health="failed"), broken("b"), broken("c"), broken("d"), supply=opened()),
     ["terminate"], {}),
    ("what an operator asks for is done", pool(
        node("a", wish=wish("replace")), broken("b"), broken("c"), broken("d"), supply=opened()), ["replace"], {}),
    ("what an operator asked for goes on", pool(
        draining("a", "replace", replaced_by="n", replacement_reason="ann asked"), node("n", replaces="a"), broken("b"),
        broken("c"), broken("d"), desired=4, supply=opened()), ["terminate"], {}),
    ("a node that an operator terminates goes", pool(
        node("a", wish=wish("terminate", force=True)), broken("b"), broken("c"), broken("d"), supply=opened()),
     ["terminate"], {}),
]  # fmt: skip


@pytest.mark.parametrize(("view", "expected", "blocked"), [row[1:] for row in STOPPED], ids=[row[0] for row in STOPPED])
def test_open_it_stops_what_automation_destroys_and_nothing_else(
    view: PoolView, expected: list[str], blocked: dict[str, str]
) -> None:
    found = plan(view, NOW)
    assert [act for act, _ in acts(found) if act != "plan" or "plan" in expected][: len(expected) + 1] == expected
    assert blocked.items() <= waits(found).items()


def test_after_the_pause_exactly_one_replacement_is_let_through() -> None:
    found = plan(five("a", "b", "c", supply=opened(retry_at=999)), NOW)
    [step] = [step for step in found.steps if step.act == "replace"]
    breaker = supply_of(step).breaker
    assert breaker is not None
    assert (breaker.canary in [key.name for key in step.put], breaker.tries) == (True, 1)
    assert breaker.retry_at == NOW + timedelta(minutes=10)
    assert waits(found)["b"] == waits(found)["c"] == "breaker-open"


def test_while_the_canary_is_on_its_way_no_other_is_let_through() -> None:
    supply = opened(retry_at=0, canary="n", tries=1)
    view = pool(draining("a", "fault", replaced_by="n"), node("n", Phase.BOOTING, replaces="a", born=900), broken("b"), broken("c"),
                broken("d"), desired=4, supply=supply)  # fmt: skip
    found = plan(view, NOW)
    assert [act for act, _ in acts(found)] == []
    assert waits(found)["b"] == "breaker-open"
    assert "its canary n is booting" in next(block.why.text for block in found.blocked if block.node == "b")


def test_without_surge_what_the_canary_replaces_goes_first() -> None:
    supply = opened(canary="n", tries=1)
    view = pool(draining("a", "fault", replaced_by="n"), node("n", Phase.PLANNED, replaces="a"), broken("b"), broken("c"),
                broken("d"), desired=4, supply=supply, extra="surge: {enabled: false}")  # fmt: skip
    assert ("terminate", "a") in acts(plan(view, NOW))


def both_begun(**supply: Any) -> PoolView:
    """Two replacements that were planned before it opened, and wait for what they replace."""
    return pool(
        draining("a", "fault", replaced_by="n"), node("n", Phase.PLANNED, replaces="a"),
        draining("b", "fault", replaced_by="m"), node("m", Phase.PLANNED, replaces="b"), broken("c"), broken("d"),
        desired=4, supply=opened(**supply), replacing=frozenset("ab"), extra="surge: {enabled: false}",
    )  # fmt: skip


def test_without_surge_a_replacement_that_was_begun_before_is_let_through_in_its_turn() -> None:
    found = plan(both_begun(retry_at=999), NOW)
    [step] = [step for step in found.steps if step.act == "terminate"]
    turn = supply_of(step).breaker
    assert turn is not None
    assert (step.node, turn.canary, turn.retry_at > NOW) == ("a", "n", True)
    assert step.expect[SUPPLY.key(POOL)] == 1
    assert waits(found)["b"] == "breaker-open"


def test_without_surge_a_replacement_that_was_begun_before_waits_for_its_turn() -> None:
    found = plan(both_begun(), NOW)
    assert not [step for step in found.steps if step.act == "terminate"]
    assert waits(found)["a"] == waits(found)["b"] == "breaker-open"


def test_of_those_that_were_replaced_before_it_opened_one_goes_in_each_turn() -> None:
    """Else they would be paid for, and keep it open, for ever. Found by the simulator (seed 10962)."""

    def view(retry_at: float) -> PoolView:
        return pool(
            draining("a", "fault", replaced_by="n"), node("n", replaces="a"),
            draining("b", "fault", replaced_by="m"), node("m", replaces="b"),
            draining("c", "fault", replaced_by="o"), node("o", replaces="c"),
            desired=3, supply=opened(retry_at=retry_at), replacing=frozenset("abc"),
        )  # fmt: skip

    found = plan(view(retry_at=999), NOW)
    [step] = [step for step in found.steps if step.act == "terminate"]
    turn = supply_of(step).breaker
    assert turn is not None
    assert (step.node, turn.canary, turn.retry_at > NOW) == ("a", "a", True)
    assert waits(found)["b"] == waits(found)["c"] == "breaker-open"
    assert waits(plan(view(retry_at=2000), NOW))["a"] == "breaker-open"


def test_a_node_that_once_took_anothers_place_is_stopped_like_any_other() -> None:
    """Why it came is no reason why it should go. Found by the simulator (seed 9)."""
    new = node(
        "n", Phase.VALIDATING, replaces="x", replacement_reason="x fell off", health="healthy",
        registration=registration(),
    )  # fmt: skip
    [step] = [step for step in plan(pool(new), NOW).steps if step.act == "activate"]
    came = step.put[NODE.key("n")]
    assert isinstance(came, NodeRecord)
    going = draining("n", "fault", replaced_by="m", replacement_reason=came.replacement_reason)
    view = pool(going, node("m", replaces="n"), broken("b"), broken("c"), broken("d"), desired=4, supply=opened())
    assert waits(plan(view, NOW))["n"] == "breaker-open"


def test_of_failed_nodes_that_nobody_needs_one_goes_in_each_turn() -> None:
    view = five("a", "b", "c", desired=2, supply=opened(retry_at=999))
    [step] = [step for step in plan(view, NOW).steps if step.act == "retire"]
    turn = supply_of(step).breaker
    assert turn is not None
    assert (turn.canary, turn.retry_at > NOW) == (step.node, True)


def test_one_that_goes_without_a_replacement_is_ended_before_the_next_one_goes() -> None:
    going = broken(
        "a", phase=Phase.DRAINING,
        drain=Drain(cause="fault", actor="health", since=at(0), deadline=at(5000), drained_at=at(10)),
    )  # fmt: skip
    view = pool(
        going, broken("b"), broken("c"), node("d"), node("e"), desired=2, supply=opened(retry_at=999, canary="a"),
        replacing=frozenset({"a"}),
    )  # fmt: skip
    assert [(act, name) for act, name in acts(plan(view, NOW)) if act in ("retire", "terminate")] == [
        ("terminate", "a")
    ]


def test_one_that_was_to_go_without_a_replacement_before_it_opened_goes_in_its_turn() -> None:
    """Else it would hold its place in the budget for ever. Found by the simulator (seed 1954)."""
    going = broken(
        "a", phase=Phase.DRAINING,
        drain=Drain(cause="fault", actor="health", since=at(0), deadline=at(5000), drained_at=at(10)),
    )  # fmt: skip
    rest = (broken("b"), broken("c"), node("d"), node("e"))
    [step] = [
        step for step in plan(pool(going, *rest, desired=2, supply=opened(retry_at=999)), NOW).steps
        if step.act in ("retire", "terminate")
    ]  # fmt: skip
    turn = supply_of(step).breaker
    assert turn is not None
    assert (step.act, step.node, turn.canary) == ("terminate", "a", "a")
    assert waits(plan(pool(going, *rest, desired=2, supply=opened()), NOW))["a"] == "breaker-open"


def test_a_canary_that_becomes_usable_closes_it_and_the_others_follow() -> None:
    supply = opened(canary="n", tries=1)
    new = node("n", Phase.VALIDATING, replaces="a", health="healthy", registration=registration())
    view = pool(draining("a", "fault", replaced_by="n"), new, broken("b"), broken("c"), broken("d"), desired=4,
                supply=supply)  # fmt: skip
    [step] = [step for step in plan(view, NOW).steps if step.act == "activate"]
    assert [event.KIND for event in step.emit] == ["node.active", "pool.breaker-closed"]
    assert supply_of(step).breaker is None
    closed = replace(view, supply=supply_of(step))
    later = [step.act for step in plan(closed, NOW).steps]
    assert "replace" in later
    assert "breaker" not in later


def test_another_node_that_becomes_usable_does_not_close_it() -> None:
    new = node("n", Phase.VALIDATING, health="healthy", registration=registration())
    view = pool(new, broken("b"), broken("c"), broken("d"), supply=opened(canary="x"))
    [step] = [step for step in plan(view, NOW).steps if step.act == "activate"]
    assert [event.KIND for event in step.emit] == ["node.active"]


def test_a_canary_that_fails_makes_the_next_one_wait_longer() -> None:
    supply = opened(STARTS, canary="n", tries=2)
    view = pool(node("n", Phase.VALIDATING, health="failed"), node("b"), supply=supply)
    [step] = [step for step in plan(view, NOW).steps if step.act == "terminate"]
    breaker = supply_of(step).breaker
    assert breaker is not None
    assert (breaker.canary, breaker.retry_at) == ("", NOW + timedelta(minutes=20))


def test_it_closes_when_the_nodes_are_well_again() -> None:
    [step] = plan(five("a", supply=opened()), NOW).steps
    [event] = step.emit
    assert isinstance(event, PoolBreakerClosed)
    assert event.code == "well-again"


# --- new machines that fail ---


@pytest.mark.parametrize("failed_before", [0, 1, 2])
def test_three_machines_in_a_row_that_came_to_nothing_open_it(failed_before: int) -> None:
    supply = SupplyRecord(pool=POOL, failed_starts=failed_before)
    view = pool(node("n", Phase.VALIDATING, health="failed"), node("b"), supply=supply)
    [step] = [step for step in plan(view, NOW).steps if step.act == "terminate"]
    after = supply_of(step)
    assert after.failed_starts == failed_before + 1
    assert (after.breaker is not None) is (failed_before == 2)
    assert ("pool.breaker-opened" in [event.KIND for event in step.emit]) is (failed_before == 2)


def test_machines_that_their_provider_takes_away_before_they_are_usable_open_it_never() -> None:
    taken = node("n", Phase.BOOTING, born=990, instance=instance("n", state=ProviderState.GONE))
    view = pool(taken, node("b"), supply=SupplyRecord(pool=POOL, failed_starts=2))
    [step] = [step for step in plan(view, NOW).steps if step.act == "terminated"]
    assert (supply_of(step).failed_starts, supply_of(step).breaker) == (2, None)


def test_a_machine_that_becomes_usable_ends_the_row() -> None:
    new = node("n", Phase.VALIDATING, health="healthy", registration=registration())
    view = pool(new, supply=SupplyRecord(pool=POOL, failed_starts=2))
    [step] = [step for step in plan(view, NOW).steps if step.act == "activate"]
    assert supply_of(step).failed_starts == 0


@pytest.mark.parametrize("retry_at", [999, 1001])
def test_where_new_machines_are_what_fails_they_are_launched_one_at_a_time(retry_at: float) -> None:
    view = pool(node("a"), node("n", Phase.PLANNED), node("m", Phase.PLANNED), supply=opened(STARTS, retry_at=retry_at))
    found = plan(view, NOW)
    launched = [step for step in found.steps if step.act == "launch"]
    assert len(launched) == (1 if retry_at <= 1000 else 0)
    for step in launched:
        breaker = supply_of(step).breaker
        assert breaker is not None
        assert breaker.canary == step.node
    assert waits(found)["n"] == "breaker-open"


def test_any_machine_that_becomes_usable_shows_that_they_no_longer_fail() -> None:
    new = node("n", Phase.VALIDATING, health="healthy", registration=registration())
    [step] = [step for step in plan(pool(new, supply=opened(STARTS)), NOW).steps if step.act == "activate"]
    assert "pool.breaker-closed" in [event.KIND for event in step.emit]


# --- an operator closes it ---


def close(until: float = 5000) -> PoolWish:
    asked = Wish(
        id="w9", verb="close-breaker", actor="operator:ann", reason="it was the policy", at=NOW, expires_at=at(until)
    )
    return PoolWish(pool=POOL, wish=asked)


@pytest.mark.parametrize(
    ("supply", "until", "outcome", "code", "events"),
    [
        pytest.param(opened(), 5000, "done", "closed-by-operator", ["pool.breaker-closed"], id="open"),
        pytest.param(SupplyRecord(pool=POOL), 5000, "done", "not-open", [], id="closed already"),
        pytest.param(opened(), 999, "expired", "expired", [], id="too late"),
    ],
)
def test_an_operator_closes_it(supply: SupplyRecord, until: float, outcome: str, code: str, events: list[str]) -> None:
    view = five("a", "b", "c", supply=supply, close_wish=close(until), close_wish_revision=3)
    [step] = plan(view, NOW).steps
    after = supply_of(step)
    assert (after.answers["w9"].outcome, after.answers["w9"].code) == (outcome, code)
    assert [event.KIND for event in step.emit] == events
    assert step.expect[POOL_WISH.key(POOL, "close-breaker")] == 3
    if events:
        again = replace(view, supply=after)
        assert ("replace", "a") in acts(plan(again, NOW)), "failures that were seen keep it from opening again"


# --- the whole ---

BAD = CONFIG.replace(
    "scale_down:", "registration_timeout: 1m, disruption: {max_unavailable: 100%, max_per_hour: 100}, scale_down:"
)


async def test_a_bad_image_is_launched_three_times_and_then_once_a_pause_and_the_nodes_that_are_there_stay(
    world: World,
) -> None:
    async with Rig(world, text=BAD, timings=replace(QUICK, backoff_first=timedelta(seconds=1))).running() as rig:
        first, *others = await rig.grow(3)
        made = len(rig.cloud.made)
        await rig.fail(first)
        for count in range(1, 4):
            await rig.reach(
                lambda rs, n=count: (  # type: ignore[misc]
                    len(rig.cloud.made) == made + n and any(r.phase is Phase.BOOTING for r in rs)
                ),
                f"bad machine {count}",
            )
            [new] = await rig.nodes(Phase.BOOTING)
            await rig.register(new.node)
            await rig.phase(new.node, Phase.VALIDATING)
            await rig.fail(new.node, code="driver-missing")
            await rig.phase(new.node, Phase.TERMINATED)
            world.advance(30)
            await rig.wake()
        [event] = await world.events("pool.breaker-opened")
        assert event.code == STARTS
        await rig.pass_time(120, *others)
        assert len(rig.cloud.made) == made + 3, "stopped after three"
        assert [record.node for record in await rig.nodes(Phase.ACTIVE)] == others
        assert (await rig.node(first)).phase is Phase.DRAINING
        await rig.pass_time(140, *others)
        assert len(rig.cloud.made) == made + 3, "the pause is five minutes"
        await rig.pass_time(25, *others)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "the canary")
        assert len(rig.cloud.made) == made + 4
        [canary] = await rig.nodes(Phase.BOOTING)
        await rig.bring_up(canary.node)
        await rig.pass_time(5, first, *others)
        await rig.phase(first, Phase.TERMINATED)
        [told] = await world.events("pool.breaker-closed")
        assert told.code == "canary-usable"


async def test_a_fault_that_half_a_pool_reports_at_once_replaces_one_node_and_waits(world: World) -> None:
    text = CONFIG.replace("scale_down:", "disruption: {max_unavailable: 100%, max_per_hour: 100}, scale_down:")
    async with Rig(world, text=text).running() as rig:
        names = await rig.grow(6)
        worker = rig.service._workers[POOL][0]
        async with worker.apart:
            for name in names[:3]:
                await rig.fail(name)
        await rig.reach(lambda rs: sum("health" in r.cordons for r in rs) == 3, "three cordons")
        await asyncio.sleep(0.2)
        assert len(rig.cloud.made) == 6
        assert rig.cloud.terminated == []
        await rig.pass_time(305, *names)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "the canary")
        await rig.pass_time(60, *names)
        assert len(rig.cloud.made) == 7
        stored = await world.store.get(SUPPLY.key(POOL))
        assert stored is not None
        breaker = stored.record.breaker
        assert breaker is not None
        await rig.bring_up(breaker.canary)
        await rig.reach(lambda rs: len(rig.cloud.made) == 9, "the other replacements")


def test_a_step_that_lets_a_canary_through_expects_the_record_that_says_so() -> None:
    view = five("a", "b", "c", supply=opened(retry_at=0))
    [step] = [step for step in plan(view, NOW).steps if step.act == "replace"]
    assert step.expect[SUPPLY.key(POOL)] == view.supply_revision
    [new] = [record for key, record in step.put.items() if key.family is NODE and key.name != "a"]
    assert isinstance(new, NodeRecord)
    assert structs.asdict(new)["replaces"] == "a"
    assert judged("a", "failed").failure_id
