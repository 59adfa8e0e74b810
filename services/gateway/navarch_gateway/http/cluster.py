"""`/api/v1/freeze` and its like: the cluster as a whole."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from navarch_gateway.asks import (
    AdoptInstallationAsk,
    ConfigAsk,
    FreezeAsk,
    HoldAsk,
    LeakAsk,
    LeaveSafeModeAsk,
    ReleaseAsk,
    UnfreezeAsk,
)
from navarch_gateway.fleet import Fleet
from navarch_gateway.http.answers import answer
from navarch_gateway.http.door import Endpoint, open_to
from navarch_gateway.http.reading import Parameters, actor_of, read_body


def routes(fleet: Fleet) -> list[Route]:
    handlers: list[tuple[str, str, Endpoint]] = [
        ("POST", "/freeze", freeze),
        ("POST", "/unfreeze", unfreeze),
        ("POST", "/hold", hold),
        ("POST", "/release", release),
        ("GET", "/guards", list_guards),
        ("GET", "/leaks", list_leaks),
        ("POST", "/leaks/adopt", adopt),
        ("POST", "/leaks/gc", collect),
        ("POST", "/installation/adopt", adopt_installation),
        ("POST", "/safe-mode/leave", leave_safe_mode),
        ("GET", "/config", get_config),
        ("POST", "/config/preview", preview_config),
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


async def hold(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.acts.hold(await read_body(request, HoldAsk), actor_of(request)))


async def release(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.acts.release(await read_body(request, ReleaseAsk), actor_of(request)))


async def list_guards(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.reads.guards())


async def list_leaks(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.steering.leaks())


async def adopt(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.steering.wish("adopt", await read_body(request, LeakAsk), actor_of(request)), 202)


async def collect(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.steering.wish("gc", await read_body(request, LeakAsk), actor_of(request)), 202)


async def adopt_installation(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    ask = await read_body(request, AdoptInstallationAsk)
    return answer(await fleet.steering.adopt_installation(ask, actor_of(request)))


async def leave_safe_mode(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.steering.leave_safe_mode(await read_body(request, LeaveSafeModeAsk), actor_of(request)))


async def get_config(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.reads.config())


async def preview_config(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.reads.preview_config(await read_body(request, ConfigAsk)))


async def get_version(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(fleet.reads.version())


async def get_status(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(fleet.status())
