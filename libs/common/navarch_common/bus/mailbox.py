"""A bounded queue between the bus and one reader, iterated with `async for`; it ends when it is closed."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """What arrived for one reader. One task reads at a time."""

    def __init__(self, capacity: int, on_take: Callable[[], None] | None = None) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._on_take = on_take
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, item: T) -> bool:
        """Adds an item; False, and it is dropped, where the reader is too slow."""
        if self._closed or len(self._items) >= self._capacity:
            return False
        self._items.append(item)
        self._wake()
        return True

    def close(self, error: Exception | None = None) -> None:
        """No more will come. What is there is still read; then iteration ends, or raises `error`."""
        if not self._closed:
            self._closed, self._error = True, error
            self._wake()

    def __aiter__(self) -> "Mailbox[T]":
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._closed:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item = self._items.popleft()
        if self._on_take is not None:
            self._on_take()
        return item

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
