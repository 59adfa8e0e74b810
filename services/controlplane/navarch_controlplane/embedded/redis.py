"""The embedded Redis-compatible server: every write on disk before it is acknowledged, nothing ever evicted."""

import asyncio
from pathlib import Path

from navarch_controlplane.embedded.child import ChildSpec

_ANSWER_TIMEOUT_S = 1.0


def redis_spec(binary: Path, directory: Path, port: int) -> ChildSpec:
    """A Redis-compatible server that keeps its files in `directory`, which is made where missing."""
    directory.mkdir(parents=True, exist_ok=True)
    log_file = directory / "redis.log"
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(directory),
        "logfile": str(log_file),
        "daemonize": "no",
        "databases": "1",
        "appendonly": "yes",
        "appendfsync": "always",
        # A rewrite of the log in the background must not make commits less durable meanwhile.
        "no-appendfsync-on-rewrite": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "notice",
    }
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return ChildSpec(
        name=binary.name, argv=(str(binary), *arguments), directory=directory, log_file=log_file, port=port,
        answers=redis_answers,
    )  # fmt: skip


async def redis_answers(port: int) -> bool:
    """Whether a server at this port answers PING; while it still loads its log it answers otherwise."""
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
