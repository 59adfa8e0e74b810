"""The HTTP door as one application: the API's routes, the probes, and a problem for everything else."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router

from navarch_gateway.fleet import Fleet
from navarch_gateway.http import cluster, nodes, pools
from navarch_gateway.http.answers import answer, on_http_exception
from navarch_gateway.http.events import Events


class Probes:
    """What orchestrators and Prometheus ask: alive, ready, metrics."""

    def __init__(
        self, ready: Callable[[], bool], said: Callable[[], object], render: Callable[[], tuple[bytes, str]]
    ) -> None:
        self._ready, self._said, self._render = ready, said, render

    def routes(self) -> list[Route]:
        return [
            Route("/livez", self.livez, methods=["GET"]),
            Route("/healthz", self.livez, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def livez(self, _: Request) -> Response:
        """Alive as long as the loop turns: a store that is away is no reason to restart."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        return answer(self._said(), 200 if self._ready() else 503)

    async def metrics(self, _: Request) -> Response:
        text, kind = self._render()
        return Response(text, headers={"Content-Type": kind})


def make_app(fleet: Fleet, probes: Probes, events: Events | None = None) -> Starlette:
    api = [*nodes.routes(fleet), *pools.routes(fleet), *cluster.routes(fleet), *(events or Events()).routes(fleet)]
    app = Starlette(
        routes=[*probes.routes(), Mount("/api/v1", app=Router(routes=api, redirect_slashes=False))],
        exception_handlers={HTTPException: on_http_exception},
    )
    app.router.redirect_slashes = False
    return app
