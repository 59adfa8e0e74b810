"""The client, against answers made up here."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import msgspec
import pytest

from navarch_api.client import AsyncClient, Client
from navarch_api.errors import ApiError, BadAnswer, ClientError, TimedOut, Unreachable
from navarch_api.ndjson import LINE_BYTES_MAX, events_of
from navarch_api.types import EventItem

EVENT = {"type": "node.failed.v1", "id": "1-0", "at": "2026-01-01T00:00:00Z", "cluster": "c", "cause": "xid-79"}
VERSION = {"version": "0.1.0", "cluster": "c", "installation": "i"}
ACCEPTED = {"request_id": "r1", "event_id": "e", "revision": 1, "verb": "cordon", "node": "n1"}

Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler, **options: Any) -> AsyncClient:
    return AsyncClient("gateway:8080", transport=httpx.MockTransport(handler), **options)


async def test_an_address_without_a_scheme_means_http() -> None:
    assert client(lambda _: httpx.Response(200, json=VERSION)).server == "http://gateway:8080"


@pytest.mark.parametrize("server", ["", "ftp://x", "http://", "http://a b", "http://x:port"])
def test_what_is_no_address_is_said_at_once(server: str) -> None:
    with pytest.raises(ClientError, match="is not a server address"):
        AsyncClient(server)


async def test_a_request_names_its_actor_and_its_query() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"items": [], "as_of": EVENT["at"]})

    asked = client(handler, actor="operator:Jürgen", token="t")
    await asked.nodes(pool="training", labels={"a": "b", "c": "d=e"}, terminated=True)
    assert seen[0].url.path == "/api/v1/nodes"
    assert seen[0].url.params.multi_items() == [
        ("pool", "training"), ("label", "a=b"), ("label", "c=d=e"), ("all", "1"), ("limit", "1000"),
    ]  # fmt: skip
    assert seen[0].headers["x-navarch-actor"] == "operator:J%C3%BCrgen"
    assert seen[0].headers["authorization"] == "Bearer t"


async def test_a_name_cannot_become_another_path() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(404, json={"title": "Not Found", "status": 404, "code": "not-found"})

    asked = client(handler)
    with pytest.raises(ApiError):
        await asked.node("..%config?")
    assert seen == ["/api/v1/nodes/..%25config%3F"]
    for name in ("", ".", "..", "../config"):
        with pytest.raises(ClientError, match="is not a name"):
            await asked.node(name)


async def test_a_problem_becomes_an_error_with_its_code() -> None:
    problem = {"title": "Conflict", "status": 409, "code": "busy", "detail": "n1 is busy", "new_member": 1}
    with pytest.raises(ApiError, match="n1 is busy") as caught:
        await client(lambda _: httpx.Response(409, json=problem)).wish_node("n1", "terminate")
    assert (caught.value.status, caught.value.code) == (409, "busy")


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.Response(200, text="hello"),
        httpx.Response(200, json={"version": 3}),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(302, headers={"Location": "http://elsewhere"}),
    ],
)
async def test_what_is_not_our_api_is_said_to_be_none(response: httpx.Response) -> None:
    with pytest.raises(BadAnswer):
        await client(lambda _: response).version()


async def test_fields_of_a_later_release_are_ignored() -> None:
    found = await client(lambda _: httpx.Response(200, json={**VERSION, "api": "v2", "more": [1]})).version()
    assert found.api == "v2"


async def test_a_wish_is_sent_again_under_the_same_request_id_when_its_connection_broke() -> None:
    bodies: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(msgspec.json.decode(request.content))
        if len(bodies) < 3:
            raise httpx.ReadError("cut off", request=request)
        return httpx.Response(202, json=ACCEPTED)

    await client(handler).wish_node("n1", "cordon")
    assert len({body["request_id"] for body in bodies}) == 1
    assert len(bodies) == 3


async def test_what_is_not_the_same_when_repeated_is_sent_once() -> None:
    sent = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal sent
        sent += 1
        raise httpx.ReadError("cut off", request=request)

    with pytest.raises(Unreachable, match="cut off"):
        await client(handler).freeze(reason="audit")
    assert sent == 1


async def test_a_server_that_does_not_answer_is_timed_out() -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return httpx.Response(200)

    asked = AsyncClient("gateway:8080", timeout_s=0.01, transport=httpx.MockTransport(handler))
    with pytest.raises(TimedOut, match=r"within 0\.01 s"):
        await asked.version()


def test_nobody_there_is_said_in_one_sentence() -> None:
    with Client("http://127.0.0.1:9") as asked, pytest.raises(Unreachable, match="cannot be reached"):
        asked.version()


async def test_waiting_for_a_wish_ends_with_its_final_answer_or_in_time() -> None:
    states = ["open", "open", "answered"]

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"request_id": "r1", "state": states.pop(0) if states else "open"})

    asked = client(handler)
    assert (await asked.wait_for_wish("r1", node="n1", timeout_s=5, poll_s=0.001)).state == "answered"
    with pytest.raises(TimedOut, match="it stays asked for"):
        await asked.wait_for_wish("r1", pool="p", timeout_s=0.02, poll_s=0.001)


def line(sequence: int) -> bytes:
    return msgspec.json.encode({**EVENT, "sequence": sequence}) + b"\n"


class Breaking(httpx.AsyncByteStream):
    """A stream that breaks after what it was given."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        raise httpx.ReadError("broken")


