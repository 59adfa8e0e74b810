"""JetStream's own request API, spoken directly: JSON requests, typed answers, one mapping of errors.

nats-py's own layer over it parses headers as e-mail does and hides error codes; the wire protocol is small and stable.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
import nats.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg

from navarch_common.bus.base import BusError, BusTimeout, BusUnavailable, KvConflict, NoResponder, StreamRefused
from navarch_common.bus.matching import BadSubject
from navarch_common.cancellation import heeded

T = TypeVar("T")

API = "$JS.API"
API_TIMEOUT_S = 5.0
STORE_REFUSED = 10077
"""The stream is full; the server files it under 503 all the same."""
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
WRONG_LAST_SEQUENCE = (10071, 10164)
NO_SPACE = (10023, 10028, 10047)
"""The server has not as much room as the stream would reserve."""
NO_REPLICAS = (10005, 10074)
"""A server on its own, or a cluster too small."""


class ApiRefusal(StreamRefused):
    """The server answered with an error; `code` is its own number for it."""

    def __init__(self, what: str, code: int, description: str) -> None:
        super().__init__(f"{what}: {description} ({code})")
        self.code, self.description = code, description


class _ApiError(Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(Struct):
    error: _ApiError | None = None


class StreamState(Struct, frozen=True):
    messages: int = 0
    first_seq: int = 0
    last_seq: int = 0


class StreamInfo(Struct):
    config: dict[str, Any]
    state: StreamState = StreamState()
    created: datetime = datetime(1970, 1, 1, tzinfo=UTC)


class ConsumerInfo(Struct):
    name: str = ""
    num_pending: int = 0
    num_ack_pending: int = 0


class Acknowledged(Struct):
    stream: str
    seq: int
    duplicate: bool = False


class RawMessage(Struct):
    subject: str
    seq: int
    time: datetime
    data: bytes = b""
    """msgspec decodes the base64."""
    hdrs: bytes = b""


class RawMessageAnswer(Struct):
    message: RawMessage


@asynccontextmanager
async def translated(what: str) -> AsyncIterator[None]:
    """Turns nats-py's errors into the port's."""
    try:
        with heeded():
            yield
    except nats.errors.NoRespondersError as error:
        raise NoResponder(f"{what}: nobody answers") from error
    except TimeoutError as error:  # nats.errors.TimeoutError is one
        raise BusTimeout(f"{what}: no answer in time") from error
    except (
        nats.errors.OutboundBufferLimitError,
        nats.errors.ConnectionClosedError,
        nats.errors.ConnectionReconnectingError,
        nats.errors.ConnectionDrainingError,
        nats.errors.StaleConnectionError,
        OSError,
    ) as error:
        raise BusUnavailable(f"{what}: not connected to the bus") from error
    except nats.errors.BadSubjectError as error:
        raise BadSubject(f"{what}: invalid subject") from error
    except nats.errors.Error as error:
        raise BusError(f"{what}: {error}") from error


async def ask(
    client: Client, subject: str, data: bytes, timeout_s: float, headers: dict[str, str] | None = None
) -> Msg:
    """One request. Raises the port's errors."""
    async with translated(subject), asyncio.timeout(timeout_s):
        return await client.request(subject, data, timeout=timeout_s + 1.0, headers=headers)


async def call(client: Client, method: str, body: Mapping[str, Any] | None, answer: type[T]) -> T:
    """One call of JetStream's API. Raises `ApiRefusal` with the server's own code, or the port's errors."""
    data = b"" if body is None else msgspec.json.encode(body)
    try:
        message = await ask(client, f"{API}.{method}", data, API_TIMEOUT_S)
    except NoResponder as error:
        raise BusUnavailable(f"{method}: JetStream is not there, or has no leader") from error
    return decode(method, message.data, answer)


def decode(what: str, data: bytes, answer: type[T]) -> T:
    failed = msgspec.json.decode(data, type=_Answer).error
    if failed is None:
        return msgspec.json.decode(data, type=answer)
    if failed.err_code in WRONG_LAST_SEQUENCE:
        raise KvConflict(f"{what}: {failed.description}")
    refusals = (STORE_REFUSED, *NO_SPACE, *NO_REPLICAS)
    if failed.code == 503 and failed.err_code not in refusals:
        raise BusUnavailable(f"{what}: {failed.description} ({failed.err_code})")
    raise ApiRefusal(what, failed.err_code, failed.description)


class Metadata(Struct, frozen=True):
    """What the acknowledgement subject of a delivered message says of it."""

    deliveries: int
    stream_sequence: int
    consumer_sequence: int
    stored_at: datetime
    pending: int


def metadata(reply: str) -> Metadata:
    """Parses `$JS.ACK.…`, with and without domain and account."""
    tokens = reply.split(".")
    at = 4 if len(tokens) == 9 else 6
    deliveries, stream_sequence, consumer_sequence, nanoseconds, pending = (int(t) for t in tokens[at : at + 5])
    stored_at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=nanoseconds // 1000)
    return Metadata(deliveries, stream_sequence, consumer_sequence, stored_at, pending)


def parse_headers(block: bytes) -> dict[str, str]:
    """`NATS/1.0`, then a line for each header, in UTF-8."""
    headers: dict[str, str] = {}
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().decode("ascii", "replace")] = value.strip().decode("utf-8", "replace")
    return headers
