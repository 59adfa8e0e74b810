"""What another configuration would take out of a fleet, pool by pool."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from navarch_common.config import PoolConfig
from navarch_common.model.base import Record
from navarch_common.model.cluster import Taking
from navarch_common.model.health import HealthRecord, HealthStatus
from navarch_common.model.node import Drain, NodeRecord, Phase
from navarch_common.model.pool import Breaker, Change, Opinion, Pause, SupplyRecord
from navarch_common.store.base import Stored
from navarch_gateway.known import Known
from navarch_gateway.takings import is_too_much, takings, text_of
from support.gateway_world import START, health, loaded, node, pool_record

QUEUE = "autoscaling: {type: queue, jobs_per_node: 10}"
LEAVING = Drain(cause="scale-down", actor="provisioner", since=START, deadline=START)


def pool(text: str) -> PoolConfig:
    file = f"providers: {{here: {{type: local}}}}\npools: {{p: {{provider: here, instance_type: h100-8x, {text}}}}}\n"
    return loaded(file).config.pools["p"]


def stored(key: Any, records: Iterable[Record]) -> dict[str, Any]:
    return {key(record): Stored(key=None, record=record, revision=1) for record in records}  # type: ignore[arg-type]  # nobody here looks at the key


def known(
    nodes: int | list[NodeRecord] = 4,
    desired: int | None = None,
    supply: SupplyRecord | None = None,
    failed: tuple[str, ...] = (),
    **record: Any,
) -> Known:
    """A pool `p` with so many nodes, n0 and on."""
    there = [node(f"n{number}", pool="p") for number in range(nodes)] if isinstance(nodes, int) else nodes
    verdicts: list[HealthRecord] = [
        health(name, HealthStatus.UNHEALTHY, pool="p", action="drain_and_replace") for name in failed
    ]
    pools = [pool_record("p", desired=len(there) if desired is None else desired, **record)]
    return Known(
        START,
        nodes=stored(lambda one: one.node, there),
        health=stored(lambda one: one.node, verdicts),
        pools=stored(lambda one: one.pool, pools),
        supply=stored(lambda one: one.pool, [supply] if supply else []),
    )


def taken(fleet: Known, old: str | None, new: str, *, blind: bool = False) -> Taking | None:
    found = takings(fleet, {} if old is None else {"p": pool(old)}, {"p": pool(new)}, START, blind=blind)
    return found[0] if found else None


def wants(target: int | None, *, fresh: bool = True) -> dict[str, Any]:
    return {"opinions": (Opinion(strategy="queue", target=target, code="queue-depth", reason="", fresh=fresh),)}


SUPPLY = SupplyRecord(pool="p", changes=(
    Change(id="c-1", act="replace", node="n1", text="replace n1"), Change(id="c-2", act="drain", node="n2", text="drain n2"),
    Change(id="c-3", act="plan", text="launch 2 nodes"), Change(id="c-4", act="drain", node="gone", text="drain gone"),
))  # fmt: skip
OPEN = SupplyRecord(
    pool="p", breaker=Breaker(since=START, code="too-many-unhealthy", reason="", retry_at=START + timedelta(hours=1))
)
CASES = [
    pytest.param(known(), "max_nodes: 4", "max_nodes: 4", 0, id="the same"),
    pytest.param(known(), "max_nodes: 4", "max_nodes: 9", 0, id="larger"),
    pytest.param(known(), "max_nodes: 4", "max_nodes: 1", 3, id="a lower ceiling"),
    pytest.param(known(desired=2), "max_nodes: 4", "max_nodes: 1", 1, id="what is too many already is not its doing"),
    pytest.param(known(2, desired=4), "max_nodes: 4", "max_nodes: 1", 1, id="what is not there cannot go"),
    pytest.param(known(2, desired=4), "max_nodes: 4", "max_nodes: 3", 0, id="there are fewer than may be"),
    pytest.param(known(), "min_nodes: 3, max_nodes: 4", "min_nodes: 0, max_nodes: 4", 0,
                 id="a lower floor where operators size"),
    pytest.param(known(**wants(0)), f"min_nodes: 4, max_nodes: 4, {QUEUE}", f"min_nodes: 1, max_nodes: 4, {QUEUE}", 3,
                 id="a lower floor lets the strategy have its way"),
    pytest.param(known(**wants(3)), f"min_nodes: 4, max_nodes: 4, {QUEUE}", f"min_nodes: 1, max_nodes: 4, {QUEUE}", 1,
                 id="as far as it wants"),
    pytest.param(known(**wants(0, fresh=False)), f"min_nodes: 4, max_nodes: 4, {QUEUE}", f"max_nodes: 4, {QUEUE}", 0,
                 id="stale demand lowers nothing"),
    pytest.param(known(**wants(0), paused=Pause(actor="operator:ada", reason="", at=START)),
                 f"min_nodes: 4, max_nodes: 4, {QUEUE}", f"max_nodes: 4, {QUEUE}", 0, id="nor does a paused strategy"),
    pytest.param(known(**wants(9)), f"max_nodes: 9, {QUEUE}", f"max_nodes: 4, {QUEUE}", 0,
                 id="what was wanted and is not there is no loss"),
    pytest.param(known(**wants(0)), "min_nodes: 4, max_nodes: 4", f"max_nodes: 4, {QUEUE}", 0,
                 id="a new strategy has not spoken"),
    pytest.param(known(desired=1), "max_nodes: 4", "max_nodes: 4, scale_down: {force: true}", 3,
                 id="busy ones that are too many go by force"),
    pytest.param(known(), "max_nodes: 4", "max_nodes: 4, scale_down: {force: true}", 0, id="force where none is too many"),
    pytest.param(known(failed=("n1", "n2")), "max_nodes: 4, health: {auto_replace: false}", "max_nodes: 4", 2,
                 id="failed ones that were kept"),
    pytest.param(known(failed=("n1",)), "max_nodes: 4", "max_nodes: 5", 0, id="failed ones that are replaced anyway"),
    pytest.param(known(failed=("n1", "n2"), supply=OPEN), "max_nodes: 4, disruption: {max_unhealthy: 1}",
                 "max_nodes: 4, disruption: {max_unhealthy: 4}", 2, id="failed ones that the breaker kept"),
    pytest.param(known(supply=SUPPLY), "max_nodes: 4, automation: observe", "max_nodes: 4", 2,
                 id="changes that were only said"),
    pytest.param(known(supply=SUPPLY), "max_nodes: 4, automation: approve", "max_nodes: 1, automation: approve", 0,
                 id="where each step waits for a word of its own"),
    pytest.param(known(), None, "max_nodes: 1", 3, id="a pool that comes back smaller"),
    pytest.param(known(desired=0, nodes=0), None, "max_nodes: 1", 0, id="a new pool"),
    pytest.param(known([node("n1", pool="p"), node("n2", pool="p", phase=Phase.TERMINATING),
                        node("n3", pool="p", phase=Phase.PLANNED),
                        node("n4", pool="p", phase=Phase.DRAINING, drain=LEAVING)], desired=2),
                 "max_nodes: 4", "max_nodes: 1", 0, id="who leaves, and who was never launched, is no loss"),
]  # fmt: skip


@pytest.mark.parametrize(("fleet", "old", "new", "nodes"), CASES)
def test_what_would_go_is_counted(fleet: Known, old: str | None, new: str, nodes: int) -> None:
    found = taken(fleet, old, new)
    assert (found.nodes if found else 0) == nodes


def test_it_is_said_why_and_who_where_that_is_known() -> None:
    found = taken(known(supply=SUPPLY, failed=("n3",)), "max_nodes: 4, automation: observe", "max_nodes: 3")
    assert found is not None
    assert (found.nodes, found.of, found.named) == (3, 4, ("n1", "n2"))
    assert text_of([found]) == (
        "p: 3 of 4 nodes would go (max_nodes 4 -> 3; automation: act carries out 2 changes that waited)"
    )


@pytest.mark.parametrize(
    ("nodes", "of", "too_much"),
    [(1, 1, False), (1, 4, False), (2, 4, True), (1, 20, False), (2, 20, True), (2, 21, False), (5, 100, False),
     (6, 100, True)],
)  # fmt: skip
def test_one_node_or_one_in_twenty_goes_unasked(nodes: int, of: int, too_much: bool) -> None:
    assert is_too_much(Taking(pool="p", nodes=nodes, of=of, why="")) is too_much


@pytest.mark.parametrize(
    ("old", "new", "nodes"),
    [
        pytest.param("max_nodes: 9", "max_nodes: 9, labels: {a: b}", 0, id="what takes nothing goes on"),
        pytest.param("max_nodes: 9", "max_nodes: 1", 8, id="a lower ceiling"),
        pytest.param(f"min_nodes: 5, max_nodes: 9, {QUEUE}", f"max_nodes: 9, {QUEUE}", 5, id="a lower floor"),
        pytest.param("max_nodes: 9, health: {auto_replace: false}", "max_nodes: 9", 9, id="who may be failed"),
        pytest.param("max_nodes: 9, automation: approve", "max_nodes: 9", 9, id="what may have waited"),
        pytest.param("max_nodes: 9", "max_nodes: 9, scale_down: {force: true}", 9, id="who may be busy"),
    ],
)
def test_in_safe_mode_every_node_that_may_be_there_counts(old: str, new: str, nodes: int) -> None:
    found = taken(known(0), old, new, blind=True)
    assert (found.nodes if found else 0) == nodes
