"""What the death, or the silence, of machines and of Navarch's own parts does to a fleet: signals to real processes.

One fleet serves all of it, as one fleet would: each test breaks what the one before has left.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.plane import FALLEN_OFF, Plane, PlaneKeeper, xid

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DEADLINE_S = 5.0
CONFIG = f"""
server: {{heartbeat_interval: 200ms, heartbeat_timeout: 1500ms, silence_deadline: {DEADLINE_S:g}s}}
providers:
  local: {{type: local, gpu_count: 8}}
pools:
  training:
    instance_type: h100-8x
    min_nodes: 3
    max_nodes: 10
    registration_timeout: 1m
    disruption: {{max_per_hour: 100}}
"""
ENDINGS = ("node.failed", "node.draining", "node.terminating", "node.terminated")


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneKeeper]:
    with PlaneKeeper(tmp_path_factory, CONFIG) as keeper:
        yield keeper


@pytest.fixture
def plane(keeper: PlaneKeeper) -> Plane:
    return keeper.plane()


@pytest.fixture
def stopped(plane: Plane) -> Iterator[list[int]]:
    """Pids of machines that a test stops: they go on whatever becomes of it, or nothing could end them in good order."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        plane.resume(pid)


def destroyed(plane: Plane) -> list[str]:
    return [one.kind for one in plane.heard() if one.kind.removesuffix(".v1") in ENDINGS]


def test_a_machine_that_dies_is_suspect_then_gone_by_its_providers_word_and_replaced(plane: Plane) -> None:
    before = plane.settled(3)
    node = min(before)
    plane.signal(node, signal.SIGKILL)
    after = plane.healed(node)
    (new,) = after - before
    failed = plane.hears("node.failed", node).event
    assert (failed["cause"], failed["rule"], failed["entity"]) == ("provider-gone", "liveness", "machine")
    assert "no longer exists" in failed["reason"]
    assert [one["source"] for one in failed["evidence"]] == ["liveness", "provider"]
    order = plane.order(
        ("node.suspect", node), ("node.cordoned", node), ("node.failed", node), ("node.planned", new),
        ("node.launched", new), ("node.active", new),
    )  # fmt: skip
    assert order == sorted(order)
    assert plane.living() == after
    assert not plane.heard("node.draining", node)
    printed = plane.navarch("explain", node)
    for word in ("node.suspect", "provider-says-gone", "node.failed", f"{new}: replaces {node}"):
        assert word in printed


def test_a_machine_that_was_cut_off_and_comes_back_in_time_is_the_same_node_and_nothing_was_destroyed(
    plane: Plane, stopped: list[int]
) -> None:
    before = plane.settled(3)
    node = min(before)
    with plane.listening(f"navarch.probe.{node}") as probes:
        stopped.append(plane.signal(node, signal.SIGSTOP))
        suspect = plane.hears("node.suspect", node).event
        assert suspect["silent_s"] >= 1.5
        assert plane.until(lambda: probes, "a probe")
    plane.hears("node.cordoned", node)
    plane.until(lambda: plane.node(node).status == "cordoned", "a cordoned node")
    assert plane.node(node).health == "suspect"
    said = plane.until(lambda: _blocked(plane, node), "what it waits for")
    assert "local says" in said
    assert "running" in said
    assert "probes" in said
    assert not plane.plan().changes
    plane.resume(stopped.pop())
    plane.hears("node.recovered", node)
    plane.hears("node.uncordoned", node)
    assert plane.settled(3) == before
    assert not destroyed(plane)
    printed = plane.navarch("explain", node)
    for word in ("node.suspect", "heard again after", "node.uncordoned"):
        assert word in printed


def _blocked(plane: Plane, node: str) -> str:
    blocked = plane.node(node).blocked
    return blocked.text if blocked is not None and "says" in blocked.text else ""


def test_a_machine_that_stays_silent_is_replaced_after_the_long_deadline_and_not_before(
    plane: Plane, stopped: list[int]
) -> None:
    before = plane.settled(3)
    node = min(before)
    began = time.monotonic()
    stopped.append(plane.signal(node, signal.SIGSTOP))
    plane.hears("node.failed", node)
    assert time.monotonic() - began >= DEADLINE_S - 0.5
    failed = plane.heard("node.failed", node)[0].event
    assert failed["cause"] == "silence"
    assert "no answer to a probe" in failed["reason"]
    (new,) = {plane.hears("node.active").node}
    # Its work may well go on behind the silence: nothing proves the contrary before the deadline of its drain.
    detail = plane.until(lambda: plane.node(node) if plane.node(node).status == "draining" else None, "a drain")
    assert detail.replaced_by == new
    assert plane.until(lambda: plane.active() == {*before, new} - {node}, "three active nodes")
    plane.navarch("terminate", node, "--yes", "--force", "--reason", "its work is lost")
    plane.healed(node)
    assert plane.living() == {*before, new} - {node}