async def test_a_broken_stream_is_taken_up_behind_the_last_event() -> None:
    asked: list[list[tuple[str, str]]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.multi_items())
        first = len(asked) == 1
        return httpx.Response(200, stream=Breaking(b"\n", line(7) if first else line(8)))

    found: list[EventItem] = []
    async for item in client(handler).follow_events(pool="p", since="1h", retry_s=0.001):
        found.append(item)
        if len(found) == 2:
            break
    assert [item.sequence for item in found] == [7, 8]
    assert asked[0] == [("pool", "p"), ("follow", "1"), ("since", "1h")]
    assert asked[1] == [("pool", "p"), ("follow", "1"), ("after", "7")]
    assert (found[0].kind, found[0].raw["cause"]) == ("node.failed", "xid-79")


async def test_a_stream_that_breaks_before_its_first_event_is_taken_up_where_it_began() -> None:
    asked: list[dict[str, str]] = []
    begins = [{"Navarch-After": "41", "Navarch-Stream": "7"}, {"Navarch-After": "41", "Navarch-Stream": "7"}]

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        return httpx.Response(200, headers=begins.pop(0), stream=Breaking(b"\n", *([line(42)] if not begins else [])))

    broke: list[str] = []
    async for item in client(handler).follow_events(retry_s=0.001, on_break=broke.append):
        assert item.sequence == 42
        break
    assert asked == [{"follow": "1"}, {"follow": "1", "after": "41", "stream": "7"}]
    assert broke == ["broken"]


async def test_a_stream_since_some_time_ago_begins_again_at_that_same_time() -> None:
    asked: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("since"))
        return httpx.Response(
            200,
            headers={"Navarch-Since": "2026-01-01T00:00:00+00:00"},
            stream=Breaking(*([line(1)] if asked[1:] else [])),
        )

    async for _ in client(handler).follow_events(since="2h", retry_s=0.001):
        break
    assert asked == ["2h", "2026-01-01T00:00:00+00:00"]


async def test_a_stream_made_anew_is_read_from_its_beginning_and_its_lower_sequences_count() -> None:
    asked: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("after"))
        if len(asked) == 1:
            return httpx.Response(
                200, headers={"Navarch-After": "900", "Navarch-Stream": "1"}, stream=Breaking(line(901))
            )
        if len(asked) == 2:
            return httpx.Response(200, headers={"Navarch-After": "0", "Navarch-Stream": "2"}, stream=Breaking(line(3)))
        return httpx.Response(200, stream=Breaking(line(4)))

    found: list[int] = []
    async for item in client(handler).follow_events(retry_s=0.001):
        found.append(item.sequence)
        if len(found) == 3:
            break
    assert (found, asked) == ([901, 3, 4], [None, "901", "3"])


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_gateway_that_cannot_serve_is_asked_again_once_the_stream_had_begun(status: int) -> None:
    answers = [
        httpx.Response(200, stream=Breaking(line(1))),
        httpx.Response(status, text="<html>no server is available</html>"),
        httpx.Response(200, stream=Breaking(line(2))),
    ]
    broke: list[str] = []
    stream = client(lambda _: answers.pop(0)).follow_events(retry_s=0.001, on_break=broke.append)
    assert [(await anext(stream)).sequence, (await anext(stream)).sequence] == [1, 2]
    assert len(broke) == 2
    with pytest.raises(ClientError):
        async for _ in client(lambda _: httpx.Response(status, text="no")).follow_events():
            pass


async def test_a_refused_stream_is_an_error_not_a_loop() -> None:
    problem = {"title": "Bad Request", "status": 400, "code": "bad-type", "detail": "no type"}
    with pytest.raises(ApiError, match="no type"):
        async for _ in client(lambda _: httpx.Response(400, json=problem)).follow_events():
            pass


async def test_a_first_connection_that_fails_is_an_error() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(Unreachable):
        async for _ in client(handler).follow_events():
            pass


def test_the_client_without_an_event_loop_follows_too() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Breaking(line(1), line(2))))
    with Client("gateway", transport=transport) as asked:
        stream = asked.follow_events()
        assert [next(stream).sequence for _ in range(2)] == [1, 2]
        stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_lines_are_whole_however_they_arrive(size: int) -> None:
    data = b"\n" + line(1) + b"\n\n" + line(2) + line(3)[:20]

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    assert [item.sequence async for item in events_of(chunks())] == [1, 2]


@pytest.mark.parametrize("data", [b"nonsense\n", b"[]\n", b"{}\n", b"x" * (LINE_BYTES_MAX + 1)])
async def test_a_line_that_is_no_event_is_refused(data: bytes) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    with pytest.raises(BadAnswer):
        async for _ in events_of(chunks()):
            pass
