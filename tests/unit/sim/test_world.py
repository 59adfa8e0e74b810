"""The rules of the fake cloud, without network and disk."""

import random
from datetime import timedelta

import msgspec
import pytest

from navarch_common.clock import ManualClock
from navarch_common.model.node import LaunchRequest, ProviderState
from navarch_provisioner.cloud.base import InvalidLaunch, NoCapacity, NotFound
from navarch_provisioner.cloud.fake_wire import Order, Weather
from navarch_sim.fake_cloud.world import FORGET_AFTER, FakeMachine, World


class Lab:
    """A world, and what it was heard to change."""

    def __init__(self, weather: Weather | None = None) -> None:
        self.clock = ManualClock()
        self.changes: list[FakeMachine] = []
        self.world = World(self.clock, random.Random(1), self.changes.append, weather=weather)

    def again(self) -> World:
        """The world that begins with what this one had told."""
        latest = {machine.instance_id: machine for machine in self.changes}
        return World(self.clock, random.Random(2), lambda _: None, latest.values(), self.world.weather)


def order(node: str = "n1", **changes: object) -> Order:
    request = LaunchRequest(
        node=node, pool="p", cluster="c", installation="i", generation=1, provider="far",
        instance_type="x", token=f"token-{node}",
    )  # fmt: skip
    return Order(request=msgspec.structs.replace(request, **changes), gpu_count=8)


def test_a_machine_is_pending_until_it_has_booted() -> None:
    lab = Lab(Weather(boot_time_s=10.0))
    machine = lab.world.launch(order())
    assert machine.state is ProviderState.PENDING
    lab.clock.advance(timedelta(seconds=8.9))
    assert lab.world.get(machine.instance_id).state is ProviderState.PENDING
    lab.clock.advance(timedelta(seconds=2.2))
    assert lab.world.get(machine.instance_id).state is ProviderState.RUNNING


def test_boots_of_many_machines_do_not_end_at_the_same_moment() -> None:
    lab = Lab(Weather(boot_time_s=10.0))
    for number in range(10):
        lab.world.launch(order(f"n{number}"))
    assert len({machine.booted_at for machine in lab.changes}) == 10


def test_a_token_is_one_machine_and_only_for_one_request() -> None:
    lab = Lab()
    machine = lab.world.launch(order())
    assert lab.world.launch(order()) == machine
    assert len(lab.changes) == 1
    with pytest.raises(InvalidLaunch):
        lab.world.launch(order("n2", token="token-n1"))


def test_room_is_taken_by_what_is_on_or_off_and_freed_by_what_ended() -> None:
    lab = Lab(Weather(capacity=2))
    first, second = lab.world.launch(order("n1")), lab.world.launch(order("n2"))
    lab.world.power_off(second.instance_id, second.tags)
    with pytest.raises(NoCapacity):
        lab.world.launch(order("n3"))
    lab.world.terminate(first.instance_id, first.tags)
    lab.world.terminate(first.instance_id, first.tags)
    lab.world.launch(order("n3"))
    assert lab.world.existing == 2
    with pytest.raises(NoCapacity):
        lab.world.launch(order("n4"))


def test_each_boot_has_an_id_of_its_own() -> None:
    lab = Lab()
    machine = lab.world.launch(order())
    lab.world.power_off(machine.instance_id, machine.tags)
    lab.world.power_on(machine.instance_id, machine.tags)
    lab.world.power_on(machine.instance_id, machine.tags)
    on, off, on_again = lab.changes
    assert (on.power, off.power, on_again.power) == ("on", "off", "on")
    assert on.boot_id == off.boot_id != on_again.boot_id
    assert on_again.boots == 2


def test_a_burnt_machine_leaves_without_a_goodbye_and_a_terminated_one_in_good_order() -> None:
    lab = Lab()
    burnt, ended = lab.world.launch(order("n1")), lab.world.launch(order("n2"))
    lab.world.fail(burnt.instance_id)
    lab.world.terminate(ended.instance_id, ended.tags)
    assert [machine.graceful for machine in lab.changes[-2:]] == [False, True]
    assert lab.world.machines("c") == []
    with pytest.raises(NotFound):
        lab.world.power_on(burnt.instance_id, burnt.tags)


def test_news_of_an_earlier_boot_changes_nothing() -> None:
    lab = Lab()
    machine = lab.world.launch(order())
    first = lab.changes[-1].boot_id
    lab.world.crashed(machine.instance_id, first)
    lab.world.crashed(machine.instance_id, first)
    lab.world.stopped(machine.instance_id, first)
    assert lab.changes[-1].boots == 2
    assert lab.world.get(machine.instance_id).state is not ProviderState.GONE
    lab.world.stopped(machine.instance_id, lab.changes[-1].boot_id)
    assert lab.world.get(machine.instance_id).state is ProviderState.GONE


def test_a_world_that_begins_again_has_the_same_machines_and_boots_what_was_on() -> None:
    lab = Lab(Weather(capacity=5))
    on, off, ended = (lab.world.launch(order(f"n{number}")) for number in range(3))
    lab.world.power_off(off.instance_id, off.tags)
    lab.world.terminate(ended.instance_id, ended.tags)
    again = lab.again()
    again.everything_boots()
    lab.clock.advance(timedelta(minutes=1))
    states = {machine.instance_id: machine.state for machine in again.machines("c")}
    assert states == {on.instance_id: ProviderState.RUNNING, off.instance_id: ProviderState.STOPPING}
    assert again.by_token("token-n2").state is ProviderState.GONE
    assert (again.existing, again.on, again.weather.capacity) == (2, 1, 5)


def test_an_ended_machine_is_forgotten_after_a_day_and_its_token_with_it() -> None:
    lab = Lab()
    machine = lab.world.launch(order())
    lab.world.terminate(machine.instance_id, machine.tags)
    assert lab.world.forget() == []
    lab.clock.advance(FORGET_AFTER + timedelta(seconds=1))
    assert lab.world.forget() == [machine.instance_id]
    with pytest.raises(NotFound):
        lab.world.by_token("token-n1")


def test_a_list_may_be_of_one_providers_launches() -> None:
    lab = Lab()
    lab.world.launch(order("n1"))
    lab.world.launch(order("n2", provider="other"))
    assert [machine.tags.node for machine in lab.world.machines("c", "other")] == ["n2"]
    assert len(lab.world.machines("c")) == 2
