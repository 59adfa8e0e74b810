"""The rules of a cloud: what a token stands for, what a machine is doing, how much room there is, and what the weather
makes of all that.

Every method is one step: it is carried out whole or raises a `CloudError` and changes nothing. The same world serves the
process, which keeps it on disk, and the simulator, which does not. Whoever carries calls to it asks for each call how the
weather treats it (`slowness_s`, `loses_request`, `bad_luck`, `loses_reply`), and lets it `settle` now and then.
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
from navarch_provisioner.cloud.base import InvalidLaunch, Machine, NoCapacity, NotFound, Tags, Throttled, Upstream
from navarch_provisioner.cloud.fake_wire import MachineList, Order, Weather

FORGET_AFTER = timedelta(days=1)
"""How long an ended machine, and what its token meant, is remembered."""

YOUNG = timedelta(minutes=1)
"""Within this after its first word a machine that dies young has died."""

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
    zone: str = ""
    """Where the cloud put it; empty where the launch said or there are none."""
    copy: int = 1
    """Which of the machines with this token it is; more than one only in a cloud without tokens."""
    mute: bool = False
    """It runs, and its agent never begins to speak."""
    dies_at: datetime | None = None

    @property
    def where(self) -> str:
        return self.zone or self.request.zone

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
        self._by_token: dict[str, list[str]] = {}
        """Each token's machines, oldest first: one, but for the weather and for twins."""
        self._doomed: dict[str, datetime] = {}
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

    # What the weather does to a call

    def slowness_s(self) -> float:
        """How long this call waits before it is carried out."""
        return self.weather.slow_s * self._rng.uniform(0.5, 1.5) if self.weather.slow_s else 0.0

    def loses_request(self) -> bool:
        """Whether this call's connection breaks before it is carried out."""
        return self._happens(self.weather.lost_request_rate)

    def bad_luck(self, *, launching: bool) -> NoCapacity | Throttled | Upstream | None:
        """The error that this call meets instead of being carried out, or None."""
        if not self._happens(self.weather.failure_rate):
            return None
        errors: list[NoCapacity | Throttled | Upstream] = [
            Throttled("too many calls, says the weather", retry_after_s=round(self._rng.uniform(0.1, 1.0), 2)),
            Upstream("the cloud's control plane is unwell, says the weather"),
        ]
        if launching:
            errors.append(NoCapacity("no room for this type right now, says the weather"))
        return self._rng.choice(errors)

    def loses_reply(self) -> bool:
        """Whether this call's connection breaks before the reply."""
        return self._happens(self.weather.lost_reply_rate)

    def is_dark(self, instance_id: str) -> bool:
        """Whether the machine is cut off from the network."""
        machine = self._machines.get(instance_id)
        return machine is not None and machine.where != "" and machine.where in self.weather.dark_zones

    # Calls

    def launch(self, order: Order) -> Machine:
        """Makes the machine, or returns the one that this token made."""
        request = order.request
        if (known := self._by_token.get(request.token)) and self.weather.tokens:
            made = self._machines[known[0]]
            if made.request != request:
                raise InvalidLaunch(f"token {request.token} made {made.instance_id} already, with other parameters")
            return self._told(made)
        zone = self._rng.choice(self.weather.zones) if self.weather.zones and not request.zone else ""
        self._check_room(request, zone)
        return self._change(self._new(order, zone))

    def by_token(self, token: str) -> Machine:
        """Raises `NotFound`, for a while also for what was made just now where the weather makes searches stale."""
        as_of = self._list_is_of()
        known = [machine for machine in self._with_token(token) if machine.launched_at <= as_of]
        if not known:
            raise NotFound(f"token {token} made no machine")
        living = (machine for machine in known if not _ended_by(machine, as_of))
        return self._told(next(living, known[0]), as_of)

    def get(self, instance_id: str) -> Machine:
        """Raises `NotFound`."""
        return self._told(self._known(instance_id))

    def machines(self, cluster: str, provider: str = "") -> list[Machine]:
        """All that exist of a cluster; with `provider`, those that this entry of its configuration launched. As old as
        the weather makes it."""
        as_of = self._list_is_of()
        return [
            self._told(machine, as_of)
            for machine in self._machines.values()
            if machine.launched_at <= as_of
            and not _ended_by(machine, as_of)
            and machine.request.cluster == cluster
            and provider in {"", machine.request.provider}
        ]

    def listing(self, cluster: str, provider: str = "") -> MachineList:
        """The same as an answer, which may break off."""
        machines = self.machines(cluster, provider)
        shown = len(machines)
        if machines and self._happens(self.weather.short_list_rate):
            shown = self._rng.randrange(len(machines))
        return MachineList(machines=machines[:shown], total=len(machines))

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

    def reboot(self, instance_id: str) -> None:
        """The machine loses power for a moment. One that is not on stays as it is."""
        machine = self._known(instance_id)
        if machine.power == "on":
            self._boot(machine, graceful=False)

    def return_(self, instance_id: str) -> None:
        """A machine that has ended runs again, with the tags and the agent that it had: its end was not the end."""
        machine = self._known(instance_id)
        if machine.power == "ended":
            self._boot(msgspec.structs.replace(machine, ended_at=None, dies_at=None))

    def twin(self, instance_id: str) -> Machine:
        """Makes another machine with the very same tags, as a launch call does that is repeated without a token."""
        machine = self._known(instance_id)
        order = Order(request=machine.request, gpu_count=machine.gpu_count)
        return self._change(self._new(order, machine.zone))

    def settle(self) -> None:
        """Whoever was to die by now dies."""
        now = self._clock.now()
        for instance_id, dies_at in list(self._doomed.items()):
            if dies_at <= now:
                self._end(self._machines[instance_id], graceful=False)

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
            del self._machines[machine.instance_id]
            self._by_token[machine.request.token].remove(machine.instance_id)
            if not self._by_token[machine.request.token]:
                del self._by_token[machine.request.token]
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

    def _with_token(self, token: str) -> list[FakeMachine]:
        return [self._machines[instance_id] for instance_id in self._by_token.get(token, ())]

    def _check_room(self, request: LaunchRequest, zone: str) -> None:
        room, sold_out = self.weather.capacity, self.weather.sold_out
        if room is not None and self._existing >= room:
            raise NoCapacity(f"no room: all {room} machines of this cloud are taken", scope="region")
        if (where := zone or request.zone) in sold_out:
            raise NoCapacity(f"no room in {where}", scope="zone")
        if request.instance_type in sold_out:
            raise NoCapacity(f"no room for {request.instance_type}", scope="type")
        if not {request.region, request.provider, "*"}.isdisjoint(sold_out):
            raise NoCapacity(f"no room in {request.region or request.provider}", scope="region")

    def _new(self, order: Order, zone: str) -> FakeMachine:
        copy = 1 + max((machine.copy for machine in self._with_token(order.request.token)), default=0)
        token = order.request.token if copy == 1 else f"{order.request.token}#{copy}"
        booted_at = self._boots_until()
        dies_young = self._happens(self.weather.die_young_rate)
        machine = FakeMachine(
            instance_id=f"fake-{hashlib.sha256(token.encode()).hexdigest()[:16]}",
            request=order.request,
            gpu_count=order.gpu_count,
            launched_at=self._clock.now(),
            boot_id=self._new_boot_id(),
            booted_at=booted_at,
            zone=zone,
            copy=copy,
            mute=self._happens(self.weather.boot_failure_rate),
            dies_at=booted_at + YOUNG * self._rng.random() if dies_young else None,
        )
        if machine.instance_id in self._machines:
            raise InvalidLaunch(f"token {order.request.token} is too much like another one")
        return machine

    def _happens(self, ratio: float) -> bool:
        return ratio > 0 and self._rng.random() < ratio

    def _list_is_of(self) -> datetime:
        return self._clock.now() - timedelta(seconds=self.weather.stale_list_s)

    def _boot(self, machine: FakeMachine, *, graceful: bool = True) -> None:
        self._change(
            msgspec.structs.replace(
                machine,
                power="on",
                boots=machine.boots + 1,
                boot_id=self._new_boot_id(),
                booted_at=self._boots_until(),
                graceful=graceful,
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
        if before is None:
            self._by_token.setdefault(machine.request.token, []).append(machine.instance_id)
        if machine.dies_at is not None and machine.power != "ended":
            self._doomed[machine.instance_id] = machine.dies_at
        else:
            self._doomed.pop(machine.instance_id, None)

    def _told(self, machine: FakeMachine, as_of: datetime | None = None) -> Machine:
        request = machine.request
        return Machine(
            instance_id=machine.instance_id,
            provider_id=f"navarch://{request.cluster}/{request.node}",
            tags=machine.tags,
            state=self._state(machine, as_of or self._clock.now()),
            instance_type=request.instance_type,
            region=request.region,
            zone=machine.where,
            address="127.0.0.1",
            price_per_hour=0.0,
            launched_at=machine.launched_at,
        )

    def _state(self, machine: FakeMachine, as_of: datetime) -> ProviderState:
        if _ended_by(machine, as_of):
            return ProviderState.GONE
        if machine.power == "off":
            return ProviderState.STOPPING  # Off, but to be had back: not gone.
        return ProviderState.PENDING if as_of < machine.booted_at else ProviderState.RUNNING

    def _boots_until(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self.weather.boot_time_s * self._rng.uniform(0.9, 1.1))

    def _new_boot_id(self) -> str:
        return uuid.UUID(int=self._rng.getrandbits(128), version=4).hex


def _ended_by(machine: FakeMachine, as_of: datetime) -> bool:
    return machine.ended_at is not None and machine.ended_at <= as_of
