import asyncio
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from navarch_common.telemetry import Telemetry, trace_id_of
from navarch_common.telemetry_otlp import traces_url

TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")


def test_without_a_collector_spans_are_ids_that_go_on_in_their_children() -> None:
    telemetry = Telemetry.open("health", random.Random(1), None, {})
    with telemetry.span("verdict", node="n1") as parent, telemetry.span("plan", parent.traceparent) as child:
        assert TRACEPARENT.fullmatch(parent.traceparent)
        assert child.trace_id == parent.trace_id == trace_id_of(parent.traceparent)
        assert child.traceparent != parent.traceparent


@pytest.mark.parametrize("parent", ["", "nonsense", "00-xyz-1-01", "00-" + "1" * 32 + "-" + "2" * 16 + "-01\n"])
def test_what_is_no_traceparent_begins_a_new_trace(parent: str) -> None:
    with Telemetry(random.Random(1)).span("plan", parent) as span:
        assert TRACEPARENT.fullmatch(span.traceparent)
        assert trace_id_of(parent) == ""


def test_the_same_seed_makes_the_same_ids() -> None:
    def ids() -> str:
        with Telemetry(random.Random(7)).span("x") as span:
            return span.traceparent

    assert ids() == ids()


def test_opentelemetry_is_not_imported_without_a_collector() -> None:
    code = (
        "import random, sys; from navarch_common.telemetry import Telemetry; from navarch_common.metrics import CATALOGUE;"
        "Telemetry.open('agent', random.Random(1), '', {}); sys.exit('opentelemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


class Collector(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Collector)
        self.server.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


async def test_spans_reach_the_collector_under_their_service_and_parent(collector: Collector) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
    telemetry = Telemetry.open("control-plane", random.Random(1), endpoint, {})
    health, provisioner = telemetry.named("health"), telemetry.named("provisioner")
    with health.span("verdict", node="n1", gpus=8) as verdict:
        pass
    with pytest.raises(ZeroDivisionError), provisioner.span("plan", verdict.traceparent):
        raise ZeroDivisionError
    await telemetry.close()
    spans = {
        span.name: (resource, span)
        for path, request in collector.requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if path == "/v1/traces"
    }
    assert set(spans) == {"verdict", "plan"}
    resource, plan = spans["plan"]
    services = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert services["service.name"] == "navarch-provisioner"
    assert plan.trace_id.hex() == verdict.trace_id
    assert plan.parent_span_id == spans["verdict"][1].span_id
    assert plan.status.code == 2  # error


async def test_a_collector_that_is_away_delays_the_end_only_a_little() -> None:
    telemetry = Telemetry.open("health", random.Random(1), "http://127.0.0.1:1", {})
    with telemetry.span("verdict"):
        pass
    async with asyncio.timeout(8):
        await telemetry.close()


def test_the_path_of_otlp_is_added_once() -> None:
    assert traces_url("http://c:4318/") == "http://c:4318/v1/traces"
    assert traces_url("http://c:4318/v1/traces") == "http://c:4318/v1/traces"
