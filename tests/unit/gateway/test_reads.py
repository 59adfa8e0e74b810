"""What the HTTP door shows."""

from datetime import timedelta
from typing import Any

import pytest

from fixtures.records import pool_resized
from navarch_common.copies import CopyReport, Result
from navarch_common.events import encode
from navarch_common.model.health import HEALTH, HealthStatus
from navarch_common.model.node import NODE
from navarch_common.model.pool import POOL
from navarch_common.store.base import Commit
from support.gateway_world import GatewayWorld, health, node, pool_record

NODE_FIELDS = {
    "node", "pool", "status", "health", "phase", "cordons", "provider", "region", "zone", "instance_type", "instance_id",
    "provider_id", "hostname", "gpus", "replaces", "reason", "created_at", "last_heartbeat",
}  # fmt: skip
POOL_FIELDS = {
    "pool", "desired", "active", "provisioning", "unhealthy", "min_nodes", "max_nodes", "paused", "reason",
}  # fmt: skip


def names(answer: Any) -> list[str]:
    return [item["node"] for item in answer["items"]]


async def test_a_node_has_every_field_that_was_promised(gateway: GatewayWorld) -> None:
    for item in (await gateway.get("/nodes"))["items"]:
        assert set(item) >= NODE_FIELDS
    assert set(await gateway.get("/nodes/n1")) >= NODE_FIELDS


async def test_a_pool_has_every_field_that_was_promised(gateway: GatewayWorld) -> None:
    for item in (await gateway.get("/pools"))["items"]:
        assert set(item) >= POOL_FIELDS


async def test_nodes_are_listed_by_name_without_those_that_ended(gateway: GatewayWorld) -> None:
    answer = await gateway.get("/nodes")
    assert names(answer) == ["n1", "n2", "n3", "n4", "n6", "n7"]
    assert answer["as_of"] == "2026-01-01T00:00:00Z"
    assert answer["next_page_token"] == ""


async def test_statuses_are_derived(gateway: GatewayWorld) -> None:
    found = {item["node"]: item["status"] for item in (await gateway.get("/nodes", all=1))["items"]}
    assert found == {
        "n1": "active", "n2": "active", "n3": "unhealthy", "n4": "provisioning", "n5": "terminated", "n6": "active",
        "n7": "cordoned",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"pool": "burst"}, ["n6", "n7"]),
        ({"pool": "nobody"}, []),
        ({"provider": "sky"}, ["n6"]),
        ({"region": "lab", "pool": "training"}, ["n1", "n2", "n3", "n4"]),
        ({"status": "unhealthy"}, ["n3"]),
        ({"status": "terminated"}, ["n5"]),
        ({"health": "unknown"}, ["n4", "n7"]),
        ({"label": "team=vision"}, ["n1"]),
        ({"label": ["team=vision", "team2=x"]}, []),
        ({"all": "1", "pool": "training"}, ["n1", "n2", "n3", "n4", "n5"]),
    ],
    ids=str,
)
async def test_nodes_are_filtered(gateway: GatewayWorld, params: dict[str, Any], expected: list[str]) -> None:
    assert names(await gateway.get("/nodes", **params)) == expected


async def test_pages_follow_one_another_and_repeat_nothing(gateway: GatewayWorld) -> None:
    seen: list[str] = []
    token = ""
    while True:
        page = await gateway.get("/nodes", limit=4, **({"page_token": token} if token else {}))
        seen += names(page)
        if not (token := page["next_page_token"]):
            break
    assert seen == ["n1", "n2", "n3", "n4", "n6", "n7"]


