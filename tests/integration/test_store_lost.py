"""A fleet whose Redis is flushed, restored from a backup, or whose NATS is wiped, while everything runs."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
import redis

from support.plane import FALLEN_OFF, Plane, plane_in, xid

pytestmark = [pytest.mark.long, pytest.mark.integration, pytest.mark.slow]

CONFIG = """
server: {http_address: '127.0.0.1:0', address: '127.0.0.1:0', heartbeat_interval: 300ms}
providers: {local: {type: local, gpu_count: 2}}
pools: {training: {provider: local, instance_type: h100-8x, min_nodes: 3, max_nodes: 6}}
"""
PATIENCE_S = 5.0
"""Within this a running control plane is in safe mode."""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    with plane_in(tmp_path, CONFIG) as plane:
        yield plane


def the_store(plane: Plane) -> "redis.Redis[bytes]":
    runtime = plane.fleet.runtime()
    assert runtime is not None
    return redis.Redis.from_url(runtime["redis"])


def dump(store: "redis.Redis[bytes]") -> dict[bytes, bytes]:
    found = {key: store.dump(key) for key in store.scan_iter(count=1000)}
    return {key: value for key, value in found.items() if value}


def restore(store: "redis.Redis[bytes]", backup: dict[bytes, bytes]) -> None:
    """As one step, as a server that starts from a backup is."""
    pipeline = store.pipeline(transaction=True)
    pipeline.flushall()
    for key, value in backup.items():
        pipeline.restore(key, 0, value)
    pipeline.execute()


def wipe_nats(plane: Plane) -> None:
    runtime = plane.fleet.runtime()
    assert runtime is not None

    async def wipe(url: str) -> None:
        client = await nats.connect(url)
        streams = await client.jetstream().streams_info()
        for stream in streams:
            await client.jetstream().delete_stream(str(stream.config.name))
        await client.close()

    asyncio.run(wipe(runtime["nats"]))


def in_safe_mode_within(plane: Plane, began: float) -> tuple[float, str]:
    heard = plane.hears("cluster.safe-mode-entered", within_s=PATIENCE_S)
    return time.monotonic() - began, str(heard.event["code"])


def acts(plane: Plane) -> list[str]:
    """What was done to machines, or is to be done, as the outsider heard it."""
    kinds = ("node.planned", "node.launched", "node.terminating", "node.terminated", "node.failed")
    return [
        f"{one.kind} {one.node} {one.event['code']}" for one in plane.heard() if one.kind.removesuffix(".v1") in kinds
    ]


def test_a_flushed_store_means_safe_mode_adoption_and_no_act_on_any_machine(plane: Plane) -> None:
    before = plane.settled(3)
    pids = {node: plane.pid(node) for node in before}
    plane.forget()
    began = time.monotonic()
    the_store(plane).flushall()
    took_s, code = in_safe_mode_within(plane, began)
    print(f"safe mode {took_s:.2f} s after FLUSHALL")
    assert (code, took_s < PATIENCE_S) == ("store-lost", True)
    plane.hears("cluster.safe-mode-left", within_s=60)
    print(f"safe mode left {time.monotonic() - began:.2f} s after FLUSHALL")
    assert plane.settled(3, within_s=60) == before
    assert {node: plane.pid(node) for node in before} == pids
    assert [act for act in acts(plane) if "adopted" not in act] == []


def test_a_store_restored_from_a_backup_means_safe_mode_and_no_healthy_machine_is_lost(plane: Plane) -> None:
    """The backup is of a time when a machine had not registered yet and another was still alive."""
    first = plane.settled(3)
    plane.navarch("pool", "scale", "training", "--nodes", "4")
    plane.until(lambda: len(plane.nodes()) == 4, "a fourth node")
    backup = dump(the_store(plane))
    plane.settled(4)
    gone = min(first)
    plane.navarch("replace", gone, "--yes", "--force", "--reason", "test")
    after = plane.healed(gone, count=4, within_s=60)
    pids = {node: plane.pid(node) for node in after}
    plane.forget()
    began = time.monotonic()
    restore(the_store(plane), backup)
    took_s, code = in_safe_mode_within(plane, began)
    print(f"safe mode {took_s:.2f} s after the backup came into force")
    assert code == "store-rolled-back"
    plane.hears("cluster.safe-mode-left", within_s=40)
    assert plane.settled(4, within_s=60) == after
    assert {node: plane.pid(node) for node in after} == pids


def test_a_wiped_bus_means_safe_mode_and_everything_works_again(plane: Plane) -> None:
    before = plane.settled(3)
    plane.forget()
    began = time.monotonic()
    wipe_nats(plane)
    took_s, code = in_safe_mode_within(plane, began)
    print(f"safe mode {took_s:.2f} s after NATS was wiped")
    assert code == "mirror-lost"
    plane.hears("cluster.safe-mode-left", within_s=40)
    assert plane.settled(3) == before
    assert acts(plane) == []
    broken = min(before)
    plane.prints(broken, xid(FALLEN_OFF))
    plane.healed(broken, within_s=60)
