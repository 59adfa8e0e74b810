"""Connections that say little or nothing cost their own place, and nobody else's answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from navarch_gateway.http import server
from navarch_gateway.http.server import bind, serve_http

CROWD = 200


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    async def alive(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    sock = bind("127.0.0.1", 0)
    port: int = sock.getsockname()[1]
    serving = asyncio.create_task(serve_http(Starlette(routes=[Route("/livez", alive)]), sock))
    try:
        yield port
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


@asynccontextmanager
async def crowd(port: int, says: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    pairs = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(CROWD)))
    for _, writer in pairs:
        writer.write(says)
        await writer.drain()
    try:
        yield [reader for reader, _ in pairs]
    finally:
        for _, writer in pairs:
            writer.close()


@pytest.mark.parametrize(
    "says",
    [b"", b"GET /livez HTTP/1.1\r\nX-Slow: ", b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"],
    ids=["nothing", "half a header", "no body"],
)
async def test_a_crowd_that_never_finishes_its_requests_keeps_nobody_from_an_answer(says: bytes) -> None:
    async with served() as port, crowd(port, says), httpx.AsyncClient() as http, asyncio.timeout(30):
        for _ in range(20):
            assert (await http.get(f"http://127.0.0.1:{port}/livez")).text == "ok"


async def test_a_header_without_end_is_cut_off() -> None:
    async with served() as port, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(OSError):
            writer.write(b"GET /livez HTTP/1.1\r\nX-Endless: ")
            for _ in range(1000):
                writer.write(b"x" * 4096)
                await writer.drain()
        with suppress(OSError):
            assert b"200 OK" not in await reader.read()
        assert reader.at_eof() or reader.exception() is not None
        writer.close()


async def test_past_the_bound_a_connection_is_turned_away_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", CROWD // 2)
    async with served() as port, crowd(port, b"GET /livez HTTP/1.1\r\nX-Slow: "), httpx.AsyncClient() as http:
        async with asyncio.timeout(30):
            answer = await http.get(f"http://127.0.0.1:{port}/livez")
        assert answer.status_code == 503
