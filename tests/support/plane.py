"""A fleet under attack: `navarch up`, with a subscriber from outside that hears every event, and hands to break it with."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import nats
import psutil
import pytest
from nats.aio.client import Client as NatsClient

from navarch_api.client import Client
from navarch_api.errors import ClientError
from navarch_api.types import Explanation, Node, NodeDetail, Plan
from support.fleet import Fleet, fleet_in

FALLEN_OFF = "79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
GPU_3 = "0000:3b:00"


def xid(said: str, pci: str = GPU_3) -> str:
    """The line that the driver prints for an Xid."""
    return f"NVRM: Xid (PCI:{pci}): {said}"


@dataclass(frozen=True, slots=True)
class Heard:
    """An event as it arrived."""

    subject: str
    event: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.event.get("type", ""))

    @property
    def node(self) -> str:
        return str(self.event.get("node", ""))


class Outsider:
    """A NATS client that knows nothing of Navarch but a subject. It listens in a thread of its own."""

    def __init__(self, url: str, subject: str = "navarch.events.>") -> None:
        self.heard: list[Heard] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="outsider", daemon=True)
        self._thread.start()
        self._client = self._run(self._listen(url, subject)).result(timeout=15)

    def publish(self, subject: str, payload: bytes) -> None:
        async def send() -> None:
            await self._client.publish(subject, payload)
            await self._client.flush()

        self._run(send()).result(timeout=10)

    def close(self) -> None:
        with suppress(Exception):  # its server may be gone by now
            self._run(self._client.close()).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    async def _listen(self, url: str, subject: str) -> NatsClient:
        async def hear(message: Any) -> None:
            self.heard.append(Heard(message.subject, json.loads(message.data)))

        async def ignore(_: Exception) -> None:
            """Reconnecting is its business, and the reason for which it is told is not ours."""

        client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=ignore)
        await client.subscribe(subject, cb=hear)
        await client.flush()
        return client

    def _run(self, work: Any) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)


class Plane:
    """A running fleet, seen from outside. Names of event kinds are without their version: `node.failed`."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.outsider: Outsider
        self._client: Client
        self._connect()

    def _connect(self) -> None:
        runtime = self.fleet.until(self.fleet.runtime, what="runtime.json")
        self._client = Client(runtime["http"], actor="operator:test", timeout_s=10)
        self.outsider = Outsider(runtime["nats"])

    def close(self) -> None:
        self._client.close()
        self.outsider.close()

    # --- what a person asks ---

    def nodes(self, pool: str = "training") -> list[Node]:
        return list(self._client.nodes(pool=pool).items)

    def node(self, node: str) -> NodeDetail:
        return self._client.node(node)

    def explain(self, node: str) -> Explanation:
        return self._client.explain_node(node)

    def plan(self, pool: str = "training") -> Plan:
        return self._client.plan(pool)

    def navarch(self, *arguments: str) -> str:
        """What the command prints."""
        return self.fleet.navarch(*arguments).stdout

    def active(self, pool: str = "training") -> set[str]:
        return {one.node for one in self.nodes(pool) if one.status == "active"}

    def settled(self, count: int = 3, pool: str = "training", within_s: float = 30.0) -> set[str]:
        """Waits for exactly so many nodes, all active and healthy, and returns them."""

        def names() -> set[str]:
            nodes = self.nodes(pool)
            well = {one.node for one in nodes if one.status == "active" and one.health == "healthy"}
            return well if len(well) == len(nodes) == count else set()

        found: set[str] = self.until(names, f"{count} healthy nodes in {pool}", within_s)
        return found

    def healed(self, *lost: str, count: int = 3, pool: str = "training", within_s: float = 30.0) -> set[str]:
        """Waits until these nodes are gone and the pool has its healthy nodes again, and returns those. (Lists may be
        a second old.)"""
        for node in lost:
            self.hears("node.terminated", node, within_s)

        def names() -> set[str]:
            nodes = self.settled(count, pool, within_s)
            return set() if nodes & set(lost) else nodes

        found: set[str] = self.until(names, f"{pool} without {', '.join(lost)}", within_s)
        return found

    def until(self, ask: Callable[[], Any], what: str, within_s: float = 20.0) -> Any:
        """Asks until the answer is neither None nor empty; an unreachable server is asked again."""
        deadline = time.monotonic() + within_s
        while True:
            answer: Any = None
            with suppress(OSError, ClientError):
                answer = ask()
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {within_s:g} s\n{self.story()}")
            time.sleep(0.05)

    # --- what the outsider heard ---

    def heard(self, kind: str = "", node: str = "") -> list[Heard]:
        """First copies, in order of arrival."""
        seen: set[str] = set()
        found = []
        for one in list(self.outsider.heard):
            if one.event["id"] not in seen and kind in ("", one.kind.removesuffix(".v1")) and node in ("", one.node):
                seen.add(one.event["id"])
                found.append(one)
        return found

    def hears(self, kind: str, node: str = "", within_s: float = 20.0) -> Heard:
        """Waits for the first event of a kind."""
        found: list[Heard] = self.until(lambda: self.heard(kind, node), f"{kind} {node}", within_s)
        return found[0]

    def forget(self) -> None:
        """What was heard so far belongs to an earlier test."""
        self.outsider.heard.clear()

    def order(self, *wanted: tuple[str, str]) -> list[int]:
        """The places at which these kinds of these nodes were first heard: ascending where they came in this order."""
        heard = [(one.kind.removesuffix(".v1"), one.node) for one in self.heard()]
        return [heard.index(one) for one in wanted]

    def story(self) -> str:
        return "\n".join(
            f"{one.event['at']} {one.kind:28} {one.node:20} {one.event.get('reason', '')}" for one in self.heard()
        )

    @contextmanager
    def listening(self, subject: str) -> Iterator[list[Heard]]:
        """What passes on another subject while it lasts."""
        runtime = self.fleet.runtime()
        assert runtime is not None
        other = Outsider(runtime["nats"], subject)
        try:
            yield other.heard
        finally:
            other.close()

    # --- hands to break it with ---

    def prints(self, node: str, *lines: str) -> None:
        """The kernel of this machine prints these lines."""
        with (self.instance(node) / "kmsg").open("a") as kmsg:
            kmsg.write("".join(f"{line}\n" for line in lines))

    def instance(self, node: str) -> Path:
        return self.fleet.data_dir / "instances" / node

    def pid(self, node: str) -> int:
        """The process that is this machine."""
        return int((self.instance(node) / "pid").read_text())

    def signal(self, node: str, number: signal.Signals) -> int:
        pid = self.pid(node)
        os.kill(pid, number)
        return pid

    def inject(self, node: str, **what: object) -> None:
        """A fault, or work, on a simulated machine."""
        self._client.inject(node, what)

    def resume(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def kill_servers(self, *names: str) -> None:
        """kill -9 of embedded servers."""
        for process in [one for one in self.fleet.processes() if one.name() in names]:
            process.kill()

    def kill(self) -> None:
        """kill -9 of the control plane. The machines live on."""
        self.close()
        self.fleet.kill()

    def start(self) -> None:
        """Starts it again on the same directory. What the outsider heard before is kept."""
        heard = self.outsider.heard
        self.fleet.start()
        self._connect()
        self.outsider.heard[:0] = heard

    def kill_and_restart(self) -> None:
        self.kill()
        self.start()

    def living(self, pool: str = "training") -> set[str]:
        """Machines of a pool whose process runs, whether or not Navarch knows of them."""
        return {node for node in self.machines() if node.startswith(f"{pool}-")}

    def machines(self) -> list[str]:
        """The node of every machine that runs, once for each: two of one name would be a double machine."""
        found = []
        for process in self.fleet.processes():
            with suppress(psutil.Error, ProcessLookupError):
                node = process.environ().get("NAVARCH_AGENT_NODE_ID", "")
                if node and os.getsid(process.pid) == process.pid:
                    found.append(node)
        return found


class PlaneKeeper:
    """One fleet for many tests, as long as each leaves it healthy; another one after a test that did not."""

    def __init__(self, directories: pytest.TempPathFactory, config: str, nodes: int = 3) -> None:
        self._directories, self._config, self._nodes = directories, config, nodes
        self._stack = ExitStack()
        self._plane: Plane | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def plane(self) -> Plane:
        """The fleet, healthy, with nothing heard yet."""
        if self._plane is not None:
            try:
                self._plane.settled(self._nodes, within_s=10)
            except (AssertionError, OSError, ClientError):
                self._stack.close()
                self._plane = None
        if self._plane is None:
            directory = self._directories.mktemp("plane")
            self._plane = self._stack.enter_context(plane_in(directory, self._config, self._nodes))
        self._plane.forget()
        return self._plane


@contextmanager
def plane_in(directory: Path, config: str, nodes: int = 3) -> Iterator[Plane]:
    """A fleet whose pool `training` has its nodes; gone afterwards, whatever happened."""
    with fleet_in(directory, config) as fleet:
        fleet.start()
        plane = Plane(fleet)
        try:
            plane.settled(nodes)
            yield plane
        finally:
            plane.close()
