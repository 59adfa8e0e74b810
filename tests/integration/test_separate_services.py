"""Every service as a process of its own, against a NATS and a Redis that others share."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fixtures.servers import Servers
from support.apart import Apart, apart

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SERVICES = ("gateway", "health", "autoscaler", "provisioner")
LINE = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
CONFIG = """
cluster: {name}
bus: {{prefix: {name}}}
server: {{http_address: '127.0.0.1:0', address: '127.0.0.1:0', heartbeat_interval: 300ms}}
providers: {{local: {{type: local}}}}
pools:
  training:
    {{provider: local, instance_type: h100-8x, min_nodes: 3, max_nodes: 6, cooldown: 0s,
      autoscaling: {{type: queue, jobs_per_node: 10}}}}
"""


@pytest.fixture
def services(tmp_path: Path, servers: Servers, unique: str) -> Iterator[Apart]:
    with apart(tmp_path, servers, CONFIG.format(name=unique)) as services:
        yield services


def test_four_processes_heal_and_size_a_pool_together(services: Apart) -> None:
    for service in SERVICES:
        services.start(service)
    before = services.until_active(3)
    broken = min(before)
    with (services.data_dir / "instances" / broken / "kmsg").open("a") as kmsg:
        kmsg.write(LINE)
    services.until(lambda: broken not in {node.node for node in services.nodes()}, "the failed node gone")
    after = services.until_active(3)
    assert len(after - before) == 1
    assert services.machines() == 3
    assert services.stop_all() == dict.fromkeys((f"{service}-0" for service in SERVICES), 0)


def test_any_service_may_be_killed_and_its_second_copy_goes_on(services: Apart) -> None:
    for service in SERVICES:
        services.start(service)
    for service in ("health", "autoscaler", "provisioner"):
        services.start(service, copy=1)
    before = services.until_active(3)
    for service in ("health", "autoscaler", "provisioner"):
        services.kill(service)
    broken = min(before)
    with (services.data_dir / "instances" / broken / "kmsg").open("a") as kmsg:
        kmsg.write(LINE)
    services.until(lambda: broken not in {node.node for node in services.nodes()}, "the failed node gone")
    services.until_active(3)
    assert services.machines() == 3


def test_each_service_answers_for_its_own_health(services: Apart, tmp_path: Path) -> None:
    for service in SERVICES:
        services.start(service)
    services.until_active(3)
    for service in SERVICES:
        log = (tmp_path / f"{service}-0.log").read_text()
        address = next(
            word for line in log.splitlines() if "probes" in line for word in line.split('"') if word.startswith("127.")
        )
        assert httpx.get(f"http://{address}/livez").status_code == 200
        assert httpx.get(f"http://{address}/readyz").status_code == 200
        assert "navarch_build_info" in httpx.get(f"http://{address}/metrics").text
