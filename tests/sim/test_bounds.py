"""How far automation may go, as the simulator judges it: each judge can condemn, and knows what is allowed."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from navarch_common.config.load import load_text
from navarch_common.events.kinds import NodeFailed
from navarch_common.model.health import HealthRecord, HealthStatus
from navarch_common.model.node import Drain, NodeRecord, Phase
from navarch_common.model.pool import Breaker, SupplyRecord
from navarch_sim.virtual.bounds import Bounds
from navarch_sim.virtual.clock import BEGIN
from navarch_sim.virtual.options import Options, draw_first
from navarch_sim.virtual.orders import Orders
from navarch_sim.virtual.truth import Truth

NOW_S = 100.0


class Bench:
    """Judges of a world with one pool, and what they said."""

    def __init__(self, **pool: Any) -> None:
        options = draw_first(1)
        options = structs.replace(options, pools=(structs.replace(options.pools[0], **pool),))
        self.pool = options.pools[0].name
        self.orders, self.truth, self.said = Orders(), Truth(), [""]
        self.bounds = Bounds(_config(options), self.orders, self.truth, lambda name, _: self.said.append(name))
        self.nodes: dict[str, NodeRecord] = {}

    def enters(self, name: str, was: Phase | None, phase: Phase, **fields: Any) -> str:
        """What is said when a node enters a phase; empty for nothing."""
        record = self.node(name, phase, **fields)
        self.bounds.on_node(was, record, self.nodes, NOW_S)
        return self.said[-1]

    def node(self, name: str, phase: Phase, **fields: Any) -> NodeRecord:
        record = self.nodes[name] = NodeRecord(
            node=name, pool=self.pool, generation=1, phase=phase, phase_since=BEGIN, created_at=BEGIN, **fields
        )
        return record

    def health(self, name: str, status: HealthStatus, code: str = "passed", *, told: bool = False) -> str:
        record = HealthRecord(node=name, pool=self.pool, generation=1, status=status, since=BEGIN, code=code)
        event = NodeFailed(
            at=BEGIN, cluster="c", pool=self.pool, node=name, reason="it is silent", code=code, actor="health",
            failure_id="f", generation=1,
        )  # fmt: skip
        self.bounds.on_health(record, event if told else None, self.nodes)
        return self.said[-1]


def _config(options: Options) -> Any:
    return load_text(options.config(), "navarch.yaml", {}).config


def drain(cause: str) -> Drain:
    return Drain(cause=cause, actor="provisioner", since=BEGIN, deadline=BEGIN + timedelta(minutes=1))


def test_what_is_held_is_left_alone_two_seconds_after_the_order() -> None:
    bench = Bench()
    bench.orders.hold("n", NOW_S - 1.9)
    assert bench.enters("n", Phase.ACTIVE, Phase.DRAINING) == ""
    bench.orders.hold("n", NOW_S - 2.0)
    assert bench.enters("other", Phase.ACTIVE, Phase.DRAINING) == ""
    assert bench.enters("n", Phase.BOOTING, Phase.VALIDATING) == "", "nobody decided that"
    assert bench.enters("n", Phase.ACTIVE, Phase.DRAINING) == "held"


def test_the_hold_of_a_pool_keeps_it_as_it_is() -> None:
    bench = Bench()
    bench.orders.hold(bench.pool, NOW_S - 10)
    assert bench.enters("n", Phase.LAUNCHING, Phase.PLANNED) == "", "a call that was not made after all"
    assert bench.enters("n", None, Phase.PLANNED) == "held"


def test_what_an_operator_asks_for_is_no_act_of_automation() -> None:
    bench = Bench(automation="approve")
    bench.orders.hold("n", 0.0)
    bench.truth.of("n").wishes.add("terminate")
    assert bench.enters("n", Phase.ACTIVE, Phase.TERMINATING) == ""


def test_where_automation_waits_for_operators_nobody_goes_without_their_word() -> None:
    bench = Bench(automation="approve")
    bench.orders.approved.add("c-1")
    assert bench.enters("n", Phase.ACTIVE, Phase.DRAINING, approved="c-1") == ""
    assert bench.enters("m", Phase.ACTIVE, Phase.DRAINING, approved="c-2") == "approved"


@pytest.mark.parametrize(
    ("canary", "said"), [("", "breaker"), ("x", "breaker"), ("n", ""), ("m", "")], ids=["none", "another", "it", "its"]
)
def test_an_open_breaker_lets_its_canary_go_alone(canary: str, said: str) -> None:
    bench = Bench()
    breaker = Breaker(since=BEGIN, code="too-many-unhealthy", reason="so many", retry_at=BEGIN, canary=canary)
    bench.bounds.on_supply(SupplyRecord(pool=bench.pool, breaker=breaker))
    assert bench.enters("n", Phase.ACTIVE, Phase.DRAINING, replaced_by="m", replacement_reason="it came so") == said


def test_launches_within_an_hour_are_counted_and_machines_that_are_there() -> None:
    bench = Bench(limits={"launches_per_hour": 2, "nodes": 2})
    assert bench.enters("a", Phase.PLANNED, Phase.LAUNCHING) == ""
    assert bench.enters("a", Phase.PLANNED, Phase.LAUNCHING) == "", "the same launch"
    bench.node("a", Phase.TERMINATED)
    assert bench.enters("b", Phase.PLANNED, Phase.LAUNCHING) == ""
    assert bench.bounds.limited(bench.pool, bench.nodes, NOW_S)
    assert not bench.bounds.limited(bench.pool, bench.nodes, NOW_S + 3601)
    assert bench.enters("c", Phase.PLANNED, Phase.LAUNCHING) == "limits"


def test_a_third_machine_where_two_may_be_is_one_too_many() -> None:
    bench = Bench(limits={"nodes": 2})
    bench.node("a", Phase.ACTIVE)
    bench.node("b", Phase.TERMINATING)
    bench.node("d", Phase.PLANNED)
    assert bench.enters("c", Phase.PLANNED, Phase.LAUNCHING) == "limits"


def test_replacements_within_an_hour_are_counted() -> None:
    bench = Bench(limits={"replacements_per_hour": 1})
    assert bench.enters("a", Phase.ACTIVE, Phase.DRAINING, replaced_by="x", drain=drain("fault")) == ""
    assert bench.enters("c", Phase.ACTIVE, Phase.DRAINING, drain=drain("scale-down")) == ""
    assert bench.enters("b", Phase.ACTIVE, Phase.DRAINING, replaced_by="y", drain=drain("fault")) == "limits"


def test_what_a_store_forgot_is_not_counted_against_anyone() -> None:
    bench = Bench(limits={"launches_per_hour": 1})
    bench.bounds.forget({}, {})
    assert bench.enters("a", Phase.PLANNED, Phase.LAUNCHING) == ""
    assert bench.enters("b", Phase.PLANNED, Phase.LAUNCHING) == ""


def test_silence_condemns_no_more_than_half_of_a_pool() -> None:
    bench = Bench()
    for name in ("a", "b", "c", "d"):
        bench.node(name, Phase.ACTIVE)
        bench.health(name, HealthStatus.HEALTHY)
    assert bench.health("a", HealthStatus.UNHEALTHY, "silence", told=True) == ""
    assert bench.health("b", HealthStatus.UNHEALTHY, "silence", told=True) == ""
    assert bench.health("c", HealthStatus.UNHEALTHY, "xid-79", told=True) == ""
    bench.health("c", HealthStatus.HEALTHY)
    assert bench.health("c", HealthStatus.UNHEALTHY, "silence", told=True) == "silence-alone"


def test_silence_condemns_no_last_healthy_node() -> None:
    bench = Bench()
    for name in ("a", "b"):
        bench.node(name, Phase.ACTIVE)
    bench.health("b", HealthStatus.SUSPECT)
    assert bench.health("a", HealthStatus.UNHEALTHY, "silence", told=True) == "silence-alone"
