"""A typed client of the HTTP API: `AsyncClient`, and `Client` for programs that don't use asyncio.

    with Client("http://localhost:8080", actor="operator:ada") as fleet:
        for node in fleet.nodes(pool="training").items:
            print(node.node, node.status)

Every call raises `ApiError` where the server refused, and `Unreachable`, `TimedOut` or `BadAnswer` where there was no
usable answer. A wish that is sent without a request id gets one here, so that sending it again, after a connection
broke, is the same wish.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from navarch_api import types as t
from navarch_api.errors import ApiError, BadAnswer, ClientError, NotAName, TimedOut, Unreachable
from navarch_api.ndjson import events_of

T = TypeVar("T")
P = ParamSpec("P")
Query = Mapping[str, str | int | Sequence[str] | None]

DEFAULT_SERVER = "http://localhost:8080"
ANSWER_BYTES_MAX = 256 << 20
"""No answer is larger: one that is, is not ours."""
_PAGE = 1000
_REPEATS = 2
"""How often a call that is harmless when repeated is sent again after its connection broke."""
_RETRY_MAX_S = 10.0
"""The longest pause before a broken stream is taken up again."""
_STREAM_SILENCE_S = 45.0
"""The server sends an empty line each 15 s: a stream silent for longer than this is dead."""


class AsyncClient:
    """One connection pool to one control plane. Close it, or use it as a context manager."""

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        actor: str = "",
        token: str = "",
        timeout_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`actor` is `operator:NAME`, shown in events and reasons. Raises `ClientError` for an impossible address."""
        headers = {"Accept": "application/json", "User-Agent": "navarch-client"}
        if actor:
            headers["X-Navarch-Actor"] = quote(actor, safe=":@+ ")
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.server = _address(server)
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=self.server,
            headers=headers,
            timeout=httpx.Timeout(timeout_s),
            transport=transport or httpx.AsyncHTTPTransport(retries=1),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    # Nodes and what one pays for

    async def nodes(
        self,
        *,
        pool: str | None = None,
        provider: str | None = None,
        region: str | None = None,
        status: str | None = None,
        health: str | None = None,
        labels: Mapping[str, str] | None = None,
        terminated: bool = False,
    ) -> t.NodeList:
        """All nodes that match, ordered by name, over all pages. `terminated` adds those that ended."""
        query: Query = {
            "pool": pool, "provider": provider, "region": region, "status": status, "health": health,
            "label": [f"{key}={value}" for key, value in (labels or {}).items()], "all": 1 if terminated else None,
        }  # fmt: skip
        items: list[t.Node] = []
        token, as_of = "", []
        while True:
            page = await self._get("nodes", t.NodeList, {**query, "limit": _PAGE, "page_token": token or None})
            items.extend(page.items)
            as_of.append(page.as_of)
            if not (token := page.next_page_token):
                return t.NodeList(items=tuple(items), as_of=min(as_of))

    async def node(self, node: str) -> t.NodeDetail:
        return await self._get(f"nodes/{_part(node)}", t.NodeDetail)

    async def instances(self, *, pool: str | None = None, provider: str | None = None) -> t.InstanceList:
        """All machines that are paid for, over all pages."""
        items: list[t.Instance] = []
        token, as_of = "", []
        while True:
            query: Query = {"pool": pool, "provider": provider, "limit": _PAGE, "page_token": token or None}
            page = await self._get("instances", t.InstanceList, query)
            items.extend(page.items)
            as_of.append(page.as_of)
            if not (token := page.next_page_token):
                return t.InstanceList(items=tuple(items), as_of=min(as_of))

    async def explain_node(self, node: str, *, since: str | None = None) -> t.Explanation:
        """`since` is an RFC 3339 time, or how long ago: `2h`."""
        return await self._get(f"nodes/{_part(node)}/explain", t.Explanation, {"since": since})

    async def wish_node(
        self,
        node: str,
        verb: t.NodeVerb,
        *,
        reason: str = "",
        force: bool = False,
        request_id: str | None = None,
        expires_in_s: float | None = None,
    ) -> t.WishAccepted:
        """Asks for `verb`; the answer comes when the wish is durable, not when it is fulfilled."""
        body = {"verb": verb, "reason": reason, "force": force, "request_id": request_id or new_request_id()}
        if expires_in_s is not None:
            body["expires_in_s"] = expires_in_s
        return await self._post(f"nodes/{_part(node)}/wishes", t.WishAccepted, body, repeatable=True)

    async def preview_node_wish(
        self, node: str, verb: t.NodeVerb, *, reason: str = "", force: bool = False
    ) -> t.WishPreview:
        """What the wish would do. Raises `ApiError` where it would be refused."""
        body = {"verb": verb, "reason": reason, "force": force}
        return await self._post(f"nodes/{_part(node)}/wishes", t.WishPreview, body, query={"dry_run": 1})

    async def node_wish(self, node: str, request_id: str) -> t.WishState:
        return await self._get(f"nodes/{_part(node)}/wishes/{_part(request_id)}", t.WishState)

    async def inject(self, node: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Injects a fault into a simulated machine: `{"verb": "xid", "code": 79, "gpu": 3}`."""
        return await self._post(f"nodes/{_part(node)}/inject", dict[str, Any], dict(body))

    # Pools

    async def pools(self) -> t.PoolList:
        return await self._get("pools", t.PoolList)

    async def pool(self, pool: str) -> t.PoolStatus:
        return await self._get(f"pools/{_part(pool)}", t.PoolStatus)

    async def explain_pool(self, pool: str, *, since: str | None = None) -> t.Explanation:
        return await self._get(f"pools/{_part(pool)}/explain", t.Explanation, {"since": since})

    async def wish_pool(
        self,
        pool: str,
        verb: t.PoolVerb,
        *,
        nodes: int | None = None,
        for_s: float | None = None,
        reason: str = "",
        request_id: str | None = None,
    ) -> t.WishAccepted:
        """`nodes` is for `scale` alone; `for_s` says how long the size holds on an autoscaled pool."""
        body = _pool_wish(verb, nodes, for_s, reason) | {"request_id": request_id or new_request_id()}
        return await self._post(f"pools/{_part(pool)}/wishes", t.WishAccepted, body, repeatable=True)

    async def preview_pool_wish(
        self, pool: str, verb: t.PoolVerb, *, nodes: int | None = None, for_s: float | None = None, reason: str = ""
    ) -> t.WishPreview:
        body = _pool_wish(verb, nodes, for_s, reason)
        return await self._post(f"pools/{_part(pool)}/wishes", t.WishPreview, body, query={"dry_run": 1})

    async def pool_wish(self, pool: str, request_id: str) -> t.WishState:
        return await self._get(f"pools/{_part(pool)}/wishes/{_part(request_id)}", t.WishState)

    # Changes

    async def changes(self) -> t.ChangeList:
        """What waits for an operator's word, or is only said."""
        return await self._get("changes", t.ChangeList)

    async def wish_change(
        self, change: str, verb: t.ChangeVerb, *, reason: str = "", request_id: str | None = None
    ) -> t.WishAccepted:
        """`change` is the id of one that waits; to `cancel`, also the node whose replacement is to be stopped."""
        body = {"verb": verb, "reason": reason, "request_id": request_id or new_request_id()}
        return await self._post(f"changes/{_part(change)}/wishes", t.WishAccepted, body, repeatable=True)

    async def preview_change_wish(self, change: str, verb: t.ChangeVerb, *, reason: str = "") -> t.WishPreview:
        body = {"verb": verb, "reason": reason}
        return await self._post(f"changes/{_part(change)}/wishes", t.WishPreview, body, query={"dry_run": 1})

    # The cluster

    async def plan(self, pool: str | None = None) -> t.Plan:
        return await self._get("plan", t.Plan, {"pool": pool})

    async def freeze(
        self, *, reason: str, level: t.FreezeLevel = "all", pool: str | None = None, for_s: float | None = None
    ) -> t.GuardAccepted:
        body: dict[str, Any] = {"level": level, "reason": reason}
        body |= {} if pool is None else {"pool": pool}
        body |= {} if for_s is None else {"for_s": for_s}
        return await self._post("freeze", t.GuardAccepted, body)

    async def unfreeze(self, *, reason: str = "", pool: str | None = None) -> t.GuardAccepted:
        body = {"reason": reason} | ({} if pool is None else {"pool": pool})
        return await self._post("unfreeze", t.GuardAccepted, body)

    async def hold(self, target: str, *, reason: str, for_s: float | None = None) -> t.GuardAccepted:
        """No automation touches `target`, a node or a pool, for `for_s`; None is four hours."""
        body: dict[str, Any] = {"target": target, "reason": reason}
        return await self._post("hold", t.GuardAccepted, body | ({} if for_s is None else {"for_s": for_s}))

    async def release(self, target: str, *, reason: str = "") -> t.GuardAccepted:
        return await self._post("release", t.GuardAccepted, {"target": target, "reason": reason})

    async def guards(self) -> t.GuardList:
        return await self._get("guards", t.GuardList)

    async def config(self) -> t.Config:
        return await self._get("config", t.Config)

    async def preview_config(self, text: str, *, source: str) -> t.ConfigPreview:
        """What the configuration `text` would take out of the fleet. `source` is the name that mistakes are told with."""
        return await self._post("config/preview", t.ConfigPreview, {"text": text, "source": source}, repeatable=True)

    async def version(self) -> t.Version:
        return await self._get("version", t.Version)

    async def status(self) -> t.ClusterStatus:
        return await self._get("status", t.ClusterStatus)

    # Events

    async def events(
        self,
        *,
        pool: str | None = None,
        node: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        since: str | None = None,
        limit: int | None = None,
    ) -> t.EventList:
        """The newest events that match, newest last. `type` is `node.failed` or `node.*`."""
        query: Query = {"pool": pool, "node": node, "type": type, "since": since, "limit": limit}
        return await self._get("events", t.EventList, query)

    async def audit(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        pool: str | None = None,
        node: str | None = None,
        since: str | None = None,
        limit: int | None = None,
    ) -> t.AuditList:
        """Who did what and why: the newest entries that match, newest last. `actor` is `operator:NAME`, or a service."""
        query: Query = {
            "actor": actor, "action": action, "pool": pool, "node": node, "since": since, "limit": limit,
        }  # fmt: skip
        return await self._get("audit", t.AuditList, query)

    async def dead_letters(self, *, since: str | None = None, limit: int | None = None) -> t.DeadLetterList:
        """What nobody could use, the newest `limit`, oldest first."""
        return await self._get("dead", t.DeadLetterList, {"since": since, "limit": limit})

    async def replay_dead_letters(self, sequences: Sequence[int] = (), *, reason: str = "") -> t.ReplayedList:
        """Puts dead letters back on their subjects: those named, or all that were not put back yet."""
        body = {"sequences": list(sequences), "all": not sequences, "reason": reason}
        return await self._post("dead/replay", t.ReplayedList, body, repeatable=True)

    async def follow_events(
        self,
        *,
        pool: str | None = None,
        node: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        since: str | None = None,
        after: int | None = None,
        retry_s: float = 1.0,
        on_break: Callable[[str], None] | None = None,
    ) -> AsyncIterator[t.EventItem]:
        """Events as they happen, for ever. A broken stream is taken up again behind the last event that was seen, or where
        it began, through whichever gateway answers then: no gap, and no event twice.

        Begins with what comes from now on, or at `since`, or behind stream sequence `after`. `on_break` is told why a stream
        broke. Raises `Unreachable` only where the first connection fails, `ApiError` where the request itself is refused.
        """
        stream: str | None = None
        started, pause_s = False, retry_s
        while True:
            query: Query = {
                "pool": pool, "node": node, "type": type, "follow": 1,
                "since": since if after is None else None, "after": after, "stream": None if after is None else stream,
            }  # fmt: skip
            broke = "it ended"
            try:
                async with self._stream("events", query) as response:
                    started, pause_s = True, retry_s
                    stream = response.headers.get("Navarch-Stream")
                    after = _number(response.headers.get("Navarch-After"), after)
                    since = response.headers.get("Navarch-Since", since)
                    async for item in events_of(response.aiter_bytes()):
                        after = item.sequence
                        yield item
            except (httpx.TransportError, Unreachable, TimedOut) as error:
                if not started:
                    raise _no_answer(error, self.server, self._timeout_s) from error
                broke = str(error) or error.__class__.__name__
            except _Unavailable as error:
                if not started:
                    raise error.refusal from error
                broke = str(error.refusal)
            if on_break is not None:
                on_break(broke)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, max(retry_s, _RETRY_MAX_S))

    async def wait_for_wish(
        self, request_id: str, *, node: str = "", pool: str = "", timeout_s: float, poll_s: float = 0.5
    ) -> t.WishState:
        """Waits until a wish about `node` or `pool` has its final answer. Raises `TimedOut`."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    ask = self.node_wish(node, request_id) if node else self.pool_wish(pool, request_id)
                    if (state := await ask).state != "open":
                        return state
                    await asyncio.sleep(poll_s)
        except TimeoutError as error:
            raise TimedOut(f"no final answer to {request_id} after {timeout_s:g} s; it stays asked for") from error

    # Leaks and safe mode

    async def leaks(self) -> t.LeakList:
        """Machines at our providers that no living record explains."""
        return await self._get("leaks", t.LeakList)

    async def wish_leaks(
        self, verb: Literal["adopt", "gc"], machines: Sequence[str], *, reason: str = "", request_id: str | None = None
    ) -> t.LeakWishAccepted:
        """Asks for leaked machines, named as `<provider>/<instance>` or by their instance alone, to be adopted or ended."""
        body = {"machines": list(machines), "reason": reason, "request_id": request_id or new_request_id()}
        return await self._post(f"leaks/{verb}", t.LeakWishAccepted, body, repeatable=True)

    async def adopt_installation(self, installation: str, *, reason: str = "") -> t.InstallationAdopted:
        """Takes another installation's machines over as ours. Only in safe mode."""
        return await self._post(
            "installation/adopt", t.InstallationAdopted, {"installation": installation, "reason": reason}
        )

    async def leave_safe_mode(self, *, reason: str) -> t.SafeModeLeft:
        """Allows launches and terminations again, on an operator's word."""
        return await self._post("safe-mode/leave", t.SafeModeLeft, {"reason": reason})

    # How it travels

    async def _get(self, path: str, as_type: type[T], query: Query | None = None) -> T:
        return await self._call("GET", path, as_type, query=query, repeatable=True)

    async def _post(
        self, path: str, as_type: type[T], body: object, *, query: Query | None = None, repeatable: bool = False
    ) -> T:
        return await self._call("POST", path, as_type, query=query, body=body, repeatable=repeatable)

    async def _call(
        self,
        method: str,
        path: str,
        as_type: type[T],
        *,
        query: Query | None = None,
        body: object = None,
        repeatable: bool = False,
    ) -> T:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        for attempt in range(_REPEATS + 1):
            try:
                async with asyncio.timeout(self._timeout_s):
                    response = await self._http.request(
                        method, f"/api/v1/{path}", params=_params(query), content=content, headers=headers
                    )
                return _read(response, as_type)
            except (httpx.TransportError, TimeoutError) as error:
                # A timeout has used up the caller's patience; a broken connection has not.
                broken = isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
                if not (broken and repeatable and attempt < _REPEATS):
                    raise _no_answer(error, self.server, self._timeout_s) from error
        raise AssertionError("every path through the loop returns or raises")

    @asynccontextmanager
    async def _stream(self, path: str, query: Query) -> AsyncIterator[httpx.Response]:
        timeout = httpx.Timeout(self._timeout_s, read=_STREAM_SILENCE_S)
        async with self._http.stream("GET", f"/api/v1/{path}", params=_params(query), timeout=timeout) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                refusal = _refusal(response)
                raise _Unavailable(refusal) if response.is_server_error else refusal
            yield response


