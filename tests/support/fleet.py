"""A whole fleet through the real command: `navarch up` in a directory of its own, asked by `navarch`, ended by signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")
BIN = Path(sys.executable).parent


class Fleet:
    """A data directory in which `navarch up` is started, stopped and killed, again and again."""

    def __init__(self, directory: Path, config: str = "") -> None:
        self.directory = directory
        self.data_dir = directory / "navarch-data"
        self.config = directory / "navarch.yaml"
        if config:
            self.config.write_text(config)
        self._process: subprocess.Popen[str] | None = None
        self._said = directory / "up.out"

    # --- its life ---

    def start(self, *extra: str, ready_within_s: float = 30.0) -> dict[str, Any]:
        """Starts it and returns `runtime.json` once that is there."""
        self.spawn(*extra)
        return self.until(self.runtime, within_s=ready_within_s, what="runtime.json")

    def spawn(self, *extra: str) -> subprocess.Popen[str]:
        """Starts it without waiting."""
        config = ("-c", str(self.config)) if self.config.exists() else ()
        command = [str(BIN / "navarch"), "up", *config, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *extra]
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                command, cwd=self.directory, stdout=said, stderr=subprocess.STDOUT, text=True, env=environment(),
                start_new_session=True,
            )  # fmt: skip
        return self._process

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "start it first"
        return self._process

    @property
    def said(self) -> str:
        """What it printed."""
        return self._said.read_text()

    def stop(self, number: signal.Signals = signal.SIGINT) -> float:
        """Stops it in good order, as Ctrl-C does; returns how long that took, in seconds."""
        began = time.monotonic()
        os.killpg(self.process.pid, number)
        assert self.process.wait(timeout=15) == 0, self.said
        return time.monotonic() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)

    def clean_up(self) -> None:
        """Ends whatever of it still runs, machines too."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        for process in self.processes():
            process.kill()

    # --- what is there ---

    def runtime(self) -> dict[str, Any] | None:
        try:
            runtime: dict[str, Any] = json.loads((self.data_dir / "runtime.json").read_text())
        except FileNotFoundError:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.said}{self.log()}"
            return None
        return runtime if runtime["pid"] == self.process.pid else None

    def log(self) -> str:
        file = self.data_dir / "control-plane.log"
        return file.read_text()[-4000:] if file.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """Everything that runs in or for the data directory: servers and machines."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), process.cwd(), process.environ().get("NAVARCH_AGENT_DATA_DIR", "")]
                lives = process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            if lives and process.pid != os.getpid() and any(str(self.data_dir) in word for word in words):
                found.append(process)
        return found

    def machines(self) -> dict[str, int]:
        """Pids of the local provider's machines by node."""
        return {
            file.parent.name: int(file.read_text())
            for file in self.data_dir.glob("instances/*/pid")
            if psutil.pid_exists(int(file.read_text()))
        }

    # --- asking ---

    def navarch(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs `navarch` against it."""
        runtime = self.runtime()
        assert runtime is not None, f"it is not ready:\n{self.said}{self.log()}"
        done = subprocess.run(
            [str(BIN / "navarch"), "-s", runtime["http"], *arguments], check=False, capture_output=True, text=True,
            timeout=60, cwd=self.directory, env=environment(),
        )  # fmt: skip
        assert not check or done.returncode == 0, f"navarch {' '.join(arguments)}: {done.stderr}\n{self.log()}"
        return done

    def nodes(self, *arguments: str) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = json.loads(self.navarch("list", "-o", "json", *arguments).stdout)
        return nodes

    def instances(self) -> list[dict[str, Any]]:
        instances: list[dict[str, Any]] = json.loads(self.navarch("instances", "-o", "json").stdout)
        return instances

    def active(self) -> set[str]:
        return {node["node"] for node in self.nodes() if node["status"] == "active"}

    def until_active(self, count: int, within_s: float = 30.0) -> set[str]:
        """Waits for exactly so many active nodes and nothing else, and returns them."""

        def settled() -> set[str]:
            nodes = self.nodes()
            active = {node["node"] for node in nodes if node["status"] == "active"}
            return active if len(active) == len(nodes) == count else set()

        return self.until(settled, within_s=within_s, what=f"{count} active nodes")

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """What happened so far, oldest first."""
        arguments = ("--type", kind) if kind else ()
        lines = self.navarch("events", "-o", "json", "--since", "1h", *arguments).stdout
        found: list[dict[str, Any]] = json.loads(lines)
        return sorted(found, key=lambda event: int(event["rev"]))

    def until(self, what_is: Callable[[], T | None], *, within_s: float = 30.0, what: str = "") -> T:
        """Asks again and again until the answer is neither None nor empty."""
        deadline = time.monotonic() + within_s
        while True:
            answer = what_is()
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what or what_is} within {within_s:g} s\n{self.said}{self.log()}")
            time.sleep(0.05)


def environment() -> dict[str, str]:
    """Ours, without what would point the command at somebody else's servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NAVARCH_")}


@contextmanager
def fleet_in(directory: Path, config: str = "") -> Iterator[Fleet]:
    """A fleet that is gone afterwards, whatever happened."""
    fleet = Fleet(directory, config)
    try:
        yield fleet
    finally:
        fleet.clean_up()
