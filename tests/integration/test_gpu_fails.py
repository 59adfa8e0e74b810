"""What a fault of a GPU does to a fleet: real commands, real processes, lines in a kernel log, a subscriber outside.

One fleet serves all of it, as one fleet would: each test breaks what the one before has left.
"""

import itertools
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from support.plane import FALLEN_OFF, GPU_3, Plane, PlaneKeeper, xid

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = """
server: {heartbeat_interval: 250ms, heartbeat_timeout: 4s, health_check_interval: 500ms}
providers:
  local: {type: local, gpu_count: 8}
defaults:
  instance_type: h100-8x
  registration_timeout: 1m
  disruption: {max_per_hour: 100}
pools:
  training: {min_nodes: 3, max_nodes: 10}
  kept: {min_nodes: 1, max_nodes: 2, health: {auto_replace: false}}
  hasty: {min_nodes: 1, max_nodes: 2, drain: {deadline: 2s}}
"""
REPLACED = ("node.failed", "node.cordoned", "node.draining", "node.drained")


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneKeeper]:
    with PlaneKeeper(tmp_path_factory, CONFIG) as keeper:
        yield keeper


@pytest.fixture
def plane(keeper: PlaneKeeper) -> Plane:
    return keeper.plane()


def test_a_gpu_that_falls_off_the_bus_is_told_to_anyone_and_its_node_is_replaced_before_it_goes(plane: Plane) -> None:
    before = plane.settled(3)
    node = min(before)
    detail = plane.node(node)
    plane.prints(node, xid(FALLEN_OFF))

    failed = plane.hears("node.failed", node)
    assert failed.subject == f"navarch.events.node.failed.training.{node}"
    event = failed.event
    assert event["type"] == "node.failed.v1"
    assert (event["cluster"], event["pool"], event["node"], event["actor"]) == ("default", "training", node, "health")
    assert (event["code"], event["cause"], event["rule"]) == ("xid-79", "xid-79", "gpu-fell-off-the-bus")
    assert (event["severity"], event["action"]) == ("fatal", "drain_and_replace")
    assert GPU_3 in event["reason"]
    assert len(event["failure_id"]) == 32
    assert event["id"].startswith(f"{event['rev']}-")
    assert len(event["trace_id"]) == 32
    (evidence,) = event["evidence"]
    assert (evidence["source"], evidence["code"]) == ("kernel-log", "xid-79")
    assert "fallen off the bus" in evidence["text"]
    assert detail.registration is not None
    gpu = detail.registration.gpus[3]
    assert event["entity"] == f"gpu:{gpu.uuid}"
    (told,) = event["gpus"]
    assert (told["index"], told["uuid"], told["serial"], told["pci"]) == (3, gpu.uuid, gpu.serial, GPU_3)
    assert (event["hostname"], event["provider"], event["generation"]) == (detail.hostname, "local", 1)
    assert event["addresses"] == list(detail.registration.addresses)
    assert event["provider_id"] == f"navarch://default/{node}"
    assert detail.instance is not None
    assert event["instance_id"] == detail.instance.instance_id
    assert "region" in event

    after = plane.healed(node)
    (new,) = after - before
    order = plane.order(
        *((kind, node) for kind in REPLACED), ("node.launched", new), ("node.active", new),
        ("node.terminating", node), ("node.terminated", node),
    )  # fmt: skip
    assert order[0] == min(order)
    assert order[-4:] == sorted(order[-4:])
    plane.until(lambda: plane.living() == after, "three machines and no more")
    ended = plane.node(node)
    assert (ended.status, ended.replaced_by, plane.node(new).replaces) == ("terminated", new, node)


def test_explain_tells_the_story_of_a_replacement_with_reasons_and_names(plane: Plane) -> None:
    before = plane.settled(3)
    node = min(before)
    plane.prints(node, xid(FALLEN_OFF))
    (new,) = plane.healed(node) - before

    story = plane.explain(node)
    told = [(item.event or item.code, item.node or node, item.text) for item in reversed(story.items)]
    kinds = [kind for kind, whose, _ in told if whose == node]
    for wanted in ("node.planned", "node.launched", "node.registered", "node.active", *REPLACED, "node.terminated"):
        assert wanted in kinds, told
    assert all(text for _, _, text in told)
    assert ("xid-79", True) in [(kind, GPU_3 in text) for kind, _, text in told]
    printed = plane.navarch("explain", node)
    assert new in printed
    assert f"replaces {node}" in plane.navarch("explain", new)
    assert story.blocked is None
    assert new in story.reason
    # What is told of the other node carries its name, or it would read as this one's own.
    assert f"{new}: registered" in printed


