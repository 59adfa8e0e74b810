"""`/api/v1/pools` and `/api/v1/plan`: sizes, and what would be done about them."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from navarch_gateway.asks import ChangeAsk, PoolAsk, read_event_query, read_id
from navarch_gateway.fleet import Fleet
from navarch_gateway.http.answers import answer
from navarch_gateway.http.door import Endpoint, open_to
from navarch_gateway.http.reading import Parameters, actor_of, read_body


def routes(fleet: Fleet) -> list[Route]:
    handlers: list[tuple[str, str, Endpoint]] = [
        ("GET", "/pools", list_pools),
        ("GET", "/pools/{pool}", get_pool),
        ("GET", "/pools/{pool}/explain", explain),
        ("POST", "/pools/{pool}/wishes", wish),
        ("GET", "/pools/{pool}/wishes/{request_id}", wish_state),
        ("GET", "/plan", plan),
        ("GET", "/changes", list_changes),
        ("POST", "/changes/{change}/wishes", wish_change),
    ]
    return [open_to(fleet, *handler) for handler in handlers]


async def list_pools(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(fleet.reads.pools())


async def get_pool(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(fleet.reads.pool(request.path_params["pool"]))


async def explain(fleet: Fleet, request: Request) -> Response:
    asked = Parameters(request, "since")
    query = read_event_query(since=asked.text("since"), now=fleet.clock.now())
    return answer(await fleet.reads.explain_pool(request.path_params["pool"], query))


async def wish(fleet: Fleet, request: Request) -> Response:
    asked, pool = Parameters(request, "dry_run"), request.path_params["pool"]
    ask, actor = await read_body(request, PoolAsk), actor_of(request)
    if asked.flag("dry_run"):
        return answer(await fleet.acts.preview_pool_wish(pool, ask))
    return answer(await fleet.acts.wish_pool(pool, ask, actor), 202)


async def list_changes(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(fleet.reads.changes())


async def wish_change(fleet: Fleet, request: Request) -> Response:
    asked, change = Parameters(request, "dry_run"), request.path_params["change"]
    ask, actor = await read_body(request, ChangeAsk), actor_of(request)
    if asked.flag("dry_run"):
        return answer(await fleet.acts.preview_change_wish(change, ask))
    return answer(await fleet.acts.wish_change(change, ask, actor), 202)


async def wish_state(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.reads.pool_wish(request.path_params["pool"], request.path_params["request_id"]))


async def plan(fleet: Fleet, request: Request) -> Response:
    pool = Parameters(request, "pool").text("pool")
    return answer(await fleet.plan(read_id(pool, "pool") if pool else ""))
