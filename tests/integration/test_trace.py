"""One trace from the line in a machine's kernel log to the provider's launch call, over three processes' worth of work."""

from pathlib import Path

import pytest

from support.collector import collecting
from support.fleet import fleet_in

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LINE = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"


def test_a_kernel_line_can_be_followed_to_the_launch_of_the_replacement(tmp_path: Path) -> None:
    with collecting() as collector:
        config = f"""
telemetry: {{otlp_endpoint: "{collector.url}"}}
server: {{heartbeat_interval: 500ms}}
providers: {{local: {{type: local}}}}
pools:
  training: {{provider: local, instance_type: h100-8x, min_nodes: 2, max_nodes: 4}}
"""
        with fleet_in(tmp_path, config) as fleet:
            fleet.start()
            node = min(fleet.until_active(2))
            with (fleet.data_dir / "instances" / node / "kmsg").open("a") as kmsg:
                kmsg.write(LINE)
            (failed,) = fleet.until(lambda: fleet.events("node.failed"), what="node.failed")
            launches = fleet.until(
                lambda: [s for s in collector.named("provider.launch") if s.trace_id == failed["trace_id"]],
                what="the launch call in the failure's trace",
            )
            line = fleet.until(
                lambda: (found := collector.ancestry(launches[0]))[-1].service == "navarch-agent" and found,
                what="the agent's span at the root of the trace",
            )
            fleet.stop()
    assert line[0].name == "provider.launch"
    assert [span.name for span in line][-2:] == ["verdict", "kernel-line"]
    assert [span.service for span in line][-2:] == ["navarch-health", "navarch-agent"]
    assert line[0].service == "navarch-provisioner"
    assert line[-1].parent_id == ""
    assert {span.trace_id for span in line} == {failed["trace_id"]}
