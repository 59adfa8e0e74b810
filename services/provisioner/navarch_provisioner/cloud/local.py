"""Machines that are processes of this one: each a real `navarch-agent` with a simulated GPU driver.

A machine lives in `DATA_DIR/instances/<node>/`: `pid`, `kmsg` (append a line, and its kernel has printed it),
`agent.log`, `agent/` (its agent's spool), `machine.json`. It outlives whoever started it. A machine whose process has
ended by itself is gone, as a cloud's machine would be whose host burnt down.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import structlog

from navarch_common.clock import Clock
from navarch_common.config.providers import LocalProvider, ProviderConfig
from navarch_common.ids import check_id
from navarch_common.model.node import LaunchRequest, ProviderState
from navarch_provisioner.cloud.base import (
    CloudProvider,
    InvalidLaunch,
    Machine,
    NotFound,
    ProviderContext,
    Tags,
    UnknownOutcome,
    Upstream,
)
from navarch_provisioner.cloud.local_boot import ALREADY_RUNS
from navarch_provisioner.cloud.local_files import Home, Homes, MachineFile, Power, remove
from navarch_provisioner.cloud.processes import command_of, inherited_environment, start_apart

log = structlog.get_logger("navarch.provider.local")

_BOOT = Path(__file__).with_name("local_boot.py")
_AGENT = ("navarch-agent", "navarch_agent.main")
_POLL_S = 0.005
_BOOT_TIMEOUT_S = 15.0
_LOCK_TIMEOUT_S = 15.0
GRACE_S = 3.5
"""From SIGTERM to SIGKILL: an agent says goodbye in three seconds."""


class _Held(NamedTuple):
    """A machine, and the right to change it."""

    home: Home
    machine: MachineFile
    lock: int


def make(name: str, config: ProviderConfig, context: ProviderContext) -> CloudProvider:
    """The adapter for providers of type `local`."""
    assert isinstance(config, LocalProvider), f"provider {name} is not local"
    return LocalCloud(name, config, context.data_dir / "instances", context.clock)


class LocalCloud:
    """A `CloudProvider` whose machines are processes. Any number of copies may share a directory."""

    def __init__(self, name: str, config: LocalProvider, root: Path, clock: Clock, *, grace_s: float = GRACE_S) -> None:
        self._name = name
        self._gpu_count = config.gpu_count
        self._root = root.resolve()
        self._homes = Homes(self._root)
        self._clock = clock
        self._grace_s = grace_s
        self._children: list[subprocess.Popen[bytes]] = []
        self._boots: set[asyncio.Task[int | None]] = set()
        """Under way, whether or not somebody still waits for them."""
        self._shut = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def hosted_here(self) -> bool:
        return True

    async def launch(self, request: LaunchRequest) -> Machine:
        check_id(request.node, "node")
        self._reap()
        if (machine := await self._launched(request)) is not None:
            return machine
        await self._make_room(request)
        draft = MachineFile(
            instance_id=f"{request.node}.{request.generation}",
            request=request,
            gpu_count=self._gpu_count,
            launched_at=self._clock.now(),
        )
        try:
            home = await asyncio.to_thread(self._homes.draft, draft)
        except OSError as error:
            raise Upstream(f"cannot make a machine in {self._root}: {error.strerror}") from error
        status = await self._boot(home, draft, self._root / request.node)
        if status is not None:
            await asyncio.to_thread(remove, home.path)
        if (machine := await self._launched(request)) is not None:
            return machine
        await self._make_room(request)  # Where the name was taken, it says by whom.
        raise Upstream(f"node {request.node} did not boot: its starter ended with status {status}")

    async def find(self, token: str) -> Machine | None:
        self._reap()
        found = await asyncio.to_thread(self._homes.by_token, token)
        return None if found is None else _told(*found)

    async def list_machines(self, cluster: str) -> Sequence[Machine]:
        self._reap()
        return await asyncio.to_thread(self._list, cluster)

    async def get(self, instance_id: str) -> Machine | None:
        self._reap()
        found = await asyncio.to_thread(self._homes.by_id, instance_id)
        return None if found is None else _told(*found)

    async def terminate(self, instance_id: str, tags: Tags) -> None:
        async with self._held(instance_id, tags) as held:
            if held is not None and held.machine.power != "ended":
                await self._end(held, "ending")
                await self._write(held, "ended")
        await asyncio.to_thread(self._homes.prune, self._clock.now())

    async def power_off(self, instance_id: str, tags: Tags) -> None:
        async with self._held(instance_id, tags) as found:
            held = self._existing(instance_id, found)
            if held.machine.power != "off":
                await self._end(held, "stopping")
                await self._write(held, "off")

    async def power_on(self, instance_id: str, tags: Tags) -> None:
        async with self._held(instance_id, tags) as found:
            held = self._existing(instance_id, found)
            if held.machine.power == "on":
                return
            if held.machine.power == "stopping":  # Whoever began that was ended over it.
                await self._end(held, "stopping")
            status = await self._boot(held.home, held.machine, held.home.path, lock=held.lock)
            if status not in {None, ALREADY_RUNS}:
                raise Upstream(f"node {held.machine.request.node} did not boot: its starter ended with status {status}")

    async def shut_down(self, cluster: str) -> None:
        self._shut = True
        while self._boots:
            await asyncio.wait(self._boots)
        while await asyncio.to_thread(self._homes.occupied_drafts):  # Begun by a process that was killed over it.
            await asyncio.sleep(_POLL_S)
        mine = [
            machine
            for _, machine in await asyncio.to_thread(lambda: list(self._homes.all()))
            if (machine.request.cluster, machine.request.provider) == (cluster, self._name)
        ]
        done = await asyncio.gather(*map(self._shut_one, mine), return_exceptions=True)
        if errors := [error for error in done if isinstance(error, BaseException)]:
            raise errors[0]

    async def close(self) -> None:
        """Machines live on."""
        self._reap()

    def _list(self, cluster: str) -> list[Machine]:
        machines = [
            _told(home, machine)
            for home, machine in self._homes.all()
            if machine.request.cluster == cluster and machine.request.provider == self._name
        ]
        return [machine for machine in machines if machine.state is not ProviderState.GONE]

    async def _launched(self, request: LaunchRequest) -> Machine | None:
        """The machine that this launch made before. Raises `InvalidLaunch` where its token made another."""
        found = await asyncio.to_thread(self._homes.by_token, request.token)
        if found is None:
            return None
        if found[1].request != request:
            raise InvalidLaunch(
                f"token {request.token} launched {found[1].instance_id} already, with other parameters: "
                f"{_differences(found[1].request, request)}"
            )
        return _told(*found)

    async def _make_room(self, request: LaunchRequest) -> None:
        """A node has one machine at a time, and one in each generation. Raises `InvalidLaunch`."""
        found = await asyncio.to_thread(self._homes.by_node, request.node)
        if found is None:
            return
        home, machine = found
        if machine.request.generation >= request.generation or _state(home, machine) is not ProviderState.GONE:
            raise InvalidLaunch(
                f"node {request.node} has a machine already: {machine.instance_id}, {_state(home, machine).value}, "
                f"launched with token {machine.request.token}"
            )
        await asyncio.to_thread(self._homes.make_room, home, machine)

    @asynccontextmanager
    async def _held(self, instance_id: str, tags: Tags) -> AsyncIterator[_Held | None]:
        """The right to change a machine; None where there is none. Raises `NotFound` where it carries other tags."""
        self._reap()
        found = await asyncio.to_thread(self._homes.by_id, instance_id)
        if found is None:
            yield None
            return
        home, machine = found
        if not tags.match(_tags(machine.request)):
            raise NotFound(f"machine {instance_id} carries other tags: {_tags(machine.request)}")
        lock = await self._lock(home)
        try:
            fresh = await asyncio.to_thread(self._homes.by_id, instance_id)
            yield None if fresh is None else _Held(home, fresh[1], lock)
        finally:
            os.close(lock)

    async def _shut_one(self, machine: MachineFile) -> None:
        """Off, or ended where that was begun. One that is gone already stays so, for its node to be judged by."""
        if machine.power in {"off", "ended"}:
            return
        async with self._held(machine.instance_id, _tags(machine.request)) as held:
            if held is None or (held.machine.power == "on" and held.home.process(held.machine) is None):
                return
            if held.machine.power == "ending":
                await self._end(held, "ending")
                await self._write(held, "ended")
            elif held.machine.power in {"on", "stopping"}:
                await self._end(held, "stopping")
                await self._write(held, "off")

    def _existing(self, instance_id: str, held: _Held | None) -> _Held:
        if held is None or _state(held.home, held.machine) is ProviderState.GONE or held.machine.power == "ending":
            raise NotFound(f"there is no machine {instance_id} any more")
        return held

    async def _lock(self, home: Home) -> int:
        try:
            async with asyncio.timeout(_LOCK_TIMEOUT_S):
                while (descriptor := home.try_lock()) is None:
                    await asyncio.sleep(_POLL_S)
                return descriptor
        except TimeoutError:
            raise Upstream(f"{home.path} has been in another's hands for {_LOCK_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise Upstream(f"cannot lock {home.path}: {error.strerror}") from error

    async def _write(self, held: _Held, power: Power) -> None:
        ended_at = self._clock.now() if power == "ended" else None
        changed = msgspec.structs.replace(held.machine, power=power, ended_at=ended_at)
        try:
            await asyncio.to_thread(held.home.write, changed)
        except OSError as error:
            raise Upstream(f"cannot write {held.home.path}: {error.strerror}") from error

    async def _end(self, held: _Held, intention: Power) -> None:
        """Ends the machine's process: first asked, then made to. The intention is on disk before."""
        await self._write(held, intention)
        process = held.home.process(held.machine)
        with contextlib.suppress(psutil.NoSuchProcess):
            if process is not None:
                process.terminate()
        if not await self._gone_within(held, self._grace_s):
            log.warning("machine does not shut down, its power is cut", node=held.machine.request.node)
            with contextlib.suppress(psutil.NoSuchProcess):
                if process is not None:
                    process.kill()
            if not await self._gone_within(held, self._grace_s):
                raise UnknownOutcome(
                    f"process {held.machine.pid} of {held.machine.instance_id} survives SIGKILL so far"
                )
        (held.home.path / "pid").unlink(missing_ok=True)  # Nobody shall signal who gets that number next.

    async def _gone_within(self, held: _Held, patience_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while held.home.process(held.machine) is not None:
                    self._reap()
                    await asyncio.sleep(_POLL_S)
                return True
        return False

    async def _boot(self, draft: Home, machine: MachineFile, home: Path, *, lock: int = -1) -> int | None:
        """Starts a process that becomes the machine. Returns None once it has, else the status with which it ended.

        A boot is not cut off with whoever asked for it: `shut_down` must know of every process that may become a machine.
        """
        if self._shut:
            raise Upstream(f"{machine.instance_id} is not started: this computer's machines are being shut down")
        kept_lock = os.dup(lock) if lock >= 0 else -1
        boot = asyncio.create_task(
            self._boot_through(draft, machine, home, kept_lock), name=f"boot/{machine.instance_id}"
        )
        self._boots.add(boot)
        boot.add_done_callback(self._booted)
        return await asyncio.shield(boot)

    def _booted(self, boot: asyncio.Task[int | None]) -> None:
        self._boots.discard(boot)
        if not boot.cancelled() and (error := boot.exception()) is not None:
            log.info("machine did not boot", provider=self._name, error=str(error))

    async def _boot_through(self, draft: Home, machine: MachineFile, home: Path, lock: int) -> int | None:
        """`_boot`, to its end. The lock is handed to it."""
        try:
            return await self._start(draft, machine, home, lock)
        finally:
            if lock >= 0:
                os.close(lock)

    async def _start(self, draft: Home, machine: MachineFile, home: Path, lock: int) -> int | None:
        boot_id = uuid.uuid4().hex
        arguments = [
            sys.executable,
            "-I",
            str(_BOOT),
            str(draft.path),
            str(home),
            boot_id,
            str(lock),
            *command_of(*_AGENT),
        ]
        try:
            child = await asyncio.to_thread(
                start_apart, arguments, _environment(machine, home, boot_id), draft.path / "agent.log",
                keep_open=() if lock < 0 else (lock,),
            )  # fmt: skip
        except OSError as error:
            raise Upstream(f"cannot start a process for {machine.instance_id}: {error}") from error
        self._children.append(child)
        try:
            async with asyncio.timeout(_BOOT_TIMEOUT_S):
                while child.poll() is None:
                    booted = await asyncio.to_thread(self._homes.at, home)
                    if booted is not None and booted[1].boot_id == boot_id:
                        return None
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise UnknownOutcome(
                f"{machine.instance_id} was started {_BOOT_TIMEOUT_S:g} s ago, and is not there yet"
            ) from None
        return child.returncode

    def _reap(self) -> None:
        """Takes leave of ended machines that were started by this process, so that no zombie stays."""
        self._children = [child for child in self._children if child.poll() is None]


def _told(home: Home, machine: MachineFile) -> Machine:
    request = machine.request
    return Machine(
        instance_id=machine.instance_id,
        provider_id=f"navarch://{request.cluster}/{request.node}",
        tags=_tags(request),
        state=_state(home, machine),
        instance_type=request.instance_type,
        region=request.region,
        zone=request.zone,
        address="127.0.0.1",
        price_per_hour=0.0,
        launched_at=machine.launched_at,
    )


def _tags(request: LaunchRequest) -> Tags:
    return Tags(
        cluster=request.cluster,
        installation=request.installation,
        pool=request.pool,
        node=request.node,
        generation=request.generation,
        intent=request.token,
    )


def _state(home: Home, machine: MachineFile) -> ProviderState:
    if machine.power in {"off", "stopping"}:
        return ProviderState.STOPPING  # Off, but to be had back: not gone.
    if machine.power == "ended" or home.process(machine) is None:
        return ProviderState.GONE
    return ProviderState.RUNNING if machine.power == "on" else ProviderState.STOPPING


def _differences(before: LaunchRequest, now: LaunchRequest) -> str:
    fields = [field for field in LaunchRequest.__struct_fields__ if getattr(before, field) != getattr(now, field)]
    return ", ".join(f"{field} was {getattr(before, field)!r:.60}, is {getattr(now, field)!r:.60}" for field in fields)


def _environment(machine: MachineFile, home: Path, boot_id: str) -> dict[str, str]:
    request = machine.request
    return {
        **inherited_environment(),
        **request.agent_env,
        "NAVARCH_AGENT_NODE_ID": request.node,
        "NAVARCH_AGENT_POOL": request.pool,
        "NAVARCH_AGENT_GENERATION": str(request.generation),
        "NAVARCH_AGENT_DRIVER": "fake",
        "NAVARCH_AGENT_GPU_COUNT": str(machine.gpu_count),
        "NAVARCH_AGENT_BOOT_ID": boot_id,
        "NAVARCH_AGENT_KMSG": str(home / "kmsg"),
        "NAVARCH_AGENT_DATA_DIR": str(home / "agent"),
    }
