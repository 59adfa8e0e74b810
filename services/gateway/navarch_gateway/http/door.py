"""One endpoint's frame: a deadline around it, and a problem for whatever goes wrong inside."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from navarch_gateway.fleet import Fleet
from navarch_gateway.http.answers import failure
from navarch_gateway.refusal import Refused

Endpoint = Callable[[Fleet, Request], Awaitable[Response]]

REQUEST_TIMEOUT_S = 15.0
"""Longer than any wait inside, so that what did not answer is named."""


def open_to(fleet: Fleet, method: str, path: str, endpoint: Endpoint) -> Route:
    async def handle(request: Request) -> Response:
        try:
            _check_origin(request)
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                response = await endpoint(fleet, request)
        except Exception as error:  # noqa: BLE001 - the edge of every handler: `failure` logs what nobody expected
            response = failure(request, error)
        fleet.metrics.count("navarch_http_requests_total", method=method, route=path, code=str(response.status_code))
        return response

    return Route(path, handle, methods=[method], name=endpoint.__name__)


def _check_origin(request: Request) -> None:
    """A page of another site, open in an operator's browser, must not ask for anything in the operator's name."""
    origin = request.headers.get("origin")
    if request.method != "POST" or origin is None:
        return
    if origin.partition("://")[2] != request.headers.get("host", ""):
        raise Refused(403, "cross-origin", f"requests from pages of {origin[:100]!r} are not accepted")