async def test_the_client_collects_all_pages(gateway: GatewayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("navarch_api.client._PAGE", 2)
    found = await gateway.client.nodes()
    assert [item.node for item in found.items] == ["n1", "n2", "n3", "n4", "n6", "n7"]
    assert found.items[0].gpus == 8
    assert [item.instance_id for item in (await gateway.client.instances(pool="burst")).items] == ["i-n6", "i-n7"]


async def test_a_node_in_detail_tells_what_its_last_heartbeat_said(gateway: GatewayWorld) -> None:
    idle, busy, silent = [await gateway.client.node(name) for name in ("n1", "n2", "n3")]
    assert idle.sample is not None
    assert idle.sample.idle is True
    assert busy.sample is not None
    assert busy.sample.idle is False
    assert busy.sample.gpus[0].process_count == 1
    assert silent.sample is None


async def test_a_late_heartbeat_says_nothing_of_work(gateway: GatewayWorld) -> None:
    gateway.world.advance(20)
    found = await gateway.client.node("n1")
    assert found.sample is not None
    assert found.sample.idle is None


async def test_a_verdict_on_an_earlier_machine_says_nothing_of_this_one(gateway: GatewayWorld) -> None:
    await gateway.world.plant(
        (NODE.key("n8"), node("n8", generation=2)), (HEALTH.key("n8"), health("n8", HealthStatus.UNHEALTHY))
    )
    found = await gateway.client.node("n8")
    assert (found.status, found.health, found.health_detail) == ("active", "unknown", None)


async def test_a_pool_counts_its_nodes_by_status(gateway: GatewayWorld) -> None:
    pool = await gateway.client.pool("training")
    assert (pool.active, pool.provisioning, pool.unhealthy, pool.desired) == (2, 1, 1, 3)
    assert (pool.min_nodes, pool.max_nodes, pool.autoscaling) == (1, 5, "")
    assert pool.dollars_per_hour == 10.0
    assert (await gateway.client.pool("burst")).autoscaling == "queue"


async def test_a_pool_that_left_the_configuration_is_retiring(gateway: GatewayWorld) -> None:
    await gateway.world.plant((POOL.key("old"), pool_record("old", desired=1)))
    await gateway.refresh()
    pool = await gateway.client.pool("old")
    assert (pool.retiring, pool.max_nodes) == (True, None)


async def test_what_changed_is_seen_on_the_next_look_and_what_was_deleted_on_the_next_sweep(
    gateway: GatewayWorld,
) -> None:
    await gateway.world.plant((NODE.key("n9"), node("n9")))
    await gateway.refresh()
    assert "n9" in names(await gateway.get("/nodes"))
    from navarch_common.store.base import Commit

    await gateway.world.store.commit(Commit(delete=(NODE.key("n9"),)))
    gateway.world.advance(31)
    await gateway.refresh()
    assert "n9" not in names(await gateway.get("/nodes"))


async def test_a_list_too_old_is_not_shown_as_the_truth(gateway: GatewayWorld) -> None:
    gateway.world.advance(31)
    problem = await gateway.refused("GET", "/nodes")
    assert (problem["status"], problem["code"]) == (503, "state-unavailable")
    assert (await gateway.http.get("/readyz")).status_code == 503


async def test_a_store_that_is_away_is_a_problem_not_a_crash(gateway: GatewayWorld) -> None:
    gateway.world.store.unavailable = True
    problem = await gateway.refused("GET", "/nodes/n1")
    assert (problem["status"], problem["code"]) == (503, "state-unavailable")


async def test_probes_and_metrics_stand_outside_the_api(gateway: GatewayWorld) -> None:
    for path in ("/livez", "/healthz"):
        assert (await gateway.http.get(path)).text == "ok\n"
    text = (await gateway.http.get("/metrics")).text
    for line in (
        'navarch_nodes_total{status="active"} 3.0',
        'navarch_nodes_total{status="terminated"} 1.0',
        'navarch_gpus_total{provider="here"} 32.0',
        'navarch_node_health_status{node_id="n3",status="unhealthy"} 0.0',
        'navarch_node_health_status{node_id="n1",status="healthy"} 1.0',
        'navarch_pool_nodes{pool="training",status="provisioning"} 1.0',
        'navarch_pool_nodes_desired{pool="training"} 3.0',
        'navarch_cost_dollars_per_hour{pool="burst",provider="sky"} 2.5',
        "navarch_safe_mode 0.0",
        "navarch_outbox_events 0.0",
    ):
        assert line in text, text
    assert "# HELP navarch_pool_nodes_desired " in text


async def test_a_gauge_of_what_is_gone_disappears(gateway: GatewayWorld) -> None:
    await gateway.world.plant((NODE.key("n1"), node("n1", phase="terminated")))
    await gateway.refresh()
    assert 'node_id="n1"' not in (await gateway.http.get("/metrics")).text


async def test_the_cluster_tells_how_it_is(gateway: GatewayWorld) -> None:
    await gateway.world.store.acquire("provisioner/training", "copy-2", timedelta(seconds=5))
    await gateway.refresh()
    status = await gateway.client.status()
    assert status.copies == {"gateway": ("copy-1",), "provisioner": ("copy-2",)}
    assert status.leases[0].name == "provisioner/training"
    assert (status.bus_connected, status.outbox_events) == (True, 0)
    assert status.services["gateway"]["config_error"] == ""
    version = await gateway.client.version()
    assert (version.cluster, version.installation) == ("test", "installation")


async def test_the_cluster_tells_of_every_copy_what_it_said_and_what_it_holds(gateway: GatewayWorld) -> None:
    report = CopyReport(
        service="health", instance="gpu-host-7-41-abcdef", version="1.2", since=gateway.world.clock.now(),
        at=gateway.world.clock.now(), ready=True, config_generation=3, facts={"verdicts_suspended": "the bus was away"},
        results=(Result(name="health", at=gateway.world.clock.now(), took_s=0.01, outcome="failed", error="no", failures=2),),
    )  # fmt: skip
    store = gateway.world.store
    await store.announce("health/gpu-host-7-41-abcdef", encode(report), timedelta(seconds=3))
    await store.announce("health/of-a-later-release", b'{"service": 7}', timedelta(seconds=3))
    lease = await store.acquire("provisioner/_fleet", "old-1-2", timedelta(seconds=3))
    await gateway.refresh()
    status = await gateway.client.status()
    health, provisioner = (copy for copy in status.members if copy.service != "gateway")
    assert (health.host, health.ready, health.version, health.config_generation) == ("gpu-host-7", True, "1.2", 3)
    assert [(last.name, last.outcome, last.failures) for last in health.results] == [("health", "failed", 2)]
    assert status.verdicts_suspended == {"gpu-host-7-41-abcdef": "the bus was away"}
    assert (provisioner.instance, provisioner.holds, provisioner.at) == ("old-1-2", ("_fleet",), None)
    assert lease is not None
    assert status.leases[0].fence == lease.fence
    gateway.world.advance(4)
    await gateway.refresh()
    assert [copy.service for copy in (await gateway.client.status()).members] == ["gateway"]


async def test_the_cluster_tells_how_long_events_have_waited(gateway: GatewayWorld) -> None:
    await gateway.world.store.commit(Commit(emit=(pool_resized(),)))
    gateway.world.advance(12)
    await gateway.refresh()
    status = await gateway.client.status()
    assert (status.outbox_events, status.outbox_oldest_s) == (1, 12.0)


async def test_pages_are_stable_while_nodes_come_and_go() -> None:
    from navarch_gateway.asks import Page
    from navarch_gateway.selection import one_page

    first, token = one_page(["a", "c", "e"], ["a", "c", "e"], Page(limit=2))
    assert (list(first), token) == (["a", "c"], "c")
    second, token = one_page(["a", "b", "d", "e"], ["a", "b", "d", "e"], Page(limit=2, after="c"))
    assert (list(second), token) == (["d", "e"], "")
