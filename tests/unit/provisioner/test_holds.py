"""A hold keeps automation away from a node or a pool; what an operator forces, and what health cordons, goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from navarch_common.model.node import NODE, Drain, NodeRecord, Phase, ProviderState
from navarch_common.model.pool import Guard
from navarch_provisioner.plan import plan
from navarch_provisioner.steps import Plan
from navarch_provisioner.view import PoolView
from support import guards
from support.provisioner_pools import at, idle, node, pool, wish

NOW = at(100)


def held(*names: str, pool_too: bool = False, **fields: Any) -> dict[str, Any]:
    """Guards that hold these nodes, or the pool."""
    holds: list[Guard] = [guards.hold(number, node=name, **fields) for number, name in enumerate(names, 1)]
    return {"guards": (*holds, *([guards.hold(99, **fields)] if pool_too else []))}


def acts(planned: Plan) -> list[tuple[str, str]]:
    return [(step.act, step.node) for step in planned.steps if step.act != "note"]


def blocked(planned: Plan, about: str = "") -> str:
    return next((block.why.code for block in planned.blocked if block.node == about), "")


def draining(name: str, cause: str = "fault", **fields: Any) -> Any:
    progress = Drain(cause=cause, actor="health", since=at(0), deadline=at(900), drained_at=at(10))
    return node(name, Phase.DRAINING, drain=progress, work=idle(99), **fields)


FAILED = {"health": "failed"}

HELD: list[tuple[str, PoolView, list[str], str]] = [
    ("a failed node that is held is cordoned and not replaced",
     pool(node("a", **FAILED), node("b"), **held("a")), ["cordon"], ""),
    ("its neighbour is replaced all the same",
     pool(node("a"), node("b", **FAILED), **held("a")), ["replace"], ""),
    ("no node of a held pool is replaced",
     pool(node("a", **FAILED), node("b"), **held(pool_too=True)), ["cordon"], ""),
    ("a hold that has run out keeps nothing",
     pool(node("a", **FAILED), node("b"), **held("a", until=at(50))), ["replace"], ""),
    ("a held node is not scaled down, another is",
     pool(node("a", work=idle(99, since=-9999)), node("b", work=idle(99, since=-9999)), desired=1, **held("a")),
     ["drain"], ""),
    ("nothing of a held pool is scaled down",
     pool(node("a", work=idle(99, since=-9999)), node("b", work=idle(99, since=-9999)), desired=1,
          **held(pool_too=True)), [], ""),
    ("a scale-down that is under way stands still", pool(draining("a", "scale-down"), node("b"), desired=1, **held("a")),
     [], "a"),
    ("a drained node that failed is not ended while it is held",
     pool(draining("a", replaced_by="b", **FAILED), node("b", replaces="a"), desired=1, **held("a")), [], "a"),
    ("nothing is launched for a held pool", pool(node("a"), desired=3, **held(pool_too=True)), [], ""),
    ("what is planned for a held pool is not launched", pool(node("a", Phase.PLANNED), **held(pool_too=True)), [], "a"),
    ("a replacement that is planned waits while what it replaces is held",
     pool(draining("a", replaced_by="b", **FAILED), node("b", Phase.PLANNED, replaces="a"), desired=1, **held("a")), [], "b"),
    ("a held machine that never registered is not given up",
     pool(node("a", Phase.BOOTING), **held("a")), [], "a"),
    ("a held machine that is given up already is not ended",
     pool(node("a", Phase.REGISTRATION_TIMEOUT), desired=0, **held("a")), ["plan"], "a"),
    ("a new machine that is broken is kept while it is held",
     pool(node("a", Phase.VALIDATING, **FAILED), **held("a")), [], "a"),
    ("what is ending already goes on to its end", pool(node("a", Phase.TERMINATING), desired=0, **held("a")),
     ["terminate", "plan"], ""),
    ("a held node whose machine is gone has nothing left to keep",
     pool(node("a", instance=None, **FAILED), node("b"), **held("a")), ["replace"], ""),
    ("an operator's drain of a held node is the operator's own business",
     pool(node("a", wish=wish("drain"), work=idle(99)), node("b"), **held("a")), ["drain"], ""),
]  # fmt: skip


UNGUARDED: list[tuple[str, PoolView, list[str]]] = [
    ("a failed node is cordoned and not replaced", pool(node("a", **FAILED), node("b")), ["cordon"]),
    ("nothing is launched", pool(node("a"), desired=3), []),
    ("what is planned is not launched", pool(node("a", Phase.PLANNED)), []),
    ("nothing is scaled down", pool(node("a", work=idle(99, since=-9999)), node("b"), desired=1), []),
    ("a machine that never registered is not given up", pool(node("a", Phase.BOOTING)), []),
    ("what is ending already waits", pool(node("a", Phase.TERMINATING), node("b"), desired=1), []),
    ("force does not help either", pool(node("a", wish=wish("terminate", force=True)), node("b")), []),
]  # fmt: skip


@pytest.mark.parametrize(("view", "expected"), [row[1:] for row in UNGUARDED], ids=[row[0] for row in UNGUARDED])
def test_while_it_is_not_known_what_operators_forbid(view: PoolView, expected: list[str]) -> None:
    planned = plan(replace(prepared(view), unguarded="the store was away"), NOW)
    assert [act for act, _ in acts(planned)] == expected
    assert expected or {block.why.code for block in planned.blocked} & {"guards-unreadable", "none-idle"}


def prepared(view: PoolView) -> PoolView:
    """Where a node is to be gone, its provider says so; where one is late, it is long overdue."""
    nodes = {}
    for name, one in view.nodes.items():
        record = one.record
        if record.phase is Phase.ACTIVE and record.instance is None:
            twin = node(name).record.instance
            assert twin is not None
            record = structs.replace(record, instance=structs.replace(twin, state=ProviderState.GONE))
        if record.phase is Phase.BOOTING and record.launch is not None:
            record = structs.replace(record, launch=structs.replace(record.launch, deadline=at(50)))
        nodes[name] = replace(one, record=record)
    return replace(view, nodes=nodes)


@pytest.mark.parametrize(("view", "expected", "waits"), [row[1:] for row in HELD], ids=[row[0] for row in HELD])
def test_holds(view: PoolView, expected: list[str], waits: str) -> None:
    planned = plan(prepared(view), NOW)
    assert [act for act, _ in acts(planned)] == expected
    if waits:
        assert blocked(planned, waits) == "held"


@pytest.mark.parametrize("verb", ["replace", "terminate"])
@pytest.mark.parametrize("health", ["healthy", "failed"])
def test_an_operators_own_wish_about_a_held_node_is_refused_naming_who_holds_it(verb: str, health: str) -> None:
    view = pool(node("a", wish=wish(verb), work=idle(99), health=health), node("b"), **held("a"))
    [step] = [step for step in plan(view, NOW).steps if step.act != "note"]
    assert (step.act, step.why.code) == ("answer", "held")
    assert "operator:ann until 2026-01-01 04:00 UTC: fans" in step.why.text


@pytest.mark.parametrize("health", ["healthy", "failed"])
@pytest.mark.parametrize("pool_too", [False, True])
def test_force_ends_a_held_node(health: str, pool_too: bool) -> None:
    view = pool(node("a", wish=wish("terminate", force=True), health=health), node("b"), **held("a", pool_too=pool_too))
    assert ("terminate", "a") in acts(plan(view, NOW))


@pytest.mark.parametrize("health", ["healthy", "failed"])
@pytest.mark.parametrize("pool_too", [False, True])
def test_force_replaces_a_held_node_to_the_end(health: str, pool_too: bool) -> None:
    view = pool(node("a", wish=wish("replace", force=True), health=health), node("b"), **held("a", pool_too=pool_too))
    [step] = [step for step in plan(view, NOW).steps if step.act == "replace"]
    made = [record for key, record in step.put.items() if key.family is NODE and key.name != "a"]
    old = step.put[NODE.key("a")]
    assert isinstance(old, NodeRecord)
    [new] = made
    assert isinstance(new, NodeRecord)
    assert (old.by_force, new.by_force) == (True, True)
    after = replace(
        view,
        nodes={
            "a": replace(view.nodes["a"], record=old),
            "b": view.nodes["b"],
            new.node: node(new.node, Phase.PLANNED, replaces="a", by_force=True),
        },
    )
    assert ("launch", new.node) in acts(plan(after, NOW))


def test_a_step_rests_on_the_hold_so_that_one_that_comes_in_between_makes_it_conflict() -> None:
    view = pool(node("a", health="failed"), node("b"), guard_revisions={"hold/node/a": 7})
    [step] = [step for step in plan(view, NOW).steps if step.act == "replace"]
    named = {key.path: revision for key, revision in step.expect.items()}
    assert (named["guard/hold/node/a"], named["guard/hold/pool/training"]) == (7, 0)
