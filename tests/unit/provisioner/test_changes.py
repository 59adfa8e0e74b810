"""`automation: observe` and `approve`: what is said and not done, what waits for an operator, and what a word lets through."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from fixtures.world import World
from navarch_common.guards import hold_key
from navarch_common.model.node import NODE, Cordon, Drain, NodeRecord, Phase, ProviderState
from navarch_common.model.pool import SUPPLY, SupplyRecord
from navarch_common.model.wish import CHANGE_WISH, ChangeWish, Wish
from navarch_provisioner import adoption
from navarch_provisioner.cloud.base import Machine, Tags
from navarch_provisioner.plan import plan
from navarch_provisioner.preview import preview
from navarch_provisioner.steps import HOUSEKEEPING, Plan, Step
from navarch_provisioner.view import PoolView
from support import guards
from support.provisioner_pools import POOL, T0, at, idle, instance, node, pool, wish
from support.provisioner_world import CONFIG, Rig

NOW = at(100)
CORDONED = {"health": Cordon(reason="fell off", at=at(0))}
OBSERVE, APPROVE = "automation: observe", "automation: approve"


def acts(planned: Plan) -> list[str]:
    return [step.act for step in planned.steps if step.act not in HOUSEKEEPING]


def held(planned: Plan) -> dict[str, str]:
    """Which acts wait, by the id of the change."""
    return {block.change.id: block.change.act for block in planned.blocked if block.change is not None}


def supply_of(step: Step) -> SupplyRecord:
    record = step.put[SUPPLY.key(POOL)]
    assert isinstance(record, SupplyRecord)
    return record


def asked(change: str, verb: Any = "approve", *, about: str = "", until: float = 5000, id_: str = "w1") -> ChangeWish:
    said = Wish(id=id_, verb=verb, actor="operator:ann", reason="go", at=at(0), expires_at=at(until))
    return ChangeWish(pool=POOL, change=change, node=about, wish=said)


def with_wish(view: PoolView, *wishes: ChangeWish) -> PoolView:
    return replace(
        view,
        change_wishes={one.change: one for one in wishes},
        change_wish_revisions={one.change: 7 for one in wishes},
    )


def noted(view: PoolView) -> PoolView:
    """The pool after the changes that wait were noted."""
    [step] = [step for step in plan(view, NOW).steps if SUPPLY.key(POOL) in step.put]
    return replace(view, supply=supply_of(step))


def gone(name: str) -> Any:
    return node(name, health="failed", cordons=CORDONED, instance=instance(name, state=ProviderState.GONE))


def draining(name: str, cause: str = "fault", **fields: Any) -> Any:
    progress = Drain(cause=cause, actor="health", since=at(0), deadline=at(900), drained_at=at(10))
    health = "failed" if cause == "fault" else "healthy"
    return node(name, Phase.DRAINING, drain=progress, work=idle(99), health=health, **fields)


LONG_IDLE = idle(99, since=-9999)
CASES: list[tuple[str, list[Any], dict[str, Any], list[str]]] = [
    ("a failed node", [node("a", health="failed", cordons=CORDONED), node("b")], {}, ["replace"]),
    ("a machine that is gone", [gone("a"), node("b")], {}, ["replace"]),
    ("missing nodes", [node("a")], {"desired": 3}, ["plan"]),
    ("an idle node too many", [node("a", work=LONG_IDLE), node("b", work=LONG_IDLE)], {"desired": 1}, ["drain"]),
    ("a drained node, from before", [draining("a", replaced_by="n"), node("n", replaces="a")], {"desired": 1}, ["terminate"]),
    ("an intent, from before", [node("a"), node("n", Phase.PLANNED)], {}, ["launch"]),
]  # fmt: skip
IDS = [row[0] for row in CASES]


@pytest.mark.parametrize(("nodes", "more", "expected"), [row[1:] for row in CASES], ids=IDS)
def test_what_would_be_done_is_said_and_not_done_under_observe(
    nodes: list[Any], more: dict[str, Any], expected: list[str]
) -> None:
    assert [act for act in acts(plan(pool(*nodes, **more), NOW)) if act in expected][:1] == expected
    found = plan(pool(*nodes, extra=OBSERVE, **more), NOW)
    assert acts(found) == []
    assert list(held(found).values()) == expected
    [block] = [block for block in found.blocked if block.change is not None]
    assert (block.why.code, block.why.text.startswith("automation is observe: it would")) == (
        "automation-observe",
        True,
    )
    assert found.changes is False


@pytest.mark.parametrize(("nodes", "more", "expected"), [row[1:] for row in CASES], ids=IDS)
def test_under_approve_it_waits_with_an_id_until_just_that_is_approved(
    nodes: list[Any], more: dict[str, Any], expected: list[str]
) -> None:
    view = pool(*nodes, extra=APPROVE, **more)
    found = plan(view, NOW)
    assert acts(found) == []
    [(change, act)] = held(found).items()
    assert [act] == expected
    later = plan(replace(view, fresh_ids=tuple(f"{POOL}-other{n:02d}" for n in range(30))), at(110))
    assert change in held(later), "it stays the same while the reason for it does"
    approved = plan(with_wish(noted(view), asked(change)), NOW)
    [step] = [step for step in approved.steps if step.act == act]
    assert supply_of(step).answers["w1"].outcome == "done"
    assert step.expect[CHANGE_WISH.key(change)] == 7
    assert all(record.approved == change for record in step.put.values() if isinstance(record, NodeRecord))
    used = with_wish(replace(view, supply=supply_of(step)), asked(change))
    assert acts(plan(used, NOW)) == [], "one word, one change"


@pytest.mark.parametrize(
    ("late", "other"),
    [pytest.param(True, False, id="an approval that ran out"), pytest.param(False, True, id="another's")],
)
def test_what_lets_nothing_through(late: bool, other: bool) -> None:
    view = noted(pool(node("a", health="failed", cordons=CORDONED), node("b"), extra=APPROVE))
    [change] = held(plan(view, NOW))
    wished = asked("c-0000000000" if other else change, until=99 if late else 5000)
    found = plan(with_wish(view, wished), NOW)
    [step] = found.steps
    assert step.act == "answer"
    assert supply_of(step).answers["w1"].outcome == ("expired" if late else "refused")


@pytest.mark.parametrize("mode", [OBSERVE, APPROVE])
def test_healths_cordon_goes_on(mode: str) -> None:
    assert acts(plan(pool(node("a", health="failed"), node("b"), extra=mode), NOW)) == ["cordon"]


@pytest.mark.parametrize("mode", [OBSERVE, APPROVE])
@pytest.mark.parametrize("verb", ["replace", "terminate", "drain", "cordon"])
def test_what_an_operator_asks_for_needs_no_further_word(mode: str, verb: str) -> None:
    found = plan(pool(node("a", wish=wish(verb, force=True), work=idle(99)), node("b"), desired=2, extra=mode), NOW)
    assert acts(found)[:1] == [verb]


@pytest.mark.parametrize("mode", [OBSERVE, APPROVE])
def test_what_follows_from_an_operators_replacement_needs_no_further_word(mode: str) -> None:
    view = pool(node("a", wish=wish("replace")), node("b"), extra=mode)
    [step] = [step for step in plan(view, NOW).steps if step.act == "replace"]
    [new] = [record for key, record in step.put.items() if key.family is NODE and key.name != "a"]
    assert isinstance(new, NodeRecord)
    launched = pool(node("a", replaced_by="n", approved="w1"), node("b"), node("n", Phase.PLANNED, replaces="a",
                    approved=new.approved), desired=2, extra=mode)  # fmt: skip
    assert acts(plan(launched, NOW)) == ["launch"]
    ready = pool(node("a", replaced_by="n", approved="w1"), node("b"), node("n", replaces="a"), desired=2, extra=mode)
    assert acts(plan(ready, NOW)) == ["drain"]
    drained = pool(draining("a", "replace", replaced_by="n", approved="w1"), node("b"), node("n", replaces="a"),
                   desired=2, extra=mode)  # fmt: skip
    assert acts(plan(drained, NOW)) == ["terminate"]


def test_a_node_that_became_usable_is_approved_for_nothing_more() -> None:
    new = node("n", Phase.VALIDATING, health="healthy", approved="c-1", by_force=True)
    [step] = [step for step in plan(pool(new, extra=APPROVE), NOW).steps if step.act == "activate"]
    record = step.put[NODE.key("n")]
    assert isinstance(record, NodeRecord)
    assert (record.approved, record.by_force) == ("", False)


def test_one_that_was_adopted_may_hold_work_and_waits_for_an_operator() -> None:
    """Found by the simulator (seed 214)."""
    found = node("n", Phase.VALIDATING, health="failed", launch=None)
    cordoned = pool(replace(found, record=structs.replace(found.record, cordons=CORDONED)),
                    node("a"), node("b"), desired=2, extra=APPROVE)  # fmt: skip
    assert [block.why.code for block in plan(cordoned, NOW).blocked if block.node == "n"] == ["approval"]


def test_what_was_approved_of_an_intent_that_is_found_as_a_machine_was_its_launch() -> None:
    view = pool(node("n", Phase.PLANNED, approved="c-1", by_force=True))
    tags = Tags("test", "installation", POOL, "n", 1, "token")
    machine = Machine("i-n", "", tags, ProviderState.RUNNING, "h100-8x", "", "", "", 2.0, T0)
    adopted = adoption.adopt(view, "cloud", machine, NOW)
    assert adopted is not None
    assert (adopted.record.approved, adopted.record.by_force) == ("", False)


def test_a_new_machine_that_is_broken_goes_back_under_approve_and_stays_under_observe() -> None:
    broken = node("n", Phase.VALIDATING, health="failed")
    assert "terminate" in acts(plan(pool(broken, node("b"), extra=APPROVE), NOW))
    assert acts(plan(pool(broken, node("b"), extra=OBSERVE), NOW)) == []


def test_each_change_that_waits_is_told_once() -> None:
    view = pool(node("a", health="failed", cordons=CORDONED), node("b"), extra=APPROVE)
    [step] = [step for step in plan(view, NOW).steps if step.emit]
    assert [event.KIND for event in step.emit] == ["pool.change-held"]
    assert "navarch approve c-" in step.emit[0].reason
    assert [one for one in plan(noted(view), NOW).steps if one.emit] == []


def test_a_change_that_rests_on_nothing_any_more_waits_no_longer() -> None:
    view = noted(pool(node("a", health="failed", cordons=CORDONED), node("b"), extra=APPROVE))
    well = replace(view, nodes={"a": node("a"), "b": node("b")})
    [step] = [step for step in plan(well, NOW).steps if SUPPLY.key(POOL) in step.put]
    assert supply_of(step).changes == ()


def test_the_plan_that_people_see_names_the_change() -> None:
    view = pool(node("a", health="failed", cordons=CORDONED), node("b"), extra=APPROVE)
    found = plan(view, NOW)
    [change] = held(found)
    [shown] = [block for block in preview(view, found)["blocked"] if block["change"]]  # type: ignore[attr-defined]
    assert (shown["node"], shown["change"]) == ("a", change)


# --- cancel ---


def test_a_change_that_was_cancelled_waits_no_longer_and_is_not_done() -> None:
    view = noted(pool(node("a", health="failed", cordons=CORDONED), node("b"), extra=APPROVE))
    [change] = held(plan(view, NOW))
    [step] = plan(with_wish(view, asked(change, "cancel")), NOW).steps
    after = replace(view, supply=supply_of(step))
    found = plan(after, NOW)
    assert (acts(found), held(found)) == ([], {})
    assert next(block.why.code for block in found.blocked if block.node == "a") == "change-cancelled"


@pytest.mark.parametrize("phase", [Phase.PLANNED, Phase.BOOTING])
def test_a_replacement_that_is_cancelled_leaves_the_failed_node_cordoned(phase: Phase) -> None:
    old = draining("a", replaced_by="n", cordons=CORDONED)
    view = pool(old, node("n", phase, replaces="a"), node("b"), desired=2, replacing=frozenset({"a"}))
    [step] = plan(with_wish(view, asked("a", "cancel", about="a")), NOW).steps
    kept = step.put[NODE.key("a")]
    new = step.put[NODE.key("n")]
    assert isinstance(kept, NodeRecord)
    assert isinstance(new, NodeRecord)
    assert (kept.phase, kept.replaced_by, kept.drain, set(kept.cordons)) == (Phase.ACTIVE, None, None, {"health"})
    assert (new.phase, new.replaces) == ((Phase.LAUNCH_FAILED, "a") if phase is Phase.PLANNED else (phase, None))
    assert supply_of(step).answers["w1"].outcome == "done"
    assert [refund.holder for refund in step.refund] == ["a"]
    assert step.expect[NODE.key("n")] == view.nodes["n"].revision


@pytest.mark.parametrize("phase", [Phase.TERMINATING, Phase.TERMINATED])
def test_a_replacement_whose_failed_node_is_being_ended_cannot_be_cancelled(phase: Phase) -> None:
    view = pool(node("a", phase, replaced_by="n"), node("n", replaces="a"), node("b"), desired=2)
    [step] = plan(with_wish(view, asked("a", "cancel", about="a")), NOW).steps
    assert (step.act, supply_of(step).answers["w1"].code) == ("answer", "too-late")


# --- the whole ---


async def test_an_approved_replacement_goes_to_its_end_and_nothing_else_moves(world: World) -> None:
    text = CONFIG.replace("scale_down:", f"{APPROVE}, disruption: {{max_unavailable: 100%}}, scale_down:")
    async with Rig(world, text=text).running() as rig:
        await rig.desire(3)
        await rig.reach(lambda _: True, "a pass")

        async def change(about: str) -> str:
            for _ in range(500):
                stored = await world.store.get(SUPPLY.key(POOL))
                found = [one.id for one in stored.record.changes if one.node == about] if stored else []
                if found:
                    return found[0]
                await asyncio.sleep(0.01)
            raise AssertionError(f"no change about {about or 'the pool'} waits")

        async def approve(about: str) -> None:
            id_ = await change(about)
            now = world.clock.now()
            said = Wish(
                id=f"w-{id_}", verb="approve", actor="operator:ann", at=now, expires_at=now + timedelta(hours=1)
            )
            await world.plant((CHANGE_WISH.key(id_), ChangeWish(pool=POOL, change=id_, wish=said)))
            await rig.wake()

        assert rig.cloud.made == []
        await approve("")
        await rig.reach(lambda rs: sum(r.phase is Phase.BOOTING for r in rs) == 3, "three machines")
        for record in await rig.nodes(Phase.BOOTING):
            await rig.bring_up(record.node)
        first, second, _ = [record.node for record in await rig.nodes(Phase.ACTIVE)]
        await rig.fail(first)
        await rig.fail(second)
        await change(first)
        await asyncio.sleep(0.1)
        assert len(rig.cloud.made) == 3
        await approve(first)
        record = await rig.phase(first, Phase.DRAINING)
        assert record.replaced_by is not None
        await rig.reach(
            lambda rs: any(r.node == record.replaced_by and r.phase is Phase.BOOTING for r in rs), "launched"
        )
        await rig.bring_up(record.replaced_by)
        await rig.pass_time(5, first)
        await rig.phase(first, Phase.TERMINATED)
        assert (await rig.node(second)).phase is Phase.ACTIVE
        assert len(rig.cloud.made) == 4


async def test_a_cancelled_replacement_stays_cancelled_while_the_failed_node_is_held(world: World) -> None:
    async with Rig(world).running() as rig:
        first, *_ = await rig.grow(3)
        await rig.fail(first)
        await rig.phase(first, Phase.DRAINING)
        now = world.clock.now()
        said = Wish(id="w1", verb="cancel", actor="operator:ann", at=now, expires_at=now + timedelta(hours=1))
        await world.plant(
            (CHANGE_WISH.key(first), ChangeWish(pool=POOL, change=first, node=first, wish=said)),
            (hold_key(node=first), guards.hold(1, node=first, until=None)),
        )
        await rig.wake()
        record = await rig.phase(first, Phase.ACTIVE)
        await asyncio.sleep(0.2)
        assert set(record.cordons) == {"health"}
        assert (await rig.node(first)).phase is Phase.ACTIVE
        assert await world.store.holders(f"replace/{POOL}") == []
    assert rig.cloud.terminated == []


def test_a_pool_that_acts_again_forgets_what_waited() -> None:
    view = noted(pool(node("a", health="failed", cordons=CORDONED), node("b"), extra=APPROVE))
    acting = replace(view, settings=pool().settings, config=pool().config)
    [step] = [step for step in plan(acting, NOW).steps if step.act == "replace"]
    assert step.node == "a"
    noted_again = [one for one in plan(acting, NOW).steps if one.act == "note" and SUPPLY.key(POOL) in one.put]
    assert [supply_of(one).changes for one in noted_again] == [()]
    assert structs.asdict(view.supply)["changes"]  # type: ignore[arg-type]
