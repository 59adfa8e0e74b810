"""Bytes in, Structs out, and back. Size is checked before anything is decoded; whatever is wrong is one named error."""

from functools import reduce
from operator import or_
from typing import Any, TypeVar, overload

import msgspec
from msgspec import Struct, structs

from navarch_common.errors import NavarchError
from navarch_common.events import kinds
from navarch_common.events.audit import Audit
from navarch_common.events.base import POOL_NONE, Event
from navarch_common.events.messages import EVENT_BYTES_MAX, MESSAGE_BYTES_MAX, QueueDepth
from navarch_common.model.base import Count

T = TypeVar("T")

_AT_TYPE = " - at `$.type`"
"""How msgspec ends its sentence about a tag that is none of those expected."""
_encoder = msgspec.json.Encoder()
_event_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(reduce(or_, (*kinds.ALL, Audit)))
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


class BadMessage(NavarchError, ValueError):
    """A message that cannot be used: too large, not JSON, not of the type, out of bounds, or contradicting its subject."""


class NewerMessage(BadMessage):
    """A message of a type that is not known here: of a later release, or nonsense."""


def encode(message: Struct) -> bytes:
    return _encoder.encode(message)


@overload
def decode(data: bytes, as_type: type[T], *, size_max: int = MESSAGE_BYTES_MAX) -> T: ...
@overload
def decode(data: bytes, as_type: Any, *, size_max: int = MESSAGE_BYTES_MAX) -> Any: ...
def decode(data: bytes, as_type: Any, *, size_max: int = MESSAGE_BYTES_MAX) -> Any:
    """Decodes one message (a Struct, or a union of them). Ignores unknown fields.

    Raises `BadMessage` and nothing else, whatever comes from outside.
    """
    if len(data) > size_max:
        raise BadMessage(f"{len(data)} bytes, more than the {size_max} allowed")
    if not data:
        raise BadMessage("an empty message")
    decoder = _decoders.get(as_type)
    if decoder is None:
        decoder = _decoders[as_type] = msgspec.json.Decoder(as_type)
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        kind = NewerMessage if str(error).endswith(_AT_TYPE) else BadMessage
        raise kind(f"{error} in {data[:80]!r}") from error


def decode_queue_depth(data: bytes) -> QueueDepth:
    """`73`, or an object with `queue_depth`. Raises `BadMessage`."""
    if len(data) > 4096:
        raise BadMessage(f"{len(data)} bytes, more than the 4096 allowed for a queue depth")
    if data.lstrip()[:1] == b"{":
        return decode(data, QueueDepth)
    return QueueDepth(queue_depth=decode(data, Count))


def subject_tokens(event: Event) -> tuple[str, ...]:
    """What follows `navarch.events.`: kind, what, pool, and the node where there is one."""
    kind = event.KIND
    if isinstance(event, kinds.OperatorAction):
        kind = f"operator.{event.action}"
    tokens = (*kind.split("."), event.pool or POOL_NONE)
    return (*tokens, event.node) if event.node else tokens


def finish(event: Event, revision: int, ordinal: int) -> Event:
    """The event as it is published, once the commit's revision is known."""
    return structs.replace(event, id=event_id(revision, ordinal), rev=revision)


def event_id(revision: int, ordinal: int) -> str:
    return f"{revision:016d}-{ordinal}"


def decode_event(data: bytes) -> Event:
    """Raises `BadMessage`. An event of a later release whose type is not known raises it too."""
    if len(data) > EVENT_BYTES_MAX:
        raise BadMessage(f"{len(data)} bytes, more than the {EVENT_BYTES_MAX} allowed for an event")
    try:
        event: Event = _event_decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadMessage(f"{error} in {data[:80]!r}") from error
    return event
