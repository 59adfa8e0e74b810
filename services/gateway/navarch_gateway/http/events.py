"""`/api/v1/events`: what happened, or with `follow=1` what happens, one JSON object a line. `/api/v1/dead`: what nobody
could use. `/api/v1/audit`: who did what, and why."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from navarch_api import types as t
from navarch_common.bus.base import BusError, StoredMessage
from navarch_gateway.asks import EventQuery, ReplayAsk, read_audit_query, read_event_query, read_since
from navarch_gateway.fleet import Fleet
from navarch_gateway.history import Place, as_line
from navarch_gateway.http.answers import answer
from navarch_gateway.http.door import open_to
from navarch_gateway.http.reading import Parameters, actor_of, read_body
from navarch_gateway.refusal import Refused, bad

log = structlog.get_logger(__name__)

LIMIT = 200
LIMIT_MAX = 5000
KEEP_ALIVE_S = 15.0
"""An empty line this often, so that either side notices that the other is gone."""
FOLLOWERS_MAX = 100
AHEAD_MAX = 256
"""Events read ahead of a slow follower."""


AFTER, SINCE, STREAM = "Navarch-After", "Navarch-Since", "Navarch-Stream"
"""Where a followed stream begins, so that one that breaks before its first event is taken up without a gap."""


class Events:
    """Both ways to read events, and how many follow."""

    def __init__(self, *, keep_alive_s: float = KEEP_ALIVE_S, followers_max: int = FOLLOWERS_MAX) -> None:
        self._keep_alive_s, self._followers_max = keep_alive_s, followers_max
        self.followers = 0

    def routes(self, fleet: Fleet) -> list[Route]:
        return [
            open_to(fleet, "GET", "/events", self.events),
            open_to(fleet, "GET", "/audit", audit),
            open_to(fleet, "GET", "/dead", dead_letters),
            open_to(fleet, "POST", "/dead/replay", replay),
        ]

    async def events(self, fleet: Fleet, request: Request) -> Response:
        asked = Parameters(request, "pool", "node", "type", "since", "limit", "follow", "after", "stream")
        query = read_event_query(
            pool=asked.text("pool"),
            node=asked.text("node"),
            type_=asked.text("type"),
            since=asked.text("since"),
            now=fleet.clock.now(),
        )
        limit, after = asked.number("limit", LIMIT_MAX), asked.number("after")
        if asked.flag("follow"):
            if limit is not None:
                raise bad("bad-parameter", "limit says nothing where events are followed", field="limit")
            return await self._follow(fleet, query, _resume_after(request, after), asked.digits("stream"))
        if after is not None:
            raise bad("bad-parameter", "after resumes a followed stream: it needs follow=1", field="after")
        return answer(await _past(fleet, query, LIMIT if limit is None else max(limit, 1)))

    async def _follow(self, fleet: Fleet, query: EventQuery, after: int | None, stream: str) -> Response:
        if self.followers >= self._followers_max:
            raise Refused(503, "too-many-followers", f"{self._followers_max} clients follow events already")
        place = await fleet.history.place(query, after, stream)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", STREAM: place.stream}
        if place.after is not None:
            headers[AFTER] = str(place.after)
        elif place.since is not None:
            headers[SINCE] = place.since.isoformat()
        return StreamingResponse(self._lines(fleet, query, place), media_type="application/x-ndjson", headers=headers)

    async def _lines(self, fleet: Fleet, query: EventQuery, place: Place) -> AsyncIterator[bytes]:
        """Ends when the bus does; the client takes it up again behind the last sequence that it saw."""
        ahead: asyncio.Queue[bytes | None] = asyncio.Queue(AHEAD_MAX)
        self.followers += 1
        pump: asyncio.Task[None] | None = None
        try:
            async with fleet.history.follow(query, place) as messages:
                pump = asyncio.create_task(_pump(messages, ahead), name="follow events")
                yield b"\n"
                while True:
                    try:
                        async with asyncio.timeout(self._keep_alive_s):
                            line = await ahead.get()
                    except TimeoutError:
                        line = b""
                    if line is None:
                        return
                    yield line + b"\n"
        except BusError as error:
            log.warning("a followed stream ended", error=str(error))
        finally:
            self.followers -= 1
            if pump is not None:
                pump.cancel()
                await asyncio.wait([pump], timeout=5.0)


async def audit(fleet: Fleet, request: Request) -> Response:
    asked = Parameters(request, "actor", "action", "pool", "node", "since", "limit")
    query = read_audit_query(
        actor=asked.text("actor"), action=asked.text("action"), pool=asked.text("pool"), node=asked.text("node"),
        since=asked.text("since"), now=fleet.clock.now(),
    )  # fmt: skip
    limit = asked.number("limit", LIMIT_MAX)
    return answer(await fleet.history.audit(query, LIMIT if limit is None else max(limit, 1)))


async def dead_letters(fleet: Fleet, request: Request) -> Response:
    asked = Parameters(request, "since", "limit")
    since, limit = asked.text("since"), asked.number("limit", LIMIT_MAX)
    start = read_since(since, fleet.clock.now()) if since else None
    return answer(await fleet.postmaster.dead(start, LIMIT if limit is None else max(limit, 1)))


async def replay(fleet: Fleet, request: Request) -> Response:
    Parameters(request)
    return answer(await fleet.postmaster.replay(await read_body(request, ReplayAsk), actor_of(request)))


async def _pump(messages: AsyncIterator[StoredMessage], ahead: "asyncio.Queue[bytes | None]") -> None:
    """Reads on while the follower is slow, up to the queue's bound; then waits for it."""
    try:
        async for message in messages:
            if (line := as_line(message)) is not None:
                await ahead.put(line)
    except BusError as error:
        log.warning("a followed stream broke", error=str(error))
    await ahead.put(None)


async def _past(fleet: Fleet, query: EventQuery, limit: int) -> t.EventList:
    now = fleet.clock.now()
    past = await fleet.history.past(query, limit)
    lines = [line for message in past.messages if (line := as_line(message)) is not None]
    return t.EventList(items=tuple(msgspec.json.decode(line) for line in lines), truncated=not past.complete, as_of=now)


def _resume_after(request: Request, after: int | None) -> int | None:
    last = request.headers.get("last-event-id", "")
    if after is not None or not last:
        return after
    if not (last.isascii() and last.isdigit() and len(last) <= 16):
        raise bad("bad-parameter", f"Last-Event-ID {last!r:.40} is no sequence", field="Last-Event-ID")
    return int(last)
