"""The gRPC server: the fleet, the standard health service, and reflection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # the stubs don't know it
from grpc_reflection.v1alpha import reflection

from navarch_api.v1 import fleet_pb2
from navarch_api.v1.fleet_pb2_grpc import add_FleetServicer_to_server
from navarch_gateway.errors import PortTaken
from navarch_gateway.fleet import Fleet
from navarch_gateway.rpc.servicer import FleetDoor

log = structlog.get_logger(__name__)

FLEET_SERVICE: str = fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].full_name
STOP_GRACE_S = 2.0
_OPTIONS = (
    # Otherwise a second server on the same port would silently take half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
_CALLS_MAX = 1000


class GrpcServer:
    """Health says SERVING for the fleet while the gateway is ready."""

    def __init__(self, server: grpc.aio.Server, health: health_aio.HealthServicer, port: int) -> None:
        self._server, self._health = server, health
        self.port = port
        self._serving: bool | None = None

    async def set_serving(self, serving: bool) -> None:
        if serving != self._serving:
            self._serving = serving
            said = health_pb2.HealthCheckResponse
            status = said.SERVING if serving else said.NOT_SERVING
            for service in ("", FLEET_SERVICE):
                await self._health.set(service, status)


@asynccontextmanager
async def serve_grpc(fleet: Fleet, host: str, port: int) -> AsyncIterator[GrpcServer]:
    """Serves for as long as the context lasts; `port` 0 takes a free one. Raises `PortTaken`."""
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_CALLS_MAX)
    health = health_aio.HealthServicer()
    add_FleetServicer_to_server(FleetDoor(fleet), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection((FLEET_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME), server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortTaken(f"--grpc (server.address) {address}: it cannot be listened on; is it in use?") from error
    if bound == 0:
        raise PortTaken(f"--grpc (server.address) {address}: it cannot be listened on; is it in use?")
    await server.start()
    serving = GrpcServer(server, health, bound)
    try:
        yield serving
    finally:
        async with asyncio.timeout(STOP_GRACE_S + 3.0):
            await health.enter_graceful_shutdown()
            await server.stop(STOP_GRACE_S)
