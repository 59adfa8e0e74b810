"""Reads requests strictly: a parameter or field that nobody knows is an error that names the nearest one."""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import ClientDisconnect, Request

from navarch_gateway.asks import read_actor, read_ask
from navarch_gateway.refusal import Refused, bad, invalid, nearest

T = TypeVar("T", bound=Struct)

BODY_BYTES_MAX = 1 << 20
PARAMETERS_MAX = 64


class Parameters:
    """A request's query, checked. `many` names those that may come more than once."""

    def __init__(self, request: Request, *names: str, many: Iterable[str] = ()) -> None:
        known = {*names, *many}
        pairs = request.query_params.multi_items()
        if len(pairs) > PARAMETERS_MAX:
            raise bad("too-many-parameters", f"more than {PARAMETERS_MAX} parameters")
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in known:
                hint = nearest(name, known) or (
                    f"; known are {', '.join(sorted(known))}" if known else "; there are none"
                )
                raise bad("unknown-parameter", f"unknown parameter {name!r:.100}{hint}", field=name[:100])
            self._values.setdefault(name, []).append(value)
        for name in names:
            if len(self._values.get(name, ())) > 1:
                raise bad("repeated-parameter", f"{name} is given more than once", field=name)

    def text(self, name: str) -> str:
        return self._values.get(name, [""])[0]

    def texts(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def flag(self, name: str) -> bool:
        text = self.text(name).lower()
        if text not in ("", "0", "1", "false", "true"):
            raise bad("bad-parameter", f"{name} {text!r:.40} is neither 1 nor 0", field=name)
        return text in ("1", "true")

    def number(self, name: str, highest: int = 2**53) -> int | None:
        text = self.text(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= highest):
            raise bad("bad-parameter", f"{name} {text!r:.40} is no whole number up to {highest}", field=name)
        return int(text)

    def digits(self, name: str) -> str:
        """A word of ours that a caller hands back; empty where it is not given."""
        text = self.text(name)
        if text and not (text.isascii() and text.isdigit() and len(text) <= 20):
            raise bad("bad-parameter", f"{name} {text!r:.40} is none that an answer gave", field=name)
        return text

    def pairs(self, name: str) -> dict[str, str]:
        """`label=k=v`, any number of times."""
        found: dict[str, str] = {}
        for text in self.texts(name):
            key, separator, value = text.partition("=")
            if not separator or not key:
                raise bad("bad-parameter", f"{name} {text!r:.100} is not of the form KEY=VALUE", field=name)
            found[key] = value
        return found


def actor_of(request: Request) -> str:
    return read_actor(request.headers.get("x-navarch-actor"))


async def read_body(request: Request, as_type: type[T]) -> T:
    return read_ask(await read_object(request), as_type)


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. A browser cannot send one to us from another site without asking first."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "unsupported-media-type", f"expected Content-Type application/json, found {kind[:100]!r}")
    data = await _bounded(request)
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad("bad-json", f"the body is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise invalid("bad-body", f"expected a JSON object, found {type(fields).__name__}")
    return fields


async def _bounded(request: Request) -> bytes:
    """Stops reading at the limit, whatever the client said that it would send."""
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > BODY_BYTES_MAX:
                raise Refused(413, "too-large", f"the body is larger than {BODY_BYTES_MAX} bytes")
    except ClientDisconnect as error:
        raise bad("cut-off", "the body ended early") from error
    return bytes(data)
