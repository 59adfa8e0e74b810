"""Reads a stream of JSON Lines as it arrives: whole lines only, each of bounded length, empty ones skipped."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from navarch_api.errors import BadAnswer
from navarch_api.types import EventItem

LINE_BYTES_MAX = 4 << 20


async def events_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[EventItem]:
    """Raises `BadAnswer` for a line that is no event. A line cut off by the stream's end is dropped: it comes again."""
    async for line in _lines(chunks):
        try:
            yield EventItem.of(msgspec.json.decode(line, type=dict[str, Any]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadAnswer(f"the stream holds what is no event: {error} in {line[:80]!r}") from error


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = bytearray()
    async for chunk in chunks:
        *whole, last = (bytes(rest) + chunk).split(b"\n") if b"\n" in chunk else (bytes(rest) + chunk,)
        for line in whole:
            if line.strip():
                yield line
        if len(last) > LINE_BYTES_MAX:
            raise BadAnswer(f"a line of the stream is longer than {LINE_BYTES_MAX} bytes")
        rest[:] = last