def test_an_injected_fault_is_the_same_as_a_line_in_the_log(plane: Plane) -> None:
    if find_spec("navarch_sim.commands") is None:
        pytest.skip("`navarch inject` is not installed")
    before = plane.settled(3)
    node = max(before)
    assert GPU_3 in plane.navarch("inject", node, "xid", "79", "--gpu", "3")
    assert plane.hears("node.failed", node).event["gpus"][0]["index"] == 3
    plane.healed(node)


def test_what_a_driver_reads_of_a_gpu_degrades_its_node_until_it_is_over(plane: Plane) -> None:
    node = min(plane.settled(3))
    plane.navarch("inject", node, "reading", "remap_pending=true", "--gpu", "3")
    event = plane.hears("node.degraded", node).event
    assert (event["code"], event["rule"]) == ("remap_pending", "memory-repair-waits")
    assert GPU_3 in event["reason"]
    plane.navarch("inject", node, "heal")
    plane.hears("node.recovered", node)
    assert node in plane.settled(3), "nothing was replaced"


def test_a_gpu_that_is_lost_without_any_line_is_found_by_its_driver_and_replaced(plane: Plane) -> None:
    node = min(plane.settled(3))
    plane.navarch("inject", node, "gpu-lost", "--gpu", "3")
    event = plane.hears("node.failed", node).event
    assert (event["code"], event["rule"]) == ("gpu_lost", "gpu-fell-off-the-bus-without-xid")
    assert event["gpus"][0]["index"] == 3
    assert node not in plane.healed(node)


def test_faults_of_applications_and_codes_that_nobody_knows_destroy_nothing(plane: Plane) -> None:
    before = plane.settled(3)
    faulty, strange, _ = sorted(before)
    pids = {node: plane.pid(node) for node in before}
    plane.prints(
        faulty,
        *(
            xid(f"{code}, pid={1000 + n}, name=python, Ch {n:08x}")
            for n, code in itertools.product(range(100), (31, 13, 43, 45))
        ),
    )
    plane.prints(strange, xid("999, pid='<unknown>', name=<unknown>, nobody has seen this"))
    degraded = plane.hears("node.degraded", strange).event
    assert (degraded["code"], degraded["rule"]) == ("xid-999", "unclassified")
    plane.until(lambda: {"xid-13", "xid-31", "xid-43", "xid-45"} <= _codes(plane, faulty), "the faults in its story")

    assert plane.node(strange).health == "degraded"
    assert plane.node(faulty).health == "healthy"
    assert plane.active() == before
    assert {node: plane.pid(node) for node in before} == pids
    assert not plane.plan().changes
    assert {one.kind for one in plane.heard()} == {"node.degraded.v1"}
    assert "999" in plane.navarch("get", strange)
    # A replacement brings the fleet back to healthy for whoever comes next.
    plane.prints(strange, xid(FALLEN_OFF))
    plane.healed(strange)


def _codes(plane: Plane, node: str) -> set[str]:
    return {item.code for item in plane.explain(node).items}


def test_a_fault_of_a_gpu_that_no_inventory_lists_is_judged_all_the_same(plane: Plane) -> None:
    node = min(plane.settled(3))
    plane.prints(node, xid(FALLEN_OFF, pci="0000:ff:00"))
    event = plane.hears("node.failed", node).event
    assert event["entity"] == "gpu:0000:ff:00"
    assert "not in the node's inventory" in event["reason"]
    plane.healed(node)


def test_a_thousand_lines_are_one_failure_and_one_replacement(plane: Plane) -> None:
    before = plane.settled(3)
    node = min(before)
    plane.prints(node, *([xid(FALLEN_OFF)] * 1000))
    after = plane.healed(node)
    assert len(after - before) == 1
    assert len(plane.heard("node.failed")) == 1
    assert len(plane.heard("node.planned")) == 1
    assert plane.living() == after


