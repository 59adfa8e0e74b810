"""Where machines come from in tests of the whole: a fake cloud in its own process, or processes of this machine. Each tells
what it made without asking Navarch, and breaks a machine's hardware.
"""

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import httpx
import msgspec
from msgspec import structs

from navarch_common.model.node import LaunchRequest, NodeRecord
from navarch_provisioner.cloud.local_files import MachineFile
from navarch_provisioner.cloud.processes import process_of
from navarch_sim.fake_cloud.world import FakeMachine
from support.fleet import BIN, environment


class Made(Protocol):
    """A machine that was made, whether it still lives or not."""

    @property
    def request(self) -> LaunchRequest: ...
    @property
    def power(self) -> Any:
        """`ended` where nothing of it is left."""
        ...

    @property
    def launched_at(self) -> datetime: ...


class Machines(Protocol):
    """The world's machines, from behind Navarch's back."""

    provider: str
    """The configuration's section for it."""

    def made(self) -> list[Made]:
        """Every machine that was ever made."""
        ...

    async def end(self, node: NodeRecord) -> bool:
        """Its host burns down. Whether that is certain."""
        ...

    async def weather(self, **rates: float) -> None:
        """How many calls fail, and how many replies are lost."""
        ...

    def stop(self) -> int: ...


class FakeCloud:
    """A `navarch-fake-cloud` of our own. It is never killed: clouds are not ours."""

    def __init__(self, directory: Path, *options: str, seed: int) -> None:
        self.directory = directory
        self.directory.mkdir()
        self.log = directory / "cloud.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "navarch-fake-cloud"), "--data-dir", str(directory), "--seed", str(seed), *options],
                stdout=log, stderr=log, env=environment(),
            )  # fmt: skip
        self.url = self._url()
        self.provider = f"{{type: fake, url: '{self.url}'}}"

    def _url(self) -> str:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with suppress(OSError, ValueError):
                return str(json.loads((self.directory / "runtime.json").read_text())["url"])
            time.sleep(0.05)
        raise AssertionError(f"the fake cloud did not say where it listens: {self.log.read_text()}")

    def made(self) -> list[Made]:
        """What the cloud wrote down, without asking it."""
        with sqlite3.connect(f"file:{self.directory / 'cloud.db'}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT body FROM machines ORDER BY rowid").fetchall()
        database.close()
        return [msgspec.json.decode(body, type=FakeMachine) for (body,) in rows]

    async def end(self, node: NodeRecord) -> bool:
        assert node.instance is not None
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as http:
            reply = await http.post(f"{self.url}/v1/machines/{node.instance.instance_id}/fail")
        return reply.status_code == 200

    async def weather(self, **rates: float) -> None:
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as http:
            (await http.patch(f"{self.url}/v1/weather", json=rates)).raise_for_status()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=20)

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10)


@contextmanager
def fake_cloud_in(directory: Path, *options: str, seed: int) -> Iterator[FakeCloud]:
    cloud = FakeCloud(directory, *options, seed=seed)
    try:
        yield cloud
    finally:
        cloud.clean_up()


class LocalMachines:
    """The machines that the `local` provider makes in a data directory: one process each."""

    provider = "{type: local}"

    def __init__(self, data_dir: Path) -> None:
        self._instances = data_dir / "instances"

    def made(self) -> list[Made]:
        files = sorted(self._instances.glob("*/machine.json"))
        return [_as_it_stands(msgspec.json.decode(file.read_bytes(), type=MachineFile)) for file in files]

    async def end(self, node: NodeRecord) -> bool:
        """kill -9: the process is the machine."""
        try:
            os.kill(int((self._instances / node.node / "pid").read_text()), signal.SIGKILL)
        except (OSError, ValueError):
            return False
        return True

    async def weather(self, **rates: float) -> None:
        """This cloud has none."""

    def stop(self) -> int:
        return 0


def _as_it_stands(machine: MachineFile) -> MachineFile:
    """What is written down of a machine that was killed is what it was before."""
    dead = machine.power == "on" and process_of(machine.pid, machine.started_at) is None
    return structs.replace(machine, power="ended") if dead else machine
