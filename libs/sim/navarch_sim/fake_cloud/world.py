"""The rules of a cloud: what a token stands for, what a machine is doing, how much room there is.

Every method is one step: it is carried out whole or raises a `CloudError` and changes nothing. The same world serves the
process, which keeps it on disk, and the simulator, which does not.
"""

import hashlib
import random
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from navarch_common.clock import Clock
from navarch_common.model.node import LaunchRequest, ProviderState
from navarch_provisioner.cloud.base import InvalidLaunch, Machine, NoCapacity, NotFound, Tags
from navarch_provisioner.cloud.fake_wire import Order, Weather

FORGET_AFTER = timedelta(days=1)
"""How long an ended machine, and what its token meant, is remembered."""

Power = Literal["on", "off", "ended"]


class FakeMachine(msgspec.Struct, frozen=True, kw_only=True):
    """One machine, as it is kept."""

    instance_id: str
    request: LaunchRequest
    gpu_count: int
    launched_at: datetime
    power: Power = "on"
    boots: int = 1
    boot_id: str
    booted_at: datetime
    """When its agent begins to speak; until then it is pending."""
    ended_at: datetime | None = None
    graceful: bool = True
    """How its latest boot ends, or ended: switched off in good order, or its power cut."""

    @property
    def tags(self) -> Tags:
        request = self.request
        return Tags(
            cluster=request.cluster,
            installation=request.installation,
            pool=request.pool,
            node=request.node,
            generation=request.generation,
            intent=request.token,
        )


