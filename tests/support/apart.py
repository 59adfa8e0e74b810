"""Every service as a process of its own, against a NATS and a Redis that others share."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fixtures.servers import Servers
from navarch_api.client import Client
from navarch_api.errors import ClientError
from navarch_api.types import Node
from support.fleet import BIN, environment


class Apart:
    """The services, each started and killed alone."""

    def __init__(self, directory: Path, servers: Servers, config: str) -> None:
        self.data_dir = directory / "data"
        self._directory, self._servers = directory, servers
        self._file = directory / "navarch.yaml"
        self._file.write_text(config)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.http = ""

    def start(self, service: str, copy: int = 0) -> None:
        self.spawn(service, copy)
        if service == "gateway":
            name = f"{service}-{copy}"
            self.http = self.until(lambda: self._address(name), "the gateway's address in its log")

    def spawn(self, service: str, copy: int = 0, *, newer: bool = False) -> None:
        """Starts it without waiting for anything; `newer` as the next release would be, see `support.newer`."""
        name = f"{service}-{copy}"
        program = [sys.executable, "-m", "support.newer", service] if newer else [str(BIN / f"navarch-{service}")]
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*program, "--config", str(self._file), "--data-dir", str(self.data_dir),
                 "--metrics-addr", "127.0.0.1:0"],
                stdout=log, stderr=log, cwd=self._directory,
                env={
                    **environment(), "NAVARCH_NATS_URL": self._servers.nats.url, "NAVARCH_REDIS_URL": self._servers.redis.url,
                    "PYTHONPATH": str(Path(__file__).parent.parent),
                },
            )  # fmt: skip

    def log(self, name: str) -> Path:
        """What `health-0` has said so far, in all its lives."""
        return self._directory / f"{name}.log"

    def _address(self, name: str) -> str:
        """Where the gateway listens: its log says."""
        text = self.log(name).read_text()
        assert self.processes[name].poll() is None, text
        return next(
            (
                word.strip('",')
                for line in text.splitlines()
                for word in line.split('"')
                if word.startswith("http://127")
            ),
            "",
        )

    def kill(self, service: str, copy: int = 0) -> None:
        process = self.processes.pop(f"{service}-{copy}")
        process.kill()
        process.wait(timeout=10)

    def stop_all(self) -> dict[str, int]:
        """SIGTERM to all; returns the exit statuses."""
        for process in self.processes.values():
            process.terminate()
        return {name: process.wait(timeout=15) for name, process in self.processes.items()}

    def clean_up(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait(timeout=10)
        for file in self.data_dir.glob("instances/*/pid"):
            try:
                os.kill(int(file.read_text()), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                continue

    def nodes(self) -> list[Node]:
        try:
            with Client(self.http, timeout_s=5.0) as client:
                return list(client.nodes().items)
        except ClientError:
            return []

    def active(self) -> set[str]:
        return {node.node for node in self.nodes() if node.status == "active"}

    def until_active(self, count: int, within_s: float = 40.0) -> set[str]:
        def settled() -> set[str]:
            nodes = self.nodes()
            active = {node.node for node in nodes if node.status == "active"}
            return active if len(active) == len(nodes) == count else set()

        found: set[str] = self.until(settled, f"{count} active nodes", within_s)
        return found

    def machines(self) -> int:
        """Simulated machines that run: processes, not records."""
        return sum(_lives(file) for file in self.data_dir.glob("instances/*/pid"))

    def until(self, ask: Callable[[], Any], what: str, within_s: float = 40.0) -> Any:
        deadline = time.monotonic() + within_s
        while not (answer := ask()):
            if time.monotonic() > deadline:
                logs = "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in self._directory.glob("*.log"))
                raise AssertionError(f"no {what} within {within_s:g} s; {self.nodes()}\n{logs}")
            time.sleep(0.1)
        return answer


def _lives(file: Path) -> bool:
    try:
        state = Path(f"/proc/{int(file.read_text())}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return False
    return state not in "ZX"


@contextmanager
def apart(directory: Path, servers: Servers, config: str) -> Iterator[Apart]:
    """Services that are gone afterwards, whatever happened."""
    services = Apart(directory, servers, config)
    try:
        yield services
    finally:
        services.clean_up()