@pytest.mark.parametrize(
    ("code", "said"), [(48, "An uncorrectable double bit error (DBE)"), (119, "Timeout after 6s of waiting for RPC")]
)
def test_a_fault_that_leaves_work_running_waits_for_it_and_says_so(plane: Plane, code: int, said: str) -> None:
    before = plane.settled(3)
    node = min(before)
    plane.inject(node, verb="busy")
    plane.until(lambda: _idle(plane, node) is False, "work on the node")
    plane.prints(node, xid(f"{code}, pid='<unknown>', name=<unknown>, {said}"))
    (new,) = {plane.hears("node.active").node}
    waits = plane.until(lambda: _blocked(plane, node, "busy"), "word of what it waits for")
    assert "GPUs 0-7 have 1 process each" in waits
    for command in ("get", "explain"):
        assert waits in plane.navarch(command, node)
    assert plane.node(node).status == "draining"
    assert plane.active() == {*before, new} - {node}
    assert node in plane.living()
    assert not plane.heard("node.drained", node)

    plane.inject(node, verb="idle")
    drained = plane.hears("node.drained", node, within_s=5.0).event
    assert (drained["skipped"], drained["forced"]) == (False, False)
    assert plane.healed(node) == {*before, new} - {node}


def _idle(plane: Plane, node: str) -> bool | None:
    sample = plane.node(node).sample
    return None if sample is None else sample.idle


def _blocked(plane: Plane, node: str, code: str) -> str:
    blocked = plane.node(node).blocked
    return blocked.text if blocked is not None and blocked.code == code else ""


def test_work_that_does_not_leave_is_ended_at_the_deadline_of_the_drain_and_that_is_told(plane: Plane) -> None:
    (node,) = plane.settled(1, "hasty")
    plane.inject(node, verb="busy")
    plane.until(lambda: _idle(plane, node) is False, "work on the node")
    plane.prints(node, xid("48, pid='<unknown>', name=<unknown>, An uncorrectable double bit error (DBE)"))
    drained = plane.hears("node.drained", node).event
    assert drained["forced"]
    assert "deadline" in drained["reason"]
    plane.healed(node, count=1, pool="hasty")


def test_two_failures_at_once_are_healed_one_after_the_other_and_three_nodes_stay(plane: Plane) -> None:
    before = plane.settled(3)
    one, two, _ = sorted(before)
    plane.prints(one, xid(FALLEN_OFF))
    plane.prints(two, xid(FALLEN_OFF))
    after = plane.healed(one, two)
    assert len(plane.heard("node.planned")) == 2
    first, second = plane.heard("node.planned")
    # The second replacement is planned once the first is active; until then its node is cordoned and says why.
    assert plane.order(("node.active", first.node))[0] < plane.order(("node.planned", second.node))[0]
    assert plane.living() == after


def test_a_replacement_that_fails_as_soon_as_it_is_there_is_replaced_in_its_turn(plane: Plane) -> None:
    before = plane.settled(3)
    node = min(before)
    plane.prints(node, xid(FALLEN_OFF))
    ill = plane.hears("node.launched").node
    plane.prints(ill, xid(FALLEN_OFF))
    after = plane.healed(node, ill)
    assert len(after & before) == 2
    assert plane.living() == after


def test_a_failed_node_stays_and_is_cordoned_where_the_pool_replaces_nothing(plane: Plane) -> None:
    (node,) = plane.settled(1, "kept")
    plane.prints(node, xid(FALLEN_OFF))
    plane.hears("node.cordoned", node)
    plane.until(lambda: _blocked(plane, node, "auto-replace-off"), "word of why it stays")
    detail = plane.node(node)
    assert (detail.status, detail.health, detail.phase) == ("unhealthy", "unhealthy", "active")
    assert detail.cordons
    assert plane.living("kept") == {node}
    assert not plane.heard("node.planned")
    assert not plane.heard("node.draining")
    for command in (("explain", node), ("plan", "kept")):
        assert "does not replace failed nodes" in plane.navarch(*command)
