"""Where log lines leave the process, without ever waiting for whoever reads them.

A pipe whose reader hangs, a terminal stopped with Ctrl-S, a journal that falls behind: writing to any of them blocks, and
would stop the event loop, heartbeats and leases with it. Here what cannot be written at once waits in a bounded buffer,
what doesn't fit is dropped line by line, and how many were lost is the first thing said once there is room again.
"""

import logging
import os
import socket
import stat
import time
from collections.abc import Callable
from typing import TextIO

PENDING_BYTES_MAX = 1 << 20
"""Some thousand lines that wait for a reader."""
LAST_WORDS_S = 1.0
"""How long the end of the process waits for a reader that is only slow."""

Write = Callable[[bytes], int]
"""Writes some of the bytes at once and returns how many; raises `BlockingIOError` where none can be."""


def never_waiting(stream: TextIO) -> Write | None:
    """A way to write to what is behind `stream` without waiting; None where there is none or it is not needed."""
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            return _to_socket(socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM))
        if stat.S_ISFIFO(mode) or os.isatty(descriptor):
            return _to_descriptor(descriptor)
    except (OSError, ValueError):  # no file, or one that cannot be opened a second time
        return None
    return None  # a file takes what it is given


def _to_descriptor(descriptor: int) -> Write:
    # Opened anew: the flag belongs to the open file, which we share with whoever started us.
    own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return lambda data: os.write(own, data)


def _to_socket(own: socket.socket) -> Write:
    return lambda data: own.send(data, socket.MSG_DONTWAIT)


class NeverWaitingHandler(logging.Handler):
    """Hands each record's line to `write`, now, later, or not at all."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write
        self._pending = bytearray()
        self.dropped = 0
        """Lines lost since there was room last."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - as every handler of logging does: a line that fails harms nobody
            self.handleError(record)
            return
        self.flush()
        if not self._pending:
            self._own_up()
        if len(self._pending) + len(line) > PENDING_BYTES_MAX:
            self.dropped += 1
            return
        self._pending += line
        self.flush()

    def flush(self) -> None:
        """Writes what can be written at once. A reader that is gone for good takes everything with it."""
        try:
            while self._pending:
                del self._pending[: self._write(bytes(self._pending[:65_536]))]
        except BlockingIOError:
            return
        except OSError:
            self._pending.clear()

    def close(self) -> None:
        """At the end of the process, which may be the most interesting part of its log."""
        self._own_up()
        give_up_at = time.monotonic() + LAST_WORDS_S
        self.flush()
        while self._pending and time.monotonic() < give_up_at:
            time.sleep(0.01)
            self.flush()
        super().close()

    def _own_up(self) -> None:
        if self.dropped:
            self._pending += self._line(_lost(self.dropped))
            self.dropped = 0

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")


def _lost(lines: int) -> logging.LogRecord:
    text = f"{lines} log lines were dropped: nobody took them"
    return logging.LogRecord("navarch.log", logging.WARNING, __file__, 0, text, None, None)
