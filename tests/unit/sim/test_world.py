"""The rules of the fake cloud, without network and disk."""

import random
from datetime import timedelta

import msgspec
import pytest

from navarch_common.clock import ManualClock
from navarch_common.model.node import LaunchRequest, ProviderState
from navarch_provisioner.cloud.base import InvalidLaunch, NoCapacity, NotFound, Upstream
from navarch_provisioner.cloud.fake_wire import Order, Weather
from navarch_sim.fake_cloud.world import FORGET_AFTER, YOUNG, FakeMachine, World


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


# The weather


def change(lab: Lab, **weather: object) -> None:
    lab.world.weather = msgspec.structs.replace(lab.world.weather, **weather)


@pytest.mark.parametrize(
    ("sold_out", "scope"), [("us-a", "zone"), ("x", "type"), ("us", "region"), ("far", "region"), ("*", "region")]
)
def test_what_is_sold_out_has_no_room_and_says_how_far_that_goes(sold_out: str, scope: str) -> None:
    lab = Lab()
    made = lab.world.launch(order("n1", zone="us-a", region="us"))
    change(lab, sold_out=(sold_out,))
    with pytest.raises(NoCapacity) as caught:
        lab.world.launch(order("n2", zone="us-a", region="us"))
    assert caught.value.scope == scope
    assert lab.world.launch(order("n1", zone="us-a", region="us")) == made, "what was made before needs no room"
    elsewhere = order("n2", zone="eu-a", region="eu", instance_type="y", provider="near")
    if sold_out != "*":
        assert lab.world.launch(elsewhere).zone == "eu-a"


def test_a_launch_that_names_no_zone_is_put_somewhere_and_stays_there() -> None:
    lab = Lab(Weather(zones=("a", "b")))
    made = [lab.world.launch(order(f"n{number}")) for number in range(20)]
    assert {machine.zone for machine in made} == {"a", "b"}
    assert lab.world.launch(order("n99", zone="c")).zone == "c"
    assert [machine.zone for machine in lab.again().machines("c")] == [*(machine.zone for machine in made), "c"]


def test_a_stale_list_lacks_what_was_made_since_and_shows_what_has_ended_since() -> None:
    lab = Lab(Weather(boot_time_s=0.0))
    old = lab.world.launch(order("old"))
    lab.clock.advance(timedelta(minutes=10))
    change(lab, stale_list_s=300.0)
    new = lab.world.launch(order("new"))
    lab.world.terminate(old.instance_id, old.tags)
    assert [(found.tags.node, found.state) for found in lab.world.machines("c")] == [("old", ProviderState.RUNNING)]
    assert lab.world.by_token("token-old").state is ProviderState.RUNNING
    with pytest.raises(NotFound):
        lab.world.by_token("token-new")
    assert lab.world.get(new.instance_id).state is ProviderState.RUNNING, "by its id it is shown as it is"
    assert lab.world.get(old.instance_id).state is ProviderState.GONE
    assert lab.world.launch(order("new")) == new, "and its token is known at once"
    lab.clock.advance(timedelta(minutes=6))
    assert [found.tags.node for found in lab.world.machines("c")] == ["new"]


def test_a_list_that_broke_off_is_not_taken_for_the_whole() -> None:
    lab = Lab(Weather(short_list_rate=1.0))
    assert lab.world.listing("c").complete() == []
    for number in range(3):
        lab.world.launch(order(f"n{number}"))
    for _ in range(20):
        with pytest.raises(Upstream, match="of 3 machines"):
            lab.world.listing("c").complete()
    change(lab, short_list_rate=0.0)
    assert len(lab.world.listing("c").complete()) == 3


def test_a_cloud_without_tokens_makes_a_machine_for_each_call() -> None:
    lab = Lab(Weather(tokens=False))
    first, second = lab.world.launch(order()), lab.world.launch(order())
    assert first.instance_id != second.instance_id
    assert first.tags == second.tags
    assert len(lab.world.machines("c")) == 2
    assert lab.world.by_token("token-n1") == first
    lab.world.terminate(first.instance_id, first.tags)
    assert lab.world.by_token("token-n1") == second, "a search by tag finds the one that is there"
    assert lab.again().by_token("token-n1").instance_id == second.instance_id


