"""A control plane to measure: the real `control-plane` command on free ports, in a directory of its own."""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from navarch_api.client import AsyncClient
from navarch_api.types import Node

BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Plane:
    """A running control plane."""

    pid: int
    data_dir: Path
    http: str
    nats: str
    redis: str
    client: AsyncClient

    async def nodes(self, pool: str = "training") -> list[Node]:
        return list((await self.client.nodes(pool=pool)).items)

    async def until(self, condition: Callable[[list[Node]], bool], what: str, timeout_s: float = 120.0) -> list[Node]:
        """Waits until the pool's nodes are as wanted. Raises `TimeoutError`, saying what was waited for."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    nodes = await self.nodes()
                    if condition(nodes):
                        return nodes
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise TimeoutError(f"waited {timeout_s:g} s in vain: {what}; see {self.data_dir}") from None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@asynccontextmanager
async def plane(config: str, *, directory: str | None = None, ready_s: float = 60.0) -> AsyncIterator[Plane]:
    """Runs `control-plane` with this configuration; stops it, and its machines, at the end. What it keeps is in
    `directory`, or in one that goes with it."""
    with nullcontext(directory) if directory else tempfile.TemporaryDirectory(prefix="navarch-bench-") as place:
        data_dir, file = Path(place) / "data", Path(place) / "navarch.yaml"
        file.write_text(config)
        with (Path(place) / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                str(BIN / "control-plane"), "--config", str(file), "--data-dir", str(data_dir), "--log-level", "warning",
                "--http", f"127.0.0.1:{free_port()}", "--grpc", f"127.0.0.1:{free_port()}",
                stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PATH": f"{BIN}:{os.environ.get('PATH', '')}"},
            )  # fmt: skip
            try:
                runtime = await _ready(process, data_dir / "runtime.json", Path(place) / "log", ready_s)
                async with AsyncClient(runtime["http"], actor="operator:bench") as client:
                    yield Plane(process.pid, data_dir, runtime["http"], runtime["nats"], runtime["redis"], client)
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                    await process.wait()


async def _ready(process: asyncio.subprocess.Process, file: Path, log: Path, ready_s: float) -> dict[str, str]:
    try:
        async with asyncio.timeout(ready_s):
            while not file.exists():
                if process.returncode is not None:
                    raise RuntimeError(f"control-plane ended with {process.returncode}: {log.read_text()[-2000:]}")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise TimeoutError(f"control-plane was not ready after {ready_s:g} s: {log.read_text()[-2000:]}") from None
    runtime: dict[str, str] = json.loads(file.read_text())
    return runtime