class _Unavailable(Exception):
    """A gateway, or what stands before it, cannot serve now."""

    def __init__(self, refusal: ClientError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def _number(text: str | None, otherwise: int | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else otherwise


def _sync(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Client", P], T]:
    """The same call, waited for."""

    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(method(self.asynchronous, *args, **kwargs))

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


class Client:
    """`AsyncClient` for programs without an event loop: the same calls, each waited for. Ctrl-C interrupts a wait."""

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        actor: str = "",
        token: str = "",
        timeout_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.asynchronous = AsyncClient(server, actor=actor, token=token, timeout_s=timeout_s, transport=transport)
        self._runner = asyncio.Runner()

    @property
    def server(self) -> str:
        return self.asynchronous.server

    nodes = _sync(AsyncClient.nodes)
    node = _sync(AsyncClient.node)
    instances = _sync(AsyncClient.instances)
    explain_node = _sync(AsyncClient.explain_node)
    wish_node = _sync(AsyncClient.wish_node)
    preview_node_wish = _sync(AsyncClient.preview_node_wish)
    node_wish = _sync(AsyncClient.node_wish)
    inject = _sync(AsyncClient.inject)
    pools = _sync(AsyncClient.pools)
    pool = _sync(AsyncClient.pool)
    explain_pool = _sync(AsyncClient.explain_pool)
    wish_pool = _sync(AsyncClient.wish_pool)
    preview_pool_wish = _sync(AsyncClient.preview_pool_wish)
    pool_wish = _sync(AsyncClient.pool_wish)
    wait_for_wish = _sync(AsyncClient.wait_for_wish)
    changes = _sync(AsyncClient.changes)
    wish_change = _sync(AsyncClient.wish_change)
    preview_change_wish = _sync(AsyncClient.preview_change_wish)
    plan = _sync(AsyncClient.plan)
    freeze = _sync(AsyncClient.freeze)
    unfreeze = _sync(AsyncClient.unfreeze)
    hold = _sync(AsyncClient.hold)
    release = _sync(AsyncClient.release)
    guards = _sync(AsyncClient.guards)
    config = _sync(AsyncClient.config)
    preview_config = _sync(AsyncClient.preview_config)
    version = _sync(AsyncClient.version)
    status = _sync(AsyncClient.status)
    leaks = _sync(AsyncClient.leaks)
    wish_leaks = _sync(AsyncClient.wish_leaks)
    adopt_installation = _sync(AsyncClient.adopt_installation)
    leave_safe_mode = _sync(AsyncClient.leave_safe_mode)
    events = _sync(AsyncClient.events)
    audit = _sync(AsyncClient.audit)
    dead_letters = _sync(AsyncClient.dead_letters)
    replay_dead_letters = _sync(AsyncClient.replay_dead_letters)

    def follow_events(
        self,
        *,
        pool: str | None = None,
        node: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        since: str | None = None,
        after: int | None = None,
        on_break: Callable[[str], None] | None = None,
    ) -> Iterator[t.EventItem]:
        """Events as they happen, for ever; see `AsyncClient.follow_events`. Breaking out of the loop closes the stream."""
        stream = self.asynchronous.follow_events(
            pool=pool, node=node, type=type, since=since, after=after, on_break=on_break
        )

        async def following() -> t.EventItem:
            return await anext(stream)

        try:
            while True:
                yield self.run(following())
        finally:
            self.run(_close(stream))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Waits for any coroutine, such as a composition of calls to `self.asynchronous`."""
        return self._runner.run(call)

    def close(self) -> None:
        self.run(self.asynchronous.close())
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def new_request_id() -> str:
    """A request id: sending a wish again with the same one is the same wish."""
    return uuid.uuid4().hex


async def _close(stream: AsyncIterator[Any]) -> None:
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator, which the interface need not promise


def _address(server: str) -> str:
    """`host:8080` means http. Raises `ClientError` for what is no address."""
    text = server.strip()
    full = text if "://" in text else f"http://{text}"
    try:
        url = httpx.URL(full)
    except httpx.InvalidURL as error:
        raise ClientError(f"{server!r} is not a server address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or any(character.isspace() for character in text):
        raise ClientError(f"{server!r} is not a server address: expected http://HOST:PORT or https://HOST:PORT")
    return full.rstrip("/")


def _part(text: str) -> str:
    """One part of a path. An empty one, dots or a slash would name another resource."""
    if text in ("", ".", "..") or "/" in text:
        raise NotAName(f"{text!r} is not a name")
    return quote(text, safe="")


def _params(query: Query | None) -> httpx.QueryParams:
    pairs: list[tuple[str, str | int | float | bool | None]] = []
    for key, value in (query or {}).items():
        if isinstance(value, str | int):
            pairs.append((key, str(value)))
        elif value is not None:
            pairs.extend((key, item) for item in value)
    return httpx.QueryParams(pairs)


def _pool_wish(verb: str, nodes: int | None, for_s: float | None, reason: str) -> dict[str, Any]:
    body: dict[str, Any] = {"verb": verb, "reason": reason}
    body |= {} if nodes is None else {"nodes": nodes}
    body |= {} if for_s is None else {"for_s": for_s}
    return body


def _read(response: httpx.Response, as_type: type[T]) -> T:
    if not response.is_success:
        raise _refusal(response)
    if len(response.content) > ANSWER_BYTES_MAX:
        raise BadAnswer(f"{response.url} answered with {len(response.content)} bytes, more than any answer has")
    try:
        return msgspec.json.decode(response.content, type=as_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"{response.url} answered with what is not {as_type.__name__}: {error}") from error


def _refusal(response: httpx.Response) -> ClientError:
    try:
        return ApiError(msgspec.json.decode(response.content, type=t.Problem))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return BadAnswer(
            f"{response.url} answered {response.status_code} {response.reason_phrase}; is that a Navarch gateway?"
        )


def _no_answer(error: Exception, server: str, timeout_s: float) -> ClientError:
    if isinstance(error, ClientError):
        return error
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return TimedOut(f"{server} did not answer within {timeout_s:g} s")
    return Unreachable(f"{server} cannot be reached: {str(error) or type(error).__name__}")