def test_twins_have_their_tags_in_common_and_end_and_are_forgotten_each_for_itself() -> None:
    lab = Lab()
    machine = lab.world.launch(order())
    twin, third = lab.world.twin(machine.instance_id), lab.world.twin(machine.instance_id)
    assert len({machine.instance_id, twin.instance_id, third.instance_id}) == 3
    assert machine.tags == twin.tags == third.tags
    lab.world.terminate(twin.instance_id, twin.tags)
    lab.clock.advance(FORGET_AFTER + timedelta(seconds=1))
    assert lab.world.forget() == [twin.instance_id]
    assert lab.world.launch(order()).instance_id == machine.instance_id
    assert lab.world.twin(machine.instance_id).instance_id not in {machine.instance_id, third.instance_id}
    assert lab.world.existing == 3


def test_a_machine_that_returns_is_the_one_that_it_was() -> None:
    lab = Lab(Weather(capacity=1))
    machine = lab.world.launch(order())
    lab.world.return_(machine.instance_id)
    assert len(lab.changes) == 1, "one that has not ended cannot return"
    first = lab.changes[-1].boot_id
    lab.world.terminate(machine.instance_id, machine.tags)
    lab.world.return_(machine.instance_id)
    assert [(found.instance_id, found.tags) for found in lab.world.machines("c")] == [
        (machine.instance_id, machine.tags)
    ]
    assert lab.changes[-1].boot_id != first
    assert lab.world.existing == 1
    lab.world.terminate(machine.instance_id, machine.tags)
    assert lab.world.machines("c") == []


def test_a_machine_that_loses_power_for_a_moment_boots_without_a_goodbye() -> None:
    lab = Lab()
    machine = lab.world.launch(order())
    lab.world.reboot(machine.instance_id)
    before, after = lab.changes
    assert before.boot_id != after.boot_id
    assert (after.power, after.graceful, after.boots) == ("on", False, 2)
    lab.world.power_off(machine.instance_id, machine.tags)
    lab.world.reboot(machine.instance_id)
    assert lab.changes[-1].power == "off"


def test_a_dark_zone_cuts_off_its_own_machines_alone_and_the_cloud_shows_them_running() -> None:
    lab = Lab(Weather(boot_time_s=0.0))
    dark, bright = lab.world.launch(order("n1", zone="a")), lab.world.launch(order("n2", zone="b"))
    nowhere = lab.world.launch(order("n3"))
    change(lab, dark_zones=("a", ""))
    assert [lab.world.is_dark(one.instance_id) for one in (dark, bright, nowhere)] == [True, False, False]
    assert lab.world.get(dark.instance_id).state is ProviderState.RUNNING
    change(lab, dark_zones=())
    assert not lab.world.is_dark(dark.instance_id)


def test_a_machine_that_never_boots_looks_to_its_cloud_like_any_other() -> None:
    lab = Lab(Weather(boot_failure_rate=1.0, boot_time_s=1.0))
    machine = lab.world.launch(order())
    assert lab.changes[-1].mute
    lab.clock.advance(timedelta(seconds=2))
    assert lab.world.get(machine.instance_id).state is ProviderState.RUNNING


def test_a_machine_that_dies_young_dies_after_its_first_word_also_where_the_world_began_again() -> None:
    lab = Lab(Weather(die_young_rate=1.0, boot_time_s=1.0))
    for number in range(20):
        lab.world.launch(order(f"n{number}"))
    change(lab, die_young_rate=0.0)
    lab.world.launch(order("n20"))
    assert all(machine.dies_at is None or machine.dies_at > machine.booted_at for machine in lab.changes)
    again = lab.again()
    again.settle()
    assert again.on == 21
    lab.clock.advance(YOUNG + timedelta(seconds=2))
    for world in (lab.world, again):
        world.settle()
        assert [found.tags.node for found in world.machines("c")] == ["n20"]
    assert not lab.changes[-1].graceful


def test_a_fine_day_draws_no_lots() -> None:
    """So that a fault that is switched off changes nothing of what chance decides elsewhere."""
    rng = random.Random(1)
    world = World(ManualClock(), rng, lambda _: None)
    before = rng.getstate()
    assert world.slowness_s() == 0.0
    assert world.bad_luck(launching=True) is None
    assert not world.loses_request()
    assert not world.loses_reply()
    assert world.listing("c").complete() == []
    assert rng.getstate() == before


def test_bad_weather_is_met_as_often_as_it_says() -> None:
    lab = Lab(Weather(failure_rate=0.3, lost_request_rate=0.2, lost_reply_rate=0.1, slow_s=2.0))
    draws = range(2000)
    assert 500 < sum(lab.world.bad_luck(launching=True) is not None for _ in draws) < 700
    assert 320 < sum(lab.world.loses_request() for _ in draws) < 480
    assert 140 < sum(lab.world.loses_reply() for _ in draws) < 260
    assert all(1.0 <= lab.world.slowness_s() <= 3.0 for _ in draws)
