"""The life of a process: signals, a bounded shutdown, an exit status, and one line for a person when it failed."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import structlog

from navarch_common.errors import NavarchError

log = structlog.get_logger()

SHUTDOWN_S = 10.0
"""From the first signal until the process ends in any case."""
ONE_WISH_S = 0.5
"""Signals this close together are one wish: make and `timeout` pass on what the whole process group got already."""
EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


class UsageError(NavarchError):
    """The command line, the environment or the configuration is wrong: exit status 2."""


def main(work: Coroutine[Any, Any, object], *, shutdown_s: float = SHUTDOWN_S) -> int:
    """Runs `work` until it is done or SIGINT or SIGTERM cancels it, and returns the exit status.

    0 after a signal or when `work` is done; 1 when it failed; 2 when it raised a `UsageError`. Expected errors are told in
    one line each on stderr, others are logged with their traceback. A second signal (see `ONE_WISH_S`), or a shutdown
    that takes longer than `shutdown_s`, ends the process at once.
    """
    # Long-lived objects are many and garbage is little: the default thresholds cost a third of decoding time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    return asyncio.run(_supervised(work, shutdown_s))


async def _supervised(work: Coroutine[Any, Any, object], shutdown_s: float) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    stopping = asyncio.Event()
    asked_at = 0.0

    def stop(number: signal.Signals) -> None:
        nonlocal asked_at
        if stopping.is_set():
            if loop.time() - asked_at > ONE_WISH_S:
                _end(f"{number.name} again: ending at once")
            return
        asked_at = loop.time()
        log.info("stopping", signal=number.name)
        stopping.set()
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    signalled = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=shutdown_s)
        if not task.done():
            names = sorted(each.get_name() for each in asyncio.all_tasks() - {asyncio.current_task()})
            _end(f"not stopped after {shutdown_s:g} s; still running: {', '.join(names[:20])}")
    finally:
        signalled.cancel()
    return _status(task, stopped=stopping.is_set())


def _status(task: "asyncio.Future[object]", *, stopped: bool) -> int:
    if task.cancelled():
        return EXIT_DONE if stopped else EXIT_FAILED
    error = task.exception()
    if error is None:
        return EXIT_DONE
    causes = leaves(error)
    for cause in causes:
        if isinstance(cause, NavarchError):
            sys.stderr.write(f"{_program()}: {cause}\n")
        else:
            log.error("crashed", exc_info=cause)
    return EXIT_USAGE if all(isinstance(cause, UsageError) for cause in causes) else EXIT_FAILED


def leaves(error: BaseException) -> list[BaseException]:
    """The errors within an exception group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


def _program() -> str:
    return os.path.basename(sys.argv[0]) or "navarch"  # noqa: PTH119 - a name, not a file


def _end(why: str) -> None:
    """Without further clean-up: tasks that don't end cannot be waited for."""
    log.error("stopped by force", reason=why)
    sys.stderr.flush()
    os._exit(EXIT_FAILED)
