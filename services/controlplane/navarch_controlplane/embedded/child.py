"""One server as a child process: started, waited for until it answers, started again when it dies alone, stopped.

The condition that is kept: while `supervise` runs, a server that has ended is started again on the same port.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from navarch_common.errors import NavarchError

_LAUNCH = Path(__file__).with_name("launch.py")
_POLL_S = 0.01
_BACKOFF_FIRST_S, _BACKOFF_LAST_S = 0.1, 5.0
_SETTLED_S = 30.0
"""A server that ran this long gets the first backoff again."""

log = structlog.get_logger(__name__)


class ChildFailed(NavarchError):
    """A server did not become ready; the message holds the end of what it said."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run, and how to know that it serves."""

    name: str
    argv: tuple[str, ...]
    directory: Path
    log_file: Path
    port: int
    answers: Callable[[int], Awaitable[bool]]
    """Whether the server at this port serves now. Must not raise for a server that is not there yet."""
    ready_timeout_s: float = 60.0
    """A server with much to read from disk is slow to begin."""
    stop_timeout_s: float = 1.5


class Child:
    """A server process. `start` first, then `supervise` in a task of its own, at the end `stop`."""

    def __init__(self, spec: ChildSpec, lock_descriptor: int) -> None:
        self.spec = spec
        self._lock_descriptor = lock_descriptor
        self._process: asyncio.subprocess.Process | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Starts the server and returns when it answers. Raises `ChildFailed`, and then nothing runs."""
        assert threading.current_thread() is threading.main_thread(), (
            "the kernel ends children with the thread that forked them"
        )
        await self._spawn()
        try:
            async with asyncio.timeout(self.spec.ready_timeout_s):
                await self._until_ready()
        except TimeoutError:
            await self.stop()
            raise ChildFailed(
                f"{self.spec.name} did not answer on 127.0.0.1:{self.spec.port} within {self.spec.ready_timeout_s:g} s"
                f"{self._last_words()}"
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def supervise(self) -> None:
        """Starts the server again whenever it ends by itself. Runs until cancelled."""
        loop, backoff_s = asyncio.get_running_loop(), _BACKOFF_FIRST_S
        while True:
            assert self._process is not None, "supervise follows start"
            began = loop.time()
            status = await self._process.wait()
            if loop.time() - began > _SETTLED_S:
                backoff_s = _BACKOFF_FIRST_S
            log.error(
                "server ended by itself, starting it again",
                server=self.spec.name, status=status, port=self.spec.port, after_s=backoff_s,
            )  # fmt: skip
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_LAST_S)
            self.restarts += 1
            try:
                await self.start()
            except ChildFailed as error:
                log.error("server did not come back", server=self.spec.name, error=str(error))
            else:
                log.info("server is back", server=self.spec.name, pid=self.pid, port=self.spec.port)

    async def stop(self) -> None:
        """Asks the server to end, then ends it. Nothing happens where it does not run."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.spec.stop_timeout_s):
                await process.wait()
        except TimeoutError:
            log.warning("server does not stop, killing it", server=self.spec.name, pid=process.pid)
            process.kill()
            await process.wait()

    def kill(self) -> None:
        """Ends the server at once, without waiting: for a second Ctrl-C."""
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGKILL)

    async def _spawn(self) -> None:
        # In a session of its own, or Ctrl-C on our terminal would stop it before the services are done with it.
        with self.spec.log_file.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), *self.spec.argv,
                cwd=self.spec.directory, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, pass_fds=(self._lock_descriptor,),
            )  # fmt: skip

    async def _until_ready(self) -> None:
        assert self._process is not None
        while not await self.spec.answers(self.spec.port):
            if self._process.returncode is not None:
                raise ChildFailed(f"{self.spec.name} ended with status {self._process.returncode}{self._last_words()}")
            await asyncio.sleep(_POLL_S)
        if self._process.returncode is not None:  # Somebody else answers on its port.
            raise ChildFailed(f"{self.spec.name} ended with status {self._process.returncode}{self._last_words()}")

    def _last_words(self) -> str:
        try:
            lines = self.spec.log_file.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()[-5:]
        except OSError:
            return ""
        return f"; the end of {self.spec.log_file}:\n  " + "\n  ".join(lines) if lines else ""
