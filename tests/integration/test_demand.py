"""Demand rises and falls: anyone publishes a queue depth, or the GPUs work, and the pools follow within their bounds.

Real command, real machines, and a NATS client that knows nothing of Navarch but a subject. Each test has a pool of its
own, so that one control plane serves them all.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.plane import Plane, plane_in

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = """
server: {heartbeat_interval: 1s, autoscale_interval: 1s}
providers:
  local: {type: local, gpu_count: 2}
defaults:
  instance_type: h100-2x
  cooldown: 0s
  scale_down: {idle_after: 1s}
pools:
  training: {min_nodes: 1, max_nodes: 6, autoscaling: {type: queue, jobs_per_node: 10}}
  sums: {min_nodes: 1, max_nodes: 4, autoscaling: {type: queue, jobs_per_node: 10}}
  steps: {min_nodes: 1, max_nodes: 9, max_step_up: 1, autoscaling: {type: queue, jobs_per_node: 10}}
  cools: {min_nodes: 1, max_nodes: 4, cooldown: 1h, autoscaling: {type: queue, jobs_per_node: 10}}
  works: {min_nodes: 1, max_nodes: 2, autoscaling: {type: reactive, scale_up_at: 50, scale_down_at: 10}}
  sized: {min_nodes: 1, max_nodes: 3}
