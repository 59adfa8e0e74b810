"""Serves the HTTP door with uvicorn, on a socket that we bound, under our own signals."""

import asyncio
import errno
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from navarch_gateway.errors import PortTaken

STOP_GRACE_S = 2
CONNECTIONS_MAX = 1000
BACKLOG = 256


def bind(host: str, port: int) -> socket.socket:
    """Raises `PortTaken`. Bound before anything else is started, so that the error comes first."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        hint = "; something listens there already" if error.errno == errno.EADDRINUSE else ""
        raise PortTaken(f"--http (server.http_address) {host}:{port}: {error.strerror or error}{hint}") from error
    sock.setblocking(False)
    return sock


class _Server(uvicorn.Server):
    """Signals belong to the process that we are part of."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve_http(app: Starlette, sock: socket.socket) -> None:
    """Until cancelled; then requests under way have a moment to finish."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=STOP_GRACE_S,
        h11_max_incomplete_event_size=64 << 10,
        server_header=False,
        proxy_headers=False,
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await asyncio.wait([serving], timeout=STOP_GRACE_S + 3.0)
        serving.cancel()
