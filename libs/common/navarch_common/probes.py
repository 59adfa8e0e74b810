"""What Kubernetes and Prometheus ask each process: `/livez`, `/readyz`, `/metrics`, on a small server of its own.

It understands GET alone, and bounds what a client may send and how long it may take. The gateway has a real one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec
import structlog

from navarch_common.config.addresses import bind_address
from navarch_common.errors import NavarchError
from navarch_common.metrics import Metrics

log = structlog.get_logger()

CLIENTS_MAX = 64
CLIENT_TIMEOUT_S = 5.0
REQUEST_BYTES_MAX = 8192
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class ProbeAddressTaken(NavarchError):
    """The address of `--metrics-addr` cannot be listened on."""


@asynccontextmanager
async def serve_probes(
    address: str, *, ready: Callable[[], bool], status: Callable[[], Mapping[str, object]], metrics: Metrics
) -> AsyncIterator[int]:
    """Serves on `address` (`HOST:PORT`, `:PORT`; port 0 takes a free one) and gives the port.

    Raises `ProbeAddressTaken`, naming the flag.
    """
    probes = _Probes(ready, status, metrics)
    try:
        host, port = bind_address(address)
        server = await asyncio.start_server(probes.serve, host, port, limit=REQUEST_BYTES_MAX)
    except (OSError, ValueError) as error:
        raise ProbeAddressTaken(f"--metrics-addr {address}: {error}") from error
    bound: int = server.sockets[0].getsockname()[1]
    log.info("probes served", address=f"{host}:{bound}")
    try:
        yield bound
    finally:
        server.close()


class _Probes:
    def __init__(self, ready: Callable[[], bool], status: Callable[[], Mapping[str, object]], metrics: Metrics) -> None:
        self._ready, self._status, self._metrics = ready, status, metrics
        self._clients = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= CLIENTS_MAX:
                async with asyncio.timeout(CLIENT_TIMEOUT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("probe not answered", error=str(error))
        finally:
            self._clients -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", TEXT, b"only GET\n", with_body=True)
        code, content_type, body = self._page(path)
        return _response(code, content_type, body, with_body=method == b"GET")

    def _page(self, path: str) -> tuple[str, str, bytes]:
        if path in ("/livez", "/healthz"):
            return "200 OK", TEXT, b"ok\n"
        if path == "/readyz":
            ready = self._ready()
            body = msgspec.json.encode({"ready": ready, **self._status()}, enc_hook=str)
            return "200 OK" if ready else "503 Service Unavailable", JSON, body
        if path == "/metrics":
            body, content_type = self._metrics.render()
            return "200 OK", content_type, body
        return "404 Not Found", TEXT, b"there are /livez, /readyz and /metrics\n"


def _response(code: str, content_type: str, body: bytes, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {code}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        "Cache-Control: no-store\r\n\r\n"
    )
    return head.encode("latin-1") + (body if with_body else b"")
