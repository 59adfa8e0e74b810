"""Views as protobuf messages, and requests as asks. Field names are the same on both sides, which a test holds. Pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

import grpc
import msgspec
from google.protobuf.message import Message

from navarch_api.types import EventItem
from navarch_api.v1 import fleet_pb2 as pb

M = TypeVar("M", bound=Message)

STATUS_CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""What a refusal's HTTP status is called here; INTERNAL for any other."""


def to_message(view: msgspec.Struct, kind: type[M]) -> M:
    """`None` is an absent field."""
    return kind(**_fields(view))


def to_event(line: bytes) -> pb.Event | None:
    """One event of the stream, as its line of JSON; None for what is no event."""
    try:
        item = EventItem.of(msgspec.json.decode(line, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    fields = {name: getattr(item, name) for name in EventItem.__struct_fields__ if name != "raw"}
    return pb.Event(**fields, json=line.decode())


def to_fields(request: Message, *leave_out: str) -> dict[str, Any]:
    """What a request says, for `read_ask`: absent optional fields and empty strings are not said."""
    fields: dict[str, Any] = {}
    for field in request.DESCRIPTOR.fields:
        if field.name in leave_out or (field.has_presence and not request.HasField(field.name)):
            continue
        if (value := getattr(request, field.name)) != "":
            fields[field.name] = value
    return fields


def _fields(view: msgspec.Struct) -> dict[str, Any]:
    return {name: _value(value) for name in view.__struct_fields__ if (value := getattr(view, name)) is not None}


def _value(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _fields(value)
    if isinstance(value, tuple | list):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items()}
    return value