"""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane_in(tmp_path_factory.mktemp("demand"), CONFIG, nodes=1) as plane:
        yield plane


def wants(plane: Plane, pool: str, depth: object, source: str = "") -> None:
    """Someone says how much is queued."""
    payload = depth if isinstance(depth, str) else json.dumps(depth)
    plane.outsider.publish(f"navarch.metrics.queue.{pool}{'.' if source else ''}{source}", payload.encode())


def status(plane: Plane, pool: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plane.navarch("pool", "status", pool, "-o", "json"))
    return found


def desired(plane: Plane, pool: str, nodes: int, within_s: float = 10.0) -> dict[str, Any]:
    """Waits until so many nodes are desired."""

    def answer() -> dict[str, Any] | None:
        found = status(plane, pool)
        return found if found["desired"] == nodes else None

    found: dict[str, Any] = plane.until(answer, f"{nodes} nodes desired in {pool}", within_s)
    return found


def limited(plane: Plane, pool: str, code: str) -> dict[str, Any]:
    """Waits until this is what keeps the pool from what it wants."""

    def answer() -> dict[str, Any] | None:
        found = status(plane, pool)
        return found if found["limited"] and found["limited"]["code"] == code else None

    found: dict[str, Any] = plane.until(answer, f"{pool} limited by {code}", 10)
    return found


def works(plane: Plane, node: str, verb: str) -> None:
    """Its GPUs get work, or have none."""
    plane.navarch("inject", node, verb)


def test_forty_queued_jobs_at_ten_a_node_make_four_nodes_and_the_event_says_why(plane: Plane) -> None:
    wants(plane, "training", 40)
    assert len(plane.settled(4)) == 4
    told = next(one.event for one in plane.heard("pool.resized") if one.event["pool"] == "training")
    assert (told["before"], told["after"], told["code"], told["actor"]) == (1, 4, "queue-depth", "autoscaler")
    assert told["reason"] == "40 queued at 10 jobs a node need 4 nodes"


def test_two_sources_of_a_pool_are_added_up(plane: Plane) -> None:
    wants(plane, "sums", {"queue_depth": 15, "pending_jobs": 15}, "slurm")
    desired(plane, "sums", 2)
    wants(plane, "sums", "6", "ray")
    assert "21 queued" in desired(plane, "sums", 3)["reason"]
    wants(plane, "sums", 0, "slurm")
    wants(plane, "sums", 12, "ray")
    desired(plane, "sums", 2)


def test_no_demand_raises_a_pool_over_its_maximum(plane: Plane) -> None:
    wants(plane, "sums", 10**6, "ray")
    found = desired(plane, "sums", 4)
    assert found["limited"]["code"] == "max-nodes"
    assert "max_nodes 4" in found["limited"]["text"]


def test_one_message_moves_a_pool_by_one_step_and_the_next_message_by_another(plane: Plane) -> None:
    wants(plane, "steps", 80)
    desired(plane, "steps", 2)
    plane.settled(2, "steps")
    for _ in range(4):  # looked at again and again, it is still the same message
        plane.navarch("list")
        assert status(plane, "steps")["desired"] == 2
    assert limited(plane, "steps", "max-step-up")["desired"] == 2
    wants(plane, "steps", 80)
    desired(plane, "steps", 3)


def test_within_the_cooldown_a_pool_keeps_its_size_and_says_until_when(plane: Plane) -> None:
    wants(plane, "cools", 20)
    desired(plane, "cools", 2)
    wants(plane, "cools", 40)
    found = limited(plane, "cools", "cooldown")
    assert found["desired"] == 2
    assert "the cooldown of 1h" in found["limited"]["text"]
    wants(plane, "cools", 0)
    assert limited(plane, "cools", "cooldown")["desired"] == 2


def test_busy_gpus_add_a_node_and_idle_ones_take_it_away_again(plane: Plane) -> None:
    (node,) = plane.settled(1, "works")
    works(plane, node, "busy")
    plane.settled(2, "works")
    told = next(one.event for one in plane.heard("pool.resized") if one.event["pool"] == "works")
    assert (told["after"], told["code"]) == (2, "utilization-high")
    assert "one node more" in told["reason"]
    works(plane, node, "idle")
    desired(plane, "works", 1)
    plane.settled(1, "works", within_s=40)


def test_when_demand_ends_idle_nodes_go_and_busy_ones_stay(plane: Plane) -> None:
    wants(plane, "training", 40)
    nodes = plane.settled(4)
    busy = set(sorted(nodes)[:2])
    for node in busy:
        works(plane, node, "busy")
        plane.until(lambda node=node: plane.node(node).sample.idle is False, f"{node} busy")
    wants(plane, "training", 0)
    assert desired(plane, "training", 1)["limited"]["code"] == "min-nodes"
    assert plane.settled(2, within_s=40) == busy
    blocked = plane.until(lambda: status(plane, "training")["supply"]["blocked"], "a reason for staying", 15)
    assert "idle" in blocked["text"]
    assert plane.living() == busy
    works(plane, min(busy), "idle")
    assert plane.settled(1, within_s=40) == {max(busy)}


def test_a_pool_without_autoscaling_is_kept_at_what_an_operator_wants(plane: Plane) -> None:
    assert status(plane, "sized")["autoscaling"] == ""
    plane.navarch("pool", "scale", "sized", "--nodes", "2", "--reason", "big week", "--wait")
    plane.settled(2, "sized")
    wants(plane, "sized", 1000)
    assert "big week" in status(plane, "sized")["reason"]
    victim = min(plane.settled(2, "sized"))
    plane.navarch("terminate", victim, "--yes", "--wait")
    after = plane.settled(2, "sized")
    assert victim not in after


def test_a_size_out_of_bounds_is_refused_and_names_the_bound(plane: Plane) -> None:
    for nodes, bound in (("4", "max_nodes 3"), ("0", "min_nodes 1"), ("1000000", "max_nodes 3")):
        done = plane.fleet.navarch("pool", "scale", "sized", "--nodes", nodes, check=False)
        assert done.returncode == 1
        assert bound in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_paused_pool_hears_demand_and_keeps_its_size_until_it_is_resumed(plane: Plane) -> None:
    wants(plane, "sums", 0, "slurm")  # a source that fell silent would keep the size
    wants(plane, "sums", 10, "ray")
    desired(plane, "sums", 1)
    plane.navarch("pool", "pause", "sums", "--reason", "maintenance", "--wait")
    wants(plane, "sums", 30, "ray")
    plane.until(lambda: status(plane, "sums")["opinions"][0]["target"] == 3, "it to be heard", 10)
    found = limited(plane, "sums", "paused")
    assert (found["desired"], found["paused"]) == (1, True)
    assert "maintenance" in found["limited"]["text"]
    plane.navarch("pool", "resume", "sums", "--wait")
    desired(plane, "sums", 3)


def test_an_operators_size_holds_against_demand_for_as_long_as_asked(plane: Plane) -> None:
    wants(plane, "sums", 0, "slurm")
    wants(plane, "sums", 10, "ray")
    plane.navarch("pool", "scale", "sums", "--nodes", "2", "--for", "8s", "--wait")
    found = status(plane, "sums")
    assert (found["desired"], found["limited"]["code"]) == (2, "operator-hold")
    assert found["hold_until"]
    desired(plane, "sums", 1, within_s=20)
