"""The cloud's API, as `navarch_provisioner.cloud.fake_wire` says it."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from navarch_provisioner.cloud.base import CloudError, InvalidLaunch, Tags
from navarch_provisioner.cloud.fake_wire import (
    BODY_BYTES_MAX,
    STATUS,
    Forecast,
    Leaving,
    Order,
    ShutDown,
    Trouble,
)
from navarch_sim.fake_cloud.cloud import Cloud

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[object]]
Endpoint = Callable[[Request], Awaitable[Response]]


class LostReply(Response):
    """A reply that breaks off: whether the call was carried out the caller cannot know."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        # The server sees an answer that was promised and not given, and closes the connection.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"65536")]})


def application(cloud: Cloud) -> Starlette:
    """The ASGI application over one cloud."""
    api = _Api(cloud)
    machine = "/v1/machines/{instance_id}"

    def act(method: Callable[[str, Tags], Awaitable[None]]) -> Endpoint:
        return _exposed(cloud, partial(api.act, method))

    routes = [
        Route("/v1/machines", _exposed(cloud, api.launch, launching=True), methods=["POST"]),
        Route("/v1/machines", _exposed(cloud, api.machines), methods=["GET"]),
        Route(machine, _exposed(cloud, api.get), methods=["GET"]),
        Route("/v1/tokens", _exposed(cloud, api.by_token), methods=["GET"]),
        Route(f"{machine}/terminate", act(cloud.terminate), methods=["POST"]),
        Route(f"{machine}/power-off", act(cloud.power_off), methods=["POST"]),
        Route(f"{machine}/power-on", act(cloud.power_on), methods=["POST"]),
        Route(f"{machine}/fail", _sheltered(partial(api.happens, cloud.fail)), methods=["POST"]),
        Route(f"{machine}/reboot", _sheltered(partial(api.happens, cloud.reboot)), methods=["POST"]),
        Route(f"{machine}/return", _sheltered(partial(api.happens, cloud.return_)), methods=["POST"]),
        Route(f"{machine}/twin", _sheltered(api.twin), methods=["POST"]),
        Route("/v1/weather", _sheltered(api.weather), methods=["GET"]),
        Route("/v1/weather", _sheltered(api.change_weather), methods=["PATCH"]),
        Route("/v1/shut-down", _sheltered(api.shut_down), methods=["POST"]),
        Route("/v1/leave", _sheltered(api.leave), methods=["POST"]),
    ]
    return Starlette(routes=routes)


class _Api:
    """What is asked, read and handed on."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def launch(self, request: Request) -> object:
        return await self._cloud.launch(await _read(request, Order))

    async def machines(self, request: Request) -> object:
        cluster = _query(request, "cluster")
        return await self._cloud.machines(cluster, request.query_params.get("provider", ""))

    async def by_token(self, request: Request) -> object:
        return await self._cloud.by_token(_query(request, "token"))

    async def get(self, request: Request) -> object:
        return await self._cloud.get(request.path_params["instance_id"])

    async def act(self, method: Callable[[str, Tags], Awaitable[None]], request: Request) -> object:
        await method(request.path_params["instance_id"], await _read(request, Tags))
        return {}

    async def happens(self, what: Callable[[str], Awaitable[None]], request: Request) -> object:
        await what(request.path_params["instance_id"])
        return {}

    async def twin(self, request: Request) -> object:
        return await self._cloud.twin(request.path_params["instance_id"])

    async def weather(self, _: Request) -> object:
        return self._cloud.weather

    async def change_weather(self, request: Request) -> object:
        return await self._cloud.change_weather(await _read(request, Forecast))

    async def shut_down(self, request: Request) -> object:
        whose = await _read(request, ShutDown)
        return Leaving(await self._cloud.shut_down(whose.cluster, whose.provider))

    async def leave(self, _: Request) -> object:
        return Leaving(self._cloud.leave())


def _exposed(cloud: Cloud, handler: Handler, *, launching: bool = False) -> Endpoint:
    """A call out in the weather."""

    async def endpoint(request: Request) -> Response:
        if cloud.loses_request():
            return LostReply()
        if (error := cloud.bad_luck(launching=launching)) is not None:
            return _trouble(error)
        response = await _answered(handler, request)
        return LostReply() if cloud.loses_reply() else response

    return endpoint


def _sheltered(handler: Handler) -> Endpoint:
    """A call that no real cloud has."""

    async def endpoint(request: Request) -> Response:
        return await _answered(handler, request)

    return endpoint


async def _answered(handler: Handler, request: Request) -> Response:
    try:
        return _json(200, await handler(request))
    except CloudError as error:
        return _trouble(error)
    except ClientDisconnect:
        return Response(status_code=400)


def _query(request: Request, name: str) -> str:
    if not (value := request.query_params.get(name)):
        raise InvalidLaunch(f"{name}: expected one in the query, found none")
    return value


async def _read(request: Request, kind: type[T]) -> T:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise InvalidLaunch(f"body: expected at most {BODY_BYTES_MAX} bytes, found more")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidLaunch(f"body: {error}") from error


def _trouble(error: CloudError) -> Response:
    return _json(STATUS.get(error.code, 500), Trouble.of(error))


def _json(status: int, value: Any) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