class World:
    """All machines of one cloud. `changed` hears of every change before the step returns."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        changed: Callable[[FakeMachine], None],
        machines: Iterable[FakeMachine] = (),
        weather: Weather | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._changed = changed
        self._machines: dict[str, FakeMachine] = {}
        self._by_token: dict[str, str] = {}
        self._existing = 0
        self.weather = weather or Weather()
        for machine in machines:
            self._put(machine)

    @property
    def existing(self) -> int:
        """Machines that take up room: on or off."""
        return self._existing

    @property
    def on(self) -> int:
        return sum(machine.power == "on" for machine in self._machines.values())

    def launch(self, order: Order) -> Machine:
        """Makes the machine, or returns the one that this token made."""
        request = order.request
        if (known := self._by_token.get(request.token)) is not None:
            made = self._machines[known]
            if made.request != request:
                raise InvalidLaunch(f"token {request.token} made {known} already, with other parameters")
            return self._told(made)
        room = self.weather.capacity
        if room is not None and self._existing >= room:
            raise NoCapacity(f"no room: all {room} machines of this cloud are taken", scope="region")
        machine = FakeMachine(
            instance_id=f"fake-{hashlib.sha256(request.token.encode()).hexdigest()[:16]}",
            request=request,
            gpu_count=order.gpu_count,
            launched_at=self._clock.now(),
            boot_id=self._new_boot_id(),
            booted_at=self._boots_until(),
        )
        if machine.instance_id in self._machines:
            raise InvalidLaunch(f"token {request.token} is too much like another one")
        return self._change(machine)

    def by_token(self, token: str) -> Machine:
        """Raises `NotFound`."""
        if (known := self._by_token.get(token)) is None:
            raise NotFound(f"token {token} made no machine")
        return self._told(self._machines[known])

    def get(self, instance_id: str) -> Machine:
        """Raises `NotFound`."""
        return self._told(self._known(instance_id))

    def machines(self, cluster: str, provider: str = "") -> list[Machine]:
        """All that exist of a cluster; with `provider`, those that this entry of its configuration launched."""
        return [
            self._told(machine)
            for machine in self._machines.values()
            if machine.power != "ended"
            and machine.request.cluster == cluster
            and provider in {"", machine.request.provider}
        ]

    def terminate(self, instance_id: str, tags: Tags) -> None:
        machine = self._machines.get(instance_id)
        if machine is None:
            return
        if not tags.match(machine.tags):
            raise NotFound(f"machine {instance_id} carries other tags")
        self._end(machine, graceful=True)

    def power_off(self, instance_id: str, tags: Tags) -> None:
        machine = self._ours(instance_id, tags)
        if machine.power == "on":
            self._change(msgspec.structs.replace(machine, power="off", graceful=True))

    def shut_down(self, cluster: str, provider: str) -> list[str]:
        """Powers off all machines of one entry of a cluster's configuration; returns which were on."""
        on = [
            machine
            for machine in self._machines.values()
            if machine.power == "on" and (machine.request.cluster, machine.request.provider) == (cluster, provider)
        ]
        for machine in on:
            self._change(msgspec.structs.replace(machine, power="off", graceful=True))
        return [machine.instance_id for machine in on]

    def power_on(self, instance_id: str, tags: Tags) -> None:
        machine = self._ours(instance_id, tags)
        if machine.power == "off":
            self._boot(machine)

    def fail(self, instance_id: str) -> None:
        """The machine's host burns down: it is gone, and nobody said goodbye."""
        self._end(self._known(instance_id), graceful=False)

    def stopped(self, instance_id: str, boot_id: str) -> None:
        """The machine shut itself down: its agent was told to stop."""
        machine = self._machines.get(instance_id)
        if machine is not None and machine.power == "on" and machine.boot_id == boot_id:
            self._end(machine, graceful=True)

    def crashed(self, instance_id: str, boot_id: str) -> None:
        """The machine went down by an error of ours, and boots again."""
        machine = self._machines.get(instance_id)
        if machine is not None and machine.power == "on" and machine.boot_id == boot_id:
            self._boot(machine)

    def everything_boots(self) -> None:
        """The whole cloud was down: what was on boots again, as after a power cut."""
        for machine in list(self._machines.values()):
            if machine.power == "on":
                self._boot(machine)

    def forget(self) -> list[str]:
        """Forgets what ended long ago, and tells which."""
        before = self._clock.now() - FORGET_AFTER
        old = [m for m in self._machines.values() if m.ended_at is not None and m.ended_at < before]
        for machine in old:
            del self._machines[machine.instance_id], self._by_token[machine.request.token]
        return [machine.instance_id for machine in old]

    def _known(self, instance_id: str) -> FakeMachine:
        if (machine := self._machines.get(instance_id)) is None:
            raise NotFound(f"there is no machine {instance_id}")
        return machine

    def _ours(self, instance_id: str, tags: Tags) -> FakeMachine:
        machine = self._known(instance_id)
        if not tags.match(machine.tags) or machine.power == "ended":
            raise NotFound(f"machine {instance_id} carries other tags, or is gone")
        return machine

    def _boot(self, machine: FakeMachine) -> None:
        self._change(
            msgspec.structs.replace(
                machine,
                power="on",
                boots=machine.boots + 1,
                boot_id=self._new_boot_id(),
                booted_at=self._boots_until(),
                graceful=True,
            )
        )

    def _end(self, machine: FakeMachine, *, graceful: bool) -> None:
        if machine.power != "ended":
            ended_at = self._clock.now()
            self._change(msgspec.structs.replace(machine, power="ended", ended_at=ended_at, graceful=graceful))

    def _change(self, machine: FakeMachine) -> Machine:
        self._put(machine)
        self._changed(machine)
        return self._told(machine)

    def _put(self, machine: FakeMachine) -> None:
        before = self._machines.get(machine.instance_id)
        self._existing += (machine.power != "ended") - (before is not None and before.power != "ended")
        self._machines[machine.instance_id] = machine
        self._by_token[machine.request.token] = machine.instance_id

    def _told(self, machine: FakeMachine) -> Machine:
        request = machine.request
        return Machine(
            instance_id=machine.instance_id,
            provider_id=f"navarch://{request.cluster}/{request.node}",
            tags=machine.tags,
            state=self._state(machine),
            instance_type=request.instance_type,
            region=request.region,
            zone=request.zone,
            address="127.0.0.1",
            price_per_hour=0.0,
            launched_at=machine.launched_at,
        )

    def _state(self, machine: FakeMachine) -> ProviderState:
        if machine.power == "ended":
            return ProviderState.GONE
        if machine.power == "off":
            return ProviderState.STOPPING  # Off, but to be had back: not gone.
        return ProviderState.PENDING if self._clock.now() < machine.booted_at else ProviderState.RUNNING

    def _boots_until(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self.weather.boot_time_s * self._rng.uniform(0.9, 1.1))

    def _new_boot_id(self) -> str:
        return uuid.UUID(int=self._rng.getrandbits(128), version=4).hex
