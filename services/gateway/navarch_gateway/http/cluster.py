"""`/api/v1/freeze` and its like: the cluster as a whole."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from navarch_gateway.asks import FreezeAsk, UnfreezeAsk
from navarch_gateway.fleet import Fleet
from navarch_gateway.http.answers import answer
from navarch_gateway.http.door import Endpoint, open_to
from navarch_gateway.http.reading import Parameters, actor_of, read_body


def routes(fleet: Fleet) -> list[Route]:
    handlers: list[tuple[str, str, Endpoint]] = [
        ("POST", "/freeze", freeze),
        ("POST", "/unfreeze", unfreeze),
        ("GET", "/guards", list_guards),
        ("GET", "/config", get_config),
        ("GET", "/version", get_version),
        ("GET", "/status", get_status),
    ]
    return [open_to(fleet, *handler) for handler in handlers]


async def freeze(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.acts.freeze(await read_body(request, FreezeAsk), actor_of(request)))


async def unfreeze(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.acts.unfreeze(await read_body(request, UnfreezeAsk), actor_of(request)))


async def list_guards(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.reads.guards())


async def get_config(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.reads.config())


async def get_version(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(fleet.reads.version())


async def get_status(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(fleet.status())
