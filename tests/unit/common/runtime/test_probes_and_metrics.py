import asyncio
import json

import httpx
import pytest

from navarch_common import metrics as metrics_module
from navarch_common.metrics import CATALOGUE, Metrics
from navarch_common.probes import ProbeAddressTaken, serve_probes


async def test_a_process_tells_whether_it_lives_is_ready_and_what_it_counts() -> None:
    metrics, is_ready = Metrics(), False
    metrics.count("navarch_reports_total", kind="health")
    serving = serve_probes(
        "127.0.0.1:0", ready=lambda: is_ready, status=lambda: {"reconcile": {"took_s": 0.1}}, metrics=metrics
    )
    async with serving as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/livez")).text == "ok\n"
        assert (await client.get("/readyz")).status_code == 503
        is_ready = True
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"ready": True, "reconcile": {"took_s": 0.1}})
        assert 'navarch_reports_total{kind="health"} 1.0' in (await client.get("/metrics")).text
        assert (await client.get("/other")).status_code == 404
        assert (await client.post("/livez")).status_code == 405


async def test_nonsense_does_not_hurt_the_probes() -> None:
    async with serve_probes("127.0.0.1:0", ready=lambda: True, status=dict, metrics=Metrics()) as port:
        for nonsense in (b"", b"\x00" * 100, b"GET /" + b"x" * 20_000, b"GET\r\n\r\n", b"\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(nonsense)
            writer.write_eof()
            async with asyncio.timeout(5):
                try:
                    await reader.read()
                except ConnectionResetError:
                    continue
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/readyz")).json() == {"ready": True}


async def test_a_busy_port_is_an_error_that_names_the_flag() -> None:
    async with serve_probes("127.0.0.1:0", ready=lambda: True, status=dict, metrics=Metrics()) as port:
        with pytest.raises(ProbeAddressTaken, match=f"--metrics-addr 127.0.0.1:{port}"):
            async with serve_probes(f"127.0.0.1:{port}", ready=lambda: True, status=dict, metrics=Metrics()):
                pass


def test_a_gauge_that_is_set_as_a_whole_forgets_what_is_gone() -> None:
    metrics = Metrics()
    metrics.set_all("navarch_pool_nodes", {("a", "active"): 3, ("b", "active"): 1})
    metrics.set_all("navarch_pool_nodes", {("a", "active"): 2})
    text = metrics.render()[0].decode()
    assert 'navarch_pool_nodes{pool="a",status="active"} 2.0' in text
    assert 'pool="b"' not in text


def test_registries_are_apart_and_unknown_names_are_mistakes() -> None:
    one, other = Metrics(), Metrics()
    one.count("navarch_heartbeats_total")
    assert "navarch_heartbeats_total 0.0" in other.render()[0].decode()
    with pytest.raises(KeyError):
        one.count("navarch_no_such_thing")


def test_without_the_client_library_metrics_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "_prometheus_client", lambda: None)
    metrics = Metrics()
    metrics.count("navarch_heartbeats_total")
    metrics.observe("navarch_reconcile_seconds", 1.0, service="x")
    metrics.set_all("navarch_pool_nodes", {("a", "active"): 3})
    assert metrics.render()[0] == b""


def test_every_metric_is_ours_by_name_and_named_once() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(name.startswith("navarch_") for name in names)
    assert json.dumps(names)
