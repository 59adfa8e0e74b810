"""Two releases side by side: the newer one writes records that the older one may read and must not write."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from fixtures.servers import Servers
from navarch_common.model.node import NODE
from navarch_common.store.encoding import Value, split_value
from navarch_common.store.redis_commit import Names
from support.apart import Apart, apart
from support.newer import FIELD, SCHEMA

pytestmark = [pytest.mark.long, pytest.mark.integration, pytest.mark.slow]

LINE = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
CONFIG = """
cluster: {name}
bus: {{prefix: {name}}}
server: {{http_address: '127.0.0.1:0', address: '127.0.0.1:0', heartbeat_interval: 300ms}}
providers: {{local: {{type: local}}}}
pools:
  training: {{provider: local, instance_type: h100-8x, min_nodes: 4, max_nodes: 8, disruption: {{max_unavailable: 3}}}}
"""


class Releases:
    """Services of two releases, and what stands in the store."""

    def __init__(self, services: Apart, redis: Redis, cluster: str) -> None:
        self.services, self._redis, self._names = services, redis, Names(cluster)

    def stored(self, node: str) -> Value:
        value = self._redis.get(self._names.record(NODE.key(node).path))
        assert isinstance(value, bytes), node
        return split_value(value)

    def schema(self, node: str) -> int:
        return self.stored(node).schema

    def break_gpu(self, node: str) -> None:
        with (self.services.data_dir / "instances" / node / "kmsg").open("a") as kmsg:
            kmsg.write(LINE)

    def health_of(self, node: str) -> str:
        return next((str(one.health) for one in self.services.nodes() if one.node == node), "gone")

    def replaced(self, node: str) -> set[str]:
        """Breaks it, waits until it is gone and the pool whole, and returns what came instead."""
        before = self.services.active()
        self.break_gpu(node)
        self.services.until(lambda: self.health_of(node) == "gone", f"{node} gone")
        return self.services.until_active(4) - before

    def change_provisioner(self, copy: int, *, newer: bool) -> None:
        """The one that runs ends in good order, another takes over."""
        for name in [name for name in self.services.processes if name.startswith("provisioner")]:
            process = self.services.processes.pop(name)
            process.terminate()
            assert process.wait(timeout=15) == 0, self.services.log(name).read_text()[-2000:]
        self.services.spawn("provisioner", copy, newer=newer)


@pytest.fixture
def releases(tmp_path: Path, servers: Servers, unique: str) -> Iterator[Releases]:
    with apart(tmp_path, servers, CONFIG.format(name=unique)) as services, Redis.from_url(servers.redis.url) as redis:
        yield Releases(services, redis, unique)


def test_an_upgrade_and_its_rollback_lose_nothing_that_the_newer_release_wrote(releases: Releases) -> None:
    services = releases.services
    for service in ("gateway", "health", "autoscaler", "provisioner"):
        services.start(service)
    first, second, third, fourth = sorted(services.until_active(4))
    assert {releases.schema(node) for node in (first, second, third, fourth)} == {NODE.schema}

    # Upgrade: the newer release goes on with what the older one left.
    releases.change_provisioner(1, newer=True)
    [fifth] = releases.replaced(first)
    assert releases.schema(fifth) == SCHEMA
    assert FIELD in releases.stored(fifth).data

    # Rollback: the older release works on with what it may write, and writes nothing that is newer.
    releases.change_provisioner(2, newer=False)
    [sixth] = releases.replaced(second)
    assert releases.schema(sixth) == NODE.schema
    before = releases.stored(fifth)
    releases.break_gpu(fifth)
    services.until(lambda: releases.health_of(fifth) == "unhealthy", "the verdict, which health may write")
    releases.break_gpu(third)
    services.until(lambda: releases.health_of(third) == "gone", "the next failed node gone")
    assert releases.stored(fifth) == before
    assert services.processes["provisioner-2"].poll() is None

    # And up again: what had to wait is done.
    releases.change_provisioner(3, newer=True)
    services.until(lambda: releases.health_of(fifth) == "gone", "the failed node gone")
    assert {fourth, sixth} < services.until_active(4)
    assert services.machines() == 4
    assert not any(status for status in services.stop_all().values())
    for log in services.data_dir.parent.glob("*.log"):
        assert "crashed" not in log.read_text(), log.name
        assert "Traceback" not in log.read_text(), log.name
