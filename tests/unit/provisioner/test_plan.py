"""What the provisioner decides, case by case: each row of a table is a sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from navarch_common.events import kinds
from navarch_common.model.cluster import InboxRecord, InboxReport, SafeMode
from navarch_common.model.health import AGENT, EntityVerdict, HealthStatus
from navarch_common.model.node import NODE, Cordon, Drain, NodeRecord, Phase, ProviderState
from navarch_common.model.pool import Guard, SupplyRecord
from navarch_common.store.base import Refund, Spend
from navarch_provisioner import lifecycle
from navarch_provisioner.plan import plan
from navarch_provisioner.steps import Plan, Step
from navarch_provisioner.view import NodeView, PoolView
from support.provisioner_pools import T0, at, busy, idle, instance, judged, node, pool, registration, wish

NOW = at(100)


def acts(planned: Plan) -> list[tuple[str, str]]:
    """What is done, without the notes."""
    return [(step.act, step.node) for step in planned.steps if step.act != "note"]


def blocked(planned: Plan, about: str = "") -> str:
    return next((block.why.code for block in planned.blocked if block.node == about), "")


def record_of(step: Step, name: str) -> NodeRecord:
    record = step.put[NODE.key(name)]
    assert isinstance(record, NodeRecord)
    return record


def one(planned: Plan) -> Step:
    [step] = [step for step in planned.steps if step.act != "note"]
    return step


def freeze(level: Any = "all", **fields: Any) -> dict[str, Any]:
    guard = Guard(name="freeze", active=True, level=level, actor="operator:ann", reason="stop", at=T0, **fields)
    return {"guards": (guard,)}


SAFE = {"cluster": "test", "installation": "installation", "incarnation": "1", "created_at": T0}

GROWING = [
    ("nothing is done where as many are there as wanted", pool(node("a"), node("b")), []),
    ("what is missing is planned all at once", pool(node("a"), desired=3), ["plan", "plan"]),
    ("a booting node counts once", pool(node("a"), node("b", Phase.BOOTING), desired=2), []),
    ("a planned node counts, and is launched", pool(node("a", Phase.PLANNED), desired=1), ["launch"]),
    ("a launch of unknown outcome counts", pool(node("a", Phase.LAUNCH_UNKNOWN), desired=1), ["lookup"]),
    ("a node that is being launched here is left alone",
     pool(node("a", Phase.LAUNCHING), desired=1, in_flight=frozenset({"a"})), []),
    ("a launch that nobody waits for is looked up first", pool(node("a", Phase.LAUNCHING), desired=1), ["lookup"]),
    ("a node on its way out does not count", pool(node("a", Phase.TERMINATING, ), desired=1, in_flight=frozenset({"a"})),
     ["plan"]),
    ("a failed launch does not count", pool(node("a", Phase.LAUNCH_FAILED), desired=1), ["plan"]),
    ("no more launches at once than allowed",
     pool(*(node(f"n{i}", Phase.BOOTING) for i in range(2)), desired=20), ["plan"] * 10),
    ("nodes that are there use up no ids",
     pool(*(node(f"n{i}") for i in range(10)), desired=12, fresh_ids=("x", "y")), ["plan"] * 2),
    ("what one pass has no ids for is left to the next",
     pool(node("a"), desired=5, fresh_ids=("x", "y")), ["plan"] * 2),
    ("never more than the maximum", pool(desired=500, extra="labels: {}"), ["plan"] * 10),
    ("at least the minimum, whatever is desired", pool(desired=0), ["plan"]),
    ("nothing is launched before a desired count is known", replace(pool(desired=0), desired=None), []),
    ("nothing is launched for a pool that left the configuration", pool(desired=3, config=None), []),
    ("nothing is launched in safe mode",
     pool(desired=3, meta=structs.replace(pool().meta, safe_mode=SafeMode(since=T0, code="x", reason="y"))), []),
    ("nothing is launched while it is not known whether safe mode is on", pool(desired=3, meta=None), []),
    ("nothing is launched under a freeze", pool(desired=3, **freeze()), []),
    ("a freeze of terminations lets launches go on", pool(desired=1, **freeze("terminate")), ["plan"]),
    ("a freeze that has run out forbids nothing", pool(desired=1, **freeze(until=at(50))), ["plan"]),
    ("nothing is launched while too many events wait", pool(desired=3, outbox_waiting=1001), []),
    ("nothing is launched before a backoff is over",
     pool(desired=3, supply=SupplyRecord(pool="training", launch_failures=3, retry_at=at(101))), []),
    ("a backoff that is over delays nothing",
     pool(desired=1, supply=SupplyRecord(pool="training", launch_failures=3, retry_at=at(100))), ["plan"]),
    ("an offer that refused lately is not asked", pool(desired=1, cooling={"cloud": at(101)}), []),
    ("an offer is asked again when it has rested", pool(desired=1, cooling={"cloud": at(100)}), ["plan"]),
    ("a pool that only observes launches nothing", pool(desired=3, extra="automation: observe"), []),
]  # fmt: skip


@pytest.mark.parametrize(("view", "expected"), [row[1:] for row in GROWING], ids=[row[0] for row in GROWING])
def test_growing(view: PoolView, expected: list[str]) -> None:
    assert [act for act, _ in acts(plan(view, NOW))] == expected


def test_an_intent_is_whole_before_any_cloud_hears_of_it() -> None:
    view = pool(desired=1)
    [step] = plan(view, NOW).steps
    record = record_of(step, step.node)
    assert record.phase is Phase.PLANNED
    assert record.launch is not None
    request = record.launch.request
    assert (request.provider, request.instance_type, len(request.token)) == ("cloud", "h100-8x", 32)
    assert request.agent_env["NAVARCH_NATS_URL"] == "nats://here"
    assert step.call is None
    assert step.expect[NODE.key(step.node)] == 0
    assert {key.path for key in step.expect} >= {"pool/training", "verdicts/training", "guard/freeze", "meta"}
    assert [event.KIND for event in step.emit] == ["node.planned"]


def test_the_call_follows_the_commit_that_says_that_it_is_made() -> None:
    step = one(plan(pool(node("a", Phase.PLANNED)), NOW))
    assert step.call == "launch"
    record = record_of(step, "a")
    assert (record.phase, record.launch.called_at) == (Phase.LAUNCHING, NOW)  # type: ignore[union-attr]


HEALING = [
    ("a failed node is replaced", pool(node("a", health="failed"), node("b")), [("replace", "a")], ""),
    ("a failed node of too many is not replaced", pool(node("a", health="failed"), node("b"), desired=1),
     [("retire", "a")], ""),
    ("of two failed nodes of too many, one is replaced when the budget allows",
     pool(node("a", health="failed"), node("b", health="failed"), desired=1, extra="disruption: {max_unavailable: 5}"),
     [("retire", "a"), ("replace", "b")], ""),
    ("a second failure waits for the budget, cordoned",
     pool(node("a", health="failed"), node("b", health="failed")), [("replace", "a"), ("cordon", "b")], ""),
    ("the budget counts what others are being replaced",
     pool(node("a", health="failed"), node("b"), replacing=frozenset({"x"})), [("cordon", "a")], ""),
    ("the budget of the hour holds",
     pool(node("a", health="failed"), replaced_lately=frozenset("wxyz")), [("cordon", "a")], ""),
    ("one that fails while an operator's replacement of it is on its way gets no second one",
     pool(node("a", health="failed", replaced_by="r"), node("r", Phase.BOOTING, replaces="a"), desired=1),
     [("replace", "a")], ""),
    ("under a freeze it is cordoned all the same", pool(node("a", health="failed"), **freeze()), [("cordon", "a")], ""),
    ("with auto_replace off it is cordoned and kept",
     pool(node("a", health="failed"), extra="health: {auto_replace: false}"), [("cordon", "a")], ""),
    ("a verdict on an earlier generation is none of this machine's",
     pool(node("a", health=judged("a", "failed", generation=0))), [], ""),
    ("unhealthy without an action to replace is only cordoned",
     pool(node("a", health=judged("a", "unhealthy", action="restart_app"))), [("cordon", "a")], ""),
    ("a repair that we cannot make is a replacement",
     pool(node("a", health=judged("a", "failed", action="reset_gpu"))), [("replace", "a")], ""),
    ("a degraded node is left at work", pool(node("a", health="degraded")), [], ""),
    ("a silent node is cordoned and its provider asked", pool(node("a", health="silent")), [("cordon", "a")], ""),
    ("a silent node is asked for once", pool(node(
        "a", health="silent", cordons={"health": Cordon(reason="x", at=T0)},
        instance=instance("a", state_at=at(1)))), [], "silent"),
    ("a node that health trusts again is uncordoned",
     pool(node("a", cordons={"health": Cordon(reason="x", at=T0)})), [("uncordon", "a")], ""),
    ("a node of unknown health keeps its cordon",
     pool(node("a", health="unknown", cordons={"health": Cordon(reason="x", at=T0)})), [], ""),
    ("an operator's cordon is nobody else's to lift",
     pool(node("a", cordons={"operator:ann": Cordon(reason="x", at=T0)})), [], ""),
    ("a machine that is gone is asked about until health says that it failed",
     pool(node("a", instance=instance("a", state=ProviderState.GONE))), [("ask", "a")], ""),
    ("a failed node whose machine is gone is refilled at once",
     pool(node("a", health="failed", instance=instance("a", state=ProviderState.GONE)),
          replacing=frozenset({"x"}), replaced_lately=frozenset("wxyz")), [("replace", "a"), ("refund", "x")], ""),
]  # fmt: skip


@pytest.mark.parametrize(("view", "expected", "why"), [row[1:] for row in HEALING], ids=[row[0] for row in HEALING])
def test_healing(view: PoolView, expected: list[tuple[str, str]], why: str) -> None:
    planned = plan(view, NOW)
    ours = [act for act in acts(planned) if act != ("refund", "x") or act in expected]
    assert ours == expected
    if why:
        assert blocked(planned, "a") == why


def test_a_failed_node_is_drained_for_the_replacement_that_is_on_its_way_already() -> None:
    step = one(
        plan(pool(node("a", health="failed", replaced_by="r"), node("r", Phase.BOOTING, replaces="a"), desired=1), NOW)
    )
    assert {key.path for key in step.put} == {"node/a"}
    assert (record_of(step, "a").phase, record_of(step, "a").replaced_by) == (Phase.DRAINING, "r")
    assert "node/r" in {key.path for key in step.expect}


def test_a_wish_that_waits_for_a_lookup_does_not_hold_it_up() -> None:
    planned = plan(pool(node("a", Phase.LAUNCH_UNKNOWN, wish=wish("terminate"))), NOW)
    assert acts(planned) == [("lookup", "a")]


def test_one_commit_cordons_drains_and_plans_the_replacement() -> None:
    step = one(plan(pool(node("a", health="failed")), NOW))
    failed, new = record_of(step, "a"), record_of(step, "training-new00")
    assert (failed.phase, failed.replaced_by, failed.failure_id) == (Phase.DRAINING, new.node, "f-a")
    assert set(failed.cordons) == {"health"}
    assert (new.phase, new.replaces) == (Phase.PLANNED, "a")
    assert [event.KIND for event in step.emit] == ["node.cordoned", "node.draining", "node.planned"]
    assert Spend("replace/training", "a", 1) in step.spend
    assert {key.path for key in step.expect} >= {"node/a", "health/a", "wish/node/a", "node/training-new00"}


def test_a_gone_machine_is_ended_without_a_call_and_without_a_token() -> None:
    step = one(plan(pool(node("a", health="failed", instance=instance("a", state=ProviderState.GONE))), NOW))
    assert record_of(step, "a").phase is Phase.TERMINATED
    assert step.call is None
    assert step.spend == ()


def leaving(*, successor: Phase | None = Phase.BOOTING, drained: bool = True, **fields: Any) -> tuple[Any, ...]:
    """A failed node that drains, and its replacement."""
    drain = Drain(cause="fault", actor="health", since=T0, deadline=at(900), drained_at=at(10) if drained else None)
    values: dict[str, Any] = {"health": "failed", "drain": drain, "replaced_by": "r"}
    old = node("a", Phase.DRAINING, **{**values, **fields})
    return (old,) if successor is None else (old, node("r", successor, born=1, replaces="a"))


LEAVING = [
    ("it stays until its replacement is active", pool(*leaving(), desired=1, replacing=frozenset("a")), [], "surge"),
    ("it goes when its replacement is active", pool(*leaving(successor=Phase.ACTIVE), desired=1),
     [("terminate", "a")], ""),
    ("it waits for its work to leave", pool(*leaving(successor=Phase.ACTIVE, drained=False, work=busy(100)), desired=1),
     [], "busy"),
    ("it waits for a word of its work", pool(*leaving(successor=Phase.ACTIVE, drained=False), desired=1),
     [], "work-unknown"),
    ("a word from before the drain proves nothing",
     pool(*leaving(successor=Phase.ACTIVE, drained=False, work=idle(0)), desired=1), [], "work-unknown"),
    ("it is drained when no process is left",
     pool(*leaving(drained=False, work=idle(99)), desired=1, replacing=frozenset("a")), [("drain", "a")], ""),
    ("the drain is skipped where the fault took the work",
     pool(*leaving(drained=False, health=judged("a", "failed", takes_work=True), work=busy(99)), desired=1,
          replacing=frozenset("a")), [("drain", "a")], ""),
    ("it goes first where no provider has room for one more",
     pool(*leaving(), desired=1, replacing=frozenset("a"),
          supply=SupplyRecord(pool="training", exhausted_since=T0)), [("terminate", "a")], ""),
    ("it goes first where surge has taken too long",
     pool(*leaving(), desired=1, replacing=frozenset("a"), extra="surge: {timeout: 90s}"), [("terminate", "a")], ""),
    ("it goes first where the pool has no surge",
     pool(*leaving(successor=Phase.PLANNED), desired=1, replacing=frozenset("a"), extra="surge: {enabled: false}"),
     [("terminate", "a")], ""),
    ("a freeze keeps it", pool(*leaving(successor=Phase.ACTIVE), desired=1, **freeze("terminate")), [], "frozen"),
    ("when its replacement came to nothing, another is planned",
     pool(*leaving(successor=Phase.LAUNCH_FAILED), desired=1, replacing=frozenset("a")), [("replace", "a")], ""),
    ("so it is when its replacement was found again, failed, and waits for the place that this one has",
     pool(*leaving(successor=None), node("r", Phase.VALIDATING, replaces="a", launch=None, health="failed"), desired=1,
          replacing=frozenset("a")), [("replace", "a")], ""),
    ("it stays when it is found healthy again",
     pool(*leaving(health="healthy"), desired=1, replacing=frozenset("a")), [("cancel", "a")], ""),
]  # fmt: skip


@pytest.mark.parametrize(("view", "expected", "why"), [row[1:] for row in LEAVING], ids=[row[0] for row in LEAVING])
def test_a_failed_node_on_its_way_out(view: PoolView, expected: list[tuple[str, str]], why: str) -> None:
    planned = plan(view, NOW)
    assert [act for act in acts(planned) if act[1] == "a"] == expected
    if why:
        assert blocked(planned, "a") == why


def test_without_surge_the_replacement_waits_for_what_it_replaces() -> None:
    view = pool(*leaving(successor=Phase.PLANNED, drained=False), desired=1, extra="surge: {enabled: false}")
    assert blocked(plan(view, NOW), "r") == "terminate-first"


def test_a_recovery_takes_back_a_replacement_that_was_not_launched() -> None:
    view = pool(*leaving(successor=Phase.PLANNED, health="healthy"), desired=1, replacing=frozenset("a"))
    step = one(plan(view, NOW))
    assert record_of(step, "a").phase is Phase.ACTIVE
    assert record_of(step, "a").cordons == {}
    assert record_of(step, "r").phase is Phase.LAUNCH_FAILED
    assert Refund("replace/training", "a") in step.refund


def test_the_replacement_that_becomes_active_gives_the_budget_back() -> None:
    old, new = leaving(successor=Phase.VALIDATING)
    new = replace(new, health=judged("r", "healthy"))
    view = pool(old, new, desired=1, replacing=frozenset({"a"}))
    [step] = [step for step in plan(view, NOW).steps if step.node == "r"]
    assert record_of(step, "r").phase is Phase.ACTIVE
    assert Refund("replace/training", "a") in step.refund
    assert [event.KIND for event in step.emit] == ["node.active"]


IDLE_LONG = idle(100, since=-600)
SHRINKING = [
    ("a node that is idle long enough goes", pool(node("a", work=IDLE_LONG), node("b"), desired=1),
     [("drain", "a")], ""),
    ("a busy node stays", pool(node("a", work=busy(100)), node("b", work=busy(100)), desired=1), [], "none-idle"),
    ("a node that is idle only now stays", pool(node("a", work=idle(100)), node("b"), desired=1), [], "none-idle"),
    ("a node that is not heard of stays",
     pool(node("a", work=idle(0, since=-900)), node("b"), desired=1), [], "none-idle"),
    ("one that operators cordoned goes first",
     pool(node("a", work=IDLE_LONG), node("b", work=IDLE_LONG, cordons={"operator:ann": Cordon(reason="x", at=T0)}),
          desired=1), [("drain", "b")], ""),
    ("no more than too many go", pool(*(node(n, work=IDLE_LONG) for n in "abcd"), desired=2),
     [("drain", "a"), ("drain", "b")], ""),
    ("a failed node is replaced or retired, never scaled down",
     pool(node("a", health="failed", work=IDLE_LONG), node("b", work=IDLE_LONG), desired=1), [("retire", "a")], ""),
    ("what is on its way does not stand in for what serves",
     pool(node("a", work=IDLE_LONG), node("b", Phase.BOOTING), desired=1), [], "floor"),
    ("an intent that was not launched goes first",
     pool(node("a", work=IDLE_LONG), node("b", Phase.PLANNED), desired=1), [("give-up", "b")], ""),
    ("nothing goes under a freeze", pool(node("a", work=IDLE_LONG), node("b"), desired=1, **freeze()), [], "frozen"),
    ("nothing goes below the minimum",
     pool(node("a", work=IDLE_LONG), desired=0), [], ""),
]  # fmt: skip


@pytest.mark.parametrize(("view", "expected", "why"), [row[1:] for row in SHRINKING], ids=[row[0] for row in SHRINKING])
def test_shrinking(view: PoolView, expected: list[tuple[str, str]], why: str) -> None:
    planned = plan(view, NOW)
    assert acts(planned) == expected
    if why:
        assert blocked(planned) == why


def scaling_down(**fields: Any) -> Any:
    drain = Drain(cause="scale-down", actor="provisioner", since=at(50), deadline=at(650))
    cordons = {"scale-down": Cordon(reason="x", at=T0)}
    return node("a", Phase.DRAINING, drain=drain, cordons=cordons, **fields)


ON_ITS_WAY = [
    ("a later heartbeat that says idle lets it go", scaling_down(work=idle(99)), 1, [("terminate", "a")]),
    ("a heartbeat from before proves nothing", scaling_down(work=idle(50)), 1, []),
    ("work that came in between keeps it", scaling_down(work=busy(99)), 1, [("cancel", "a")]),
    ("a desired count that rose again keeps it", scaling_down(work=idle(99)), 2, [("cancel", "a")]),
]


@pytest.mark.parametrize(("victim", "desired", "expected"), [r[1:] for r in ON_ITS_WAY], ids=[r[0] for r in ON_ITS_WAY])
def test_a_node_that_scale_down_has_chosen(victim: Any, desired: int, expected: list[tuple[str, str]]) -> None:
    assert acts(plan(pool(victim, node("b"), desired=desired), NOW)) == expected


def test_no_proof_of_idleness_in_time_keeps_the_node() -> None:
    view = pool(scaling_down(), node("b"), desired=1)
    assert acts(plan(view, at(651))) == [("cancel", "a")]


PASSED = {AGENT: EntityVerdict(status=HealthStatus.HEALTHY, code="passed", since=T0)}
STARTING = [
    ("a booting node waits for its agent", node("a", Phase.BOOTING), 100, []),
    ("a booting node that is too late is given up", node("a", Phase.BOOTING), 600, [("give-up", "a")]),
    ("a booting node whose agent spoke first is validated",
     node("a", Phase.BOOTING, registration=registration()), 100, [("fold", "a")]),
    ("a node is active when health finds it healthy",
     node("a", Phase.VALIDATING, health="healthy"), 100, [("activate", "a")]),
    ("unknown is not healthy", node("a", Phase.VALIDATING, health="unknown"), 100, []),
    ("a verdict on another generation is not healthy",
     node("a", Phase.VALIDATING, health=judged("a", "healthy", generation=2)), 100, []),
    ("a new machine that is broken goes back at once",
     node("a", Phase.VALIDATING, health="failed"), 100, [("terminate", "a")]),
    ("one that is never found healthy is given up", node("a", Phase.VALIDATING), 600, [("give-up", "a")]),
    ("one that registered and was not heard again is given up",
     node("a", Phase.VALIDATING, health="silent"), 600, [("give-up", "a")]),
    ("one that is heard and never found healthy is given up",
     node("a", Phase.VALIDATING, work=idle(590)), 600, [("give-up", "a")]),
    ("one that fell silent before it could prove itself is not given up for that",
     node("a", Phase.VALIDATING, health="silent", work=idle(400)), 600, []),
    ("nor while it is silent for less than its deadline",
     node("a", Phase.VALIDATING, health="silent", work=idle(400)), 699, []),
    ("it is when it has been silent for all of that",
     node("a", Phase.VALIDATING, health="silent", work=idle(400)), 700, [("give-up", "a")]),
    ("one that was found healthy and fell silent before anyone looked is its silence's business",
     node("a", Phase.VALIDATING, health=judged("a", "silent", entities=PASSED)), 600, []),
    ("one that was found healthy and is gone is ended",
     node("a", Phase.VALIDATING, health=judged("a", "silent", entities=PASSED),
          instance=instance("a", state=ProviderState.GONE)), 600, [("terminated", "a")]),
    ("an adopted node has no deadline", node("a", Phase.VALIDATING, launch=None), 6000, []),
    ("an adopted node that fails may hold work, and leaves as any other does",
     node("a", Phase.VALIDATING, launch=None, health="failed"), 100, [("replace", "a")]),
    ("a machine that is gone before it was a node is ended",
     node("a", Phase.BOOTING, instance=instance("a", state=ProviderState.GONE)), 100, [("terminated", "a")]),
    ("a registration timeout ends in a termination",
     node("a", Phase.REGISTRATION_TIMEOUT), 100, [("terminate", "a"), ("plan", "training-new00")]),
    ("terminating is asked for until the machine is gone",
     node("a", Phase.TERMINATING), 100, [("terminate", "a"), ("plan", "training-new00")]),
    ("a machine that is gone is terminated",
     node("a", Phase.TERMINATING, instance=instance("a", state=ProviderState.GONE)), 100,
     [("terminated", "a"), ("plan", "training-new00")]),
    ("a powered-off machine boots again before anything else is said of it",
     node("a", health="failed", powered_off=True), 100, [("power-on", "a")]),
]  # fmt: skip


@pytest.mark.parametrize(("view", "seconds", "expected"), [r[1:] for r in STARTING], ids=[r[0] for r in STARTING])
def test_coming_and_going(view: Any, seconds: float, expected: list[tuple[str, str]]) -> None:
    planned = plan(pool(view, desired=1), at(seconds))
    known = {act for act in acts(planned) if act[1] == "a" or act in expected}
    assert known == set(expected)


def test_nobody_is_given_up_for_what_health_was_not_there_to_see() -> None:
    """Found by the simulator (seed 14542)."""
    view = pool(node("a", Phase.VALIDATING), unattended=True)
    assert acts(plan(view, at(600))) == []
    assert blocked(plan(view, at(600)), "a") == "health-away"
    gone = node("a", Phase.VALIDATING, instance=instance("a", state=ProviderState.GONE))
    assert acts(plan(pool(gone, unattended=True), at(600)))[0] == ("terminated", "a")


def test_one_that_was_not_heard_yet_is_silent_however_short_its_time() -> None:
    launch = structs.replace(lifecycle.require_launch(node("a").record), deadline=at(5))
    view = pool(node("a", Phase.VALIDATING, launch=launch), desired=1)
    view = replace(view, config=structs.replace(view.config, registration_timeout=timedelta(seconds=5)))
    assert view.settings.heartbeat_timeout > timedelta(seconds=10)
    assert acts(plan(view, at(10))) == []
    assert blocked(plan(view, at(10)), "a") == "silent"


def test_a_copy_that_just_took_over_first_reads_the_reports_that_wait() -> None:
    view = pool(node("a", Phase.BOOTING), watching_since=at(599))
    assert acts(plan(view, at(600))) == []
    assert acts(plan(view, at(620)))[0] == ("give-up", "a")


def test_however_short_the_heartbeat_timeout_agents_have_the_time_to_try_again() -> None:
    view = pool(node("a", Phase.BOOTING), watching_since=at(599))
    view = replace(view, settings=replace(view.settings, heartbeat_timeout=timedelta(seconds=6)))
    assert acts(plan(view, at(613))) == []
    assert acts(plan(view, at(614)))[0] == ("give-up", "a")


WISHES = [
    ("cordon", node("a", wish=wish("cordon")), ("cordon", "done", "cordoned")),
    ("drain", node("a", wish=wish("drain")), ("drain", "accepted", "draining")),
    ("terminate a busy node", node("a", wish=wish("terminate"), work=busy(100)), ("answer", "refused", "busy")),
    ("terminate what is not heard of", node("a", wish=wish("terminate")), ("answer", "refused", "not-known-idle")),
    ("terminate an idle node", node("a", wish=wish("terminate"), work=idle(100)), ("terminate", "accepted", "terminating")),
    ("force", node("a", wish=wish("terminate", force=True), work=busy(100)), ("terminate", "accepted", "terminating")),
    ("replace", node("a", wish=wish("replace")), ("replace", "accepted", "replacing")),
    ("replace what is booting", node("a", Phase.BOOTING, wish=wish("replace")), ("answer", "refused", "not-active-booting")),
    ("too late", node("a", wish=wish("cordon", until=99)), ("answer", "expired", "expired")),
    ("terminate an intent", node("a", Phase.PLANNED, wish=wish("terminate")), ("give-up", "done", "cancelled")),
    ("wish for the dead", node("a", Phase.TERMINATED, wish=wish("drain")), ("answer", "refused", "already-terminated")),
]  # fmt: skip


@pytest.mark.parametrize(("view", "expected"), [row[1:] for row in WISHES], ids=[row[0] for row in WISHES])
def test_wishes(view: Any, expected: tuple[str, str, str]) -> None:
    planned = plan(pool(view, desired=1), NOW)
    [step] = [step for step in planned.steps if step.node == "a"]
    answer = record_of(step, "a").answers["w1"]
    assert (step.act, answer.outcome, answer.code) == expected


def test_a_termination_waits_until_the_launch_is_known() -> None:
    view = pool(node("a", Phase.LAUNCH_UNKNOWN, wish=wish("terminate", force=True)), resting={"a": at(200)})
    assert blocked(plan(view, NOW), "a") == "launch-unknown"


def test_uncordon_lifts_what_operators_hold_and_nothing_else() -> None:
    cordons = {"operator:bob": Cordon(reason="x", at=T0), "health": Cordon(reason="y", at=T0)}
    view = pool(node("a", health="silent", cordons=cordons, wish=wish("uncordon")))
    step = one(plan(view, NOW))
    assert set(record_of(step, "a").cordons) == {"health"}
    [event] = step.emit
    assert isinstance(event, kinds.NodeUncordoned)
    assert event.still_held_by == ("health",)


def test_a_report_is_folded_in_before_anything_else_is_decided() -> None:
    report = InboxReport(
        id="1", at=T0, boot_id="boot-1", generation=1, sequence=1, kind="registered", registration=registration()
    )
    inbox = InboxRecord(node="a", pool="training", reports=(report,))
    view = pool(node("a", Phase.BOOTING, inbox=inbox, inbox_revision=7), desired=1)
    step = one(plan(view, at(900)))
    assert record_of(step, "a").phase is Phase.VALIDATING
    assert [key.path for key in step.delete] == ["inbox/a"]
    assert step.expect[step.delete[0]] == 7


def test_an_agent_is_told_its_periods_once_for_each_boot() -> None:
    view = pool(node("a"), told=False)
    assert acts(plan(view, NOW)) == [("configure", "a")]
    assert acts(plan(pool(node("a")), NOW)) == []


def test_what_is_waited_for_is_noted_once_and_taken_back() -> None:
    view = pool(node("a", Phase.VALIDATING), desired=1)
    [step] = [step for step in plan(view, NOW).steps if step.act == "note"]
    noted = replace(view, nodes={"a": replace(view.nodes["a"], record=record_of(step, "a"))})
    assert plan(noted, at(200)).steps == ()
    healthy = structs.replace(record_of(step, "a"), phase=Phase.ACTIVE)
    [free] = plan(replace(noted, nodes={"a": replace(node("a"), record=healthy)}), NOW).steps
    assert record_of(free, "a").blocked is None


def test_a_record_goes_four_weeks_after_its_node() -> None:
    old = node("a", Phase.TERMINATED, terminated_at=T0)
    assert acts(plan(pool(old, desired=1), at(28 * 86400)))[0] == ("forget", "a")


def test_a_place_in_the_budget_that_nobody_needs_goes_back() -> None:
    step = one(plan(pool(node("a"), replacing=frozenset({"gone"})), NOW))
    assert (step.act, step.refund) == ("refund", (Refund("replace/training", "gone"),))


def test_a_cordon_asked_for_again_without_a_reason_keeps_the_first_reason() -> None:
    held = {"operator:ann": Cordon(reason="fan noise", at=at(10))}
    asked = pool(node("a", cordons=held, wish=structs.replace(wish("cordon"), reason="")))
    step = one(plan(asked, NOW))
    assert record_of(step, "a").cordons == held
    assert not step.emit


def test_an_adopted_node_that_is_broken_gets_the_place_that_its_predecessor_kept_for_it() -> None:
    """Else each would wait for the other. Found by the simulator (seed 6693)."""
    broken = node("b", Phase.VALIDATING, launch=None, replaces="a", health="failed", registration=registration())
    [step] = [
        step for step in plan(pool(broken, desired=1, replacing=frozenset("a")), at(100)).steps if step.act == "refund"
    ]
    assert step.refund == (Refund("replace/training", "a"),)
    coming = node("b", Phase.VALIDATING, launch=None, replaces="a", registration=registration())
    held = plan(pool(coming, desired=1, replacing=frozenset("a")), at(100))
    assert not [step for step in held.steps if step.act == "refund"]


SAFE = structs.replace(pool().meta, safe_mode=SafeMode(since=T0, code="store-rolled-back", reason="it was"))
INTENT = node("a", Phase.PLANNED)
RECOVERED = node(
    "b", Phase.DRAINING, health="healthy", replaced_by="a",
    drain=Drain(cause="fault", actor="health", since=at(0), deadline=at(9000)),
)  # fmt: skip
DROPS = [
    ("one too many", (INTENT, node("b")), "give-up"),
    ("an operator's wish", (node("a", Phase.PLANNED, wish=wish("terminate")),), "give-up"),
    ("what it would replace is well again", (node("a", Phase.PLANNED, replaces="b"), RECOVERED), "cancel"),
]


@pytest.mark.parametrize(("views", "act"), [row[1:] for row in DROPS], ids=[row[0] for row in DROPS])
def test_in_safe_mode_no_intent_is_dropped_for_the_store_may_have_forgotten_its_launch(
    views: tuple[NodeView, ...], act: str
) -> None:
    """Its machine would be nobody's. Found by the simulator (seed 13375)."""
    assert act in [step.act for step in plan(pool(*views, desired=1), at(100)).steps]
    dropped = {step.act for step in plan(pool(*views, desired=1, meta=SAFE), at(100)).steps}
    assert not dropped & {"give-up", "cancel"}
