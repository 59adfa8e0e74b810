"""A cancellation that a library swallows is still a cancellation.

`asyncio.wait_for`, which redis-py and nats-py send and wait with, may return normally up to Python 3.11 although its task
was cancelled, when that happens in the turn in which the wait ends. The task would go on for ever, and a stop would hang.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heeded() -> Iterator[None]:
    """Raises `CancelledError` at its end where the task was cancelled inside, whatever came of the wait."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except Exception as error:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