def test_of_a_pool_of_three_a_second_silent_node_is_given_up_only_when_the_first_has_a_successor(
    plane: Plane, stopped: list[int]
) -> None:
    before = plane.settled(3)
    one, two, well = sorted(before)
    stopped += [plane.signal(one, signal.SIGSTOP), plane.signal(two, signal.SIGSTOP)]
    first = plane.hears("node.failed").node
    second = two if first == one else one
    plane.hears("node.failed", second)
    plane.until(lambda: len(plane.heard("node.active")) == 2, "two successors")
    new, newer = (one.node for one in plane.heard("node.active"))
    # Its successor was found healthy before the second was given up; that it is active is told a moment later.
    healthy = [item.at for item in plane.explain(new).items if item.code == "passed"]
    assert healthy[0].isoformat() < plane.hears("node.failed", second).event["at"].replace("Z", "+00:00")
    order = plane.order(("node.failed", first), ("node.failed", second), ("node.active", newer))
    assert order == sorted(order)
    assert "half of pool training" in plane.navarch("explain", second)
    # Silence proves nothing about their work: both machines stay for now.
    assert plane.living() == {*before, new, newer}
    assert plane.until(lambda: plane.active() == {well, new, newer}, "three active nodes")
    for pid in stopped:
        plane.resume(pid)
    assert plane.healed(first, second) == {well, new, newer}


def test_a_whole_pool_that_falls_silent_is_believed_to_be_alive(plane: Plane, stopped: list[int]) -> None:
    before = plane.settled(3)
    stopped += [plane.signal(node, signal.SIGSTOP) for node in before]
    for node in before:
        plane.hears("node.suspect", node)
    time.sleep(DEADLINE_S + 1.5)
    assert not destroyed(plane)
    assert not plane.heard("node.planned")
    for pid in stopped:
        plane.resume(pid)
    for node in before:
        plane.hears("node.uncordoned", node)
    assert plane.settled(3) == before
    assert not destroyed(plane)


@pytest.mark.parametrize(
    "servers",
    [("nats-server",), ("redis-server", "valkey-server"), ("nats-server", "redis-server", "valkey-server")],
    ids=["NATS", "Redis", "both"],
)
def test_a_replacement_goes_on_when_a_server_is_killed_under_it(plane: Plane, servers: tuple[str, ...]) -> None:
    before = plane.settled(3)
    node = min(before)
    plane.prints(node, xid(FALLEN_OFF))
    plane.hears("node.failed", node)
    plane.kill_servers(*servers)
    assert len(_replaced(plane, node, before) - before) == 1


@pytest.mark.long
@pytest.mark.parametrize("moment", ["node.failed", "node.launched", "node.terminating"])
def test_a_control_plane_killed_in_the_middle_of_a_replacement_finishes_it_once_it_is_back(
    plane: Plane, moment: str
) -> None:
    before = plane.settled(3)
    node = min(before)
    plane.prints(node, xid(FALLEN_OFF))
    plane.hears(moment)
    plane.kill_and_restart()
    # Killed between a launch's commit and its call, it is not known whether there is a machine: it is looked up, and asked
    # for again only when the call can have no effect any more (`Timings.proof_after`, 35 s).
    after = _replaced(plane, node, before, within_s=75.0)
    (new,) = after - before
    events = plane.fleet.events()
    assert [one["node"] for one in events if one["type"] == "node.failed.v1" and one["node"] == node] == [node]
    assert [one["node"] for one in events if one["type"] == "node.launched.v1" and one["node"] == new] == [new]
    # The other two lived on through it.
    assert len(after & before) == 2


def _replaced(plane: Plane, node: str, before: set[str], within_s: float = 30.0) -> set[str]:
    """Waits until a node is replaced, once, and returns the pool's nodes. Core subscriptions may have missed some of
    it, so it is the records that are asked."""

    def done() -> set[str]:
        nodes = plane.settled(3, within_s=within_s)
        return nodes if node not in nodes else set()

    after: set[str] = plane.until(done, f"a pool without {node}", within_s=40.0)
    plane.until(lambda: sorted(plane.machines()) == sorted(after), "one machine for each node, and no other")
    instances = [one for one in plane.fleet.instances() if one["state"] != "gone"]
    assert {one["node"] for one in instances} == after
    assert after - before, "it was replaced"
    return after


def test_a_line_printed_while_nobody_listened_is_acted_on_afterwards(plane: Plane) -> None:
    before = plane.settled(3)
    node = min(before)
    log: Path = plane.instance(node) / "kmsg"
    plane.kill()
    with log.open("a") as kmsg:
        kmsg.write(xid(FALLEN_OFF) + "\n")
    time.sleep(0.5)
    plane.start()
    assert len(_replaced(plane, node, before) - before) == 1
