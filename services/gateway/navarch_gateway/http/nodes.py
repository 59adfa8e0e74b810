"""`/api/v1/nodes`: what there is, and what is asked of one."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from navarch_gateway.asks import NodeAsk, NodeQuery, read_event_query, read_page
from navarch_gateway.fleet import Fleet
from navarch_gateway.http.answers import answer
from navarch_gateway.http.door import Endpoint, open_to
from navarch_gateway.http.reading import Parameters, actor_of, read_body, read_object


def routes(fleet: Fleet) -> list[Route]:
    handlers: list[tuple[str, str, Endpoint]] = [
        ("GET", "/nodes", list_nodes),
        ("GET", "/nodes/{node}", get_node),
        ("GET", "/nodes/{node}/explain", explain),
        ("POST", "/nodes/{node}/wishes", wish),
        ("GET", "/nodes/{node}/wishes/{request_id}", wish_state),
        ("POST", "/nodes/{node}/inject", inject),
        ("GET", "/instances", list_instances),
    ]
    return [open_to(fleet, *handler) for handler in handlers]


async def list_nodes(fleet: Fleet, request: Request) -> Response:
    asked = Parameters(
        request, "pool", "provider", "region", "status", "health", "all", "limit", "page_token", many=("label",)
    )
    query = NodeQuery(
        pool=asked.text("pool"),
        provider=asked.text("provider"),
        region=asked.text("region"),
        status=asked.text("status"),
        health=asked.text("health"),
        labels=asked.pairs("label"),
        terminated=asked.flag("all"),
    )
    return answer(await fleet.reads.nodes(query, read_page(asked.number("limit"), asked.text("page_token"))))


async def get_node(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.reads.node(request.path_params["node"]))


async def explain(fleet: Fleet, request: Request) -> Response:
    asked = Parameters(request, "since")
    query = read_event_query(since=asked.text("since"), now=fleet.clock.now())
    return answer(await fleet.reads.explain_node(request.path_params["node"], query))


async def wish(fleet: Fleet, request: Request) -> Response:
    asked, node = Parameters(request, "dry_run"), request.path_params["node"]
    ask, actor = await read_body(request, NodeAsk), actor_of(request)
    if asked.flag("dry_run"):
        return answer(await fleet.acts.preview_node_wish(node, ask))
    return answer(await fleet.acts.wish_node(node, ask, actor), 202)


async def wish_state(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.reads.node_wish(request.path_params["node"], request.path_params["request_id"]))


async def inject(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    actor_of(request)
    return answer(await fleet.forward.inject(request.path_params["node"], await read_object(request)))


async def list_instances(fleet: Fleet, request: Request) -> Response:
    asked = Parameters(request, "pool", "provider", "limit", "page_token")
    page = read_page(asked.number("limit"), asked.text("page_token"))
    return answer(await fleet.reads.instances(asked.text("pool"), asked.text("provider"), page))
