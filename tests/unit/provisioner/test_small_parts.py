"""The parts that `plan` is made of: reports folded in, offers in order, tokens, heartbeats, waiting."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from msgspec import structs

from navarch_common.config import ProviderChoice
from navarch_common.events import encode
from navarch_common.events.messages import Heartbeat
from navarch_common.model.cluster import InboxRecord, InboxReport
from navarch_common.model.gpu import GpuSample
from navarch_common.model.node import ENDED, NODE, NodeRecord, Phase, ProviderState
from navarch_common.store.base import Beat
from navarch_provisioner import adoption, bootstrap, heard, lifecycle, outcomes, placement, sizing, supply
from navarch_provisioner.answers import ANSWERS_MAX, answer
from navarch_provisioner.cloud.base import Machine, NoCapacity, QuotaExceeded, Tags, Throttled
from navarch_provisioner.news import Why
from navarch_provisioner.outcomes import Outcome
from navarch_provisioner.placement import Offer
from navarch_provisioner.view import Work
from support.provisioner_pools import POOL, T0, at, busy, idle, instance, node, pool, registration, settings

WHY = Why("test", "the test wants it")


def report(sequence: int, boot: str = "boot-1", *, seconds: float = 0.0, generation: int = 1) -> InboxReport:
    said = structs.replace(registration(boot), at=at(seconds))
    return InboxReport(
        id=f"{boot}-{sequence}", at=at(seconds), boot_id=boot, generation=generation, sequence=sequence,
        kind="registered", registration=said,
    )  # fmt: skip


def test_reports_give_the_same_record_in_any_order_and_however_often() -> None:
    reports = [report(1), report(2, seconds=1), report(1, "boot-2", seconds=2)]
    view = node("a", Phase.BOOTING)
    ends = set()
    for order in permutations(reports):
        inbox = InboxRecord(node="a", pool=POOL, reports=(*order, *order))
        record = lifecycle.fold(view.record, inbox, "test", at(3)).record
        assert record.registration is not None
        ends.add((record.phase, record.registration.boot_id))
    assert ends == {(Phase.VALIDATING, "boot-2")}


@pytest.mark.parametrize(
    ("third", "runs"),
    [(report(1, seconds=4), "boot-2"), (report(2, seconds=4), "boot-1")],
    ids=["a registration that comes again is no boot", "one that was thought over, of two machines with one identity"],
)
def test_which_boot_runs_after_two_that_registered(third: InboxReport, runs: str) -> None:
    record = node("a", Phase.BOOTING).record
    for one in (report(1), report(1, "boot-2", seconds=2), third):
        record = lifecycle.fold(record, InboxRecord(node="a", pool=POOL, reports=(one,)), "test", at(5)).record
    assert record.registration is not None
    assert record.registration.boot_id == runs


def test_no_more_boots_are_remembered_than_fit() -> None:
    record = node("a", Phase.BOOTING).record
    for number in range(20):
        one = report(number, f"boot-{number}", seconds=number)
        record = lifecycle.fold(record, InboxRecord(node="a", pool=POOL, reports=(one,)), "test", at(30)).record
    assert list(record.boots) == [f"boot-{number}" for number in range(12, 20)]


def test_a_registration_of_another_generation_changes_nothing() -> None:
    inbox = InboxRecord(node="a", pool=POOL, reports=(report(1, generation=2),))
    view = node("a", Phase.BOOTING)
    assert lifecycle.fold(view.record, inbox, "test", at(3)).record == view.record


def test_a_machine_whose_agent_leaves_before_it_registered_has_its_whole_time_to_boot_again() -> None:
    """It was there, and its registration may be lost with the store. Found by the simulator (seed 514)."""
    left = structs.replace(report(1), kind="leaving", registration=None)
    record = node("a", Phase.BOOTING, registration=None).record
    assert record.launch is not None
    inbox = InboxRecord(node="a", pool=POOL, reports=(left,))
    late = record.launch.deadline + timedelta(seconds=1)
    folded = lifecycle.fold(record, inbox, "test", late, timedelta(seconds=60)).record
    assert lifecycle.overdue(record, late, timedelta(seconds=60)) is not None
    assert lifecycle.overdue(folded, late + timedelta(seconds=59), timedelta(seconds=60)) is None
    assert lifecycle.overdue(folded, late + timedelta(seconds=60), timedelta(seconds=60)) is not None


def test_an_agent_that_speaks_before_the_launch_is_answered_is_not_lost() -> None:
    inbox = InboxRecord(node="a", pool=POOL, reports=(report(1),))
    record = lifecycle.fold(node("a", Phase.LAUNCHING).record, inbox, "test", at(3)).record
    assert record.phase is Phase.LAUNCHING
    assert record.registration is not None


def test_terminating_is_left_for_terminated_alone_and_what_has_ended_never_returns() -> None:
    assert lifecycle.FOLLOWS[Phase.TERMINATING] == {Phase.TERMINATED}
    assert all(not lifecycle.FOLLOWS[phase] for phase in ENDED)
    assert set(lifecycle.FOLLOWS) == set(Phase)


def test_the_same_attempt_has_the_same_token_and_another_attempt_another() -> None:
    tokens = {bootstrap.launch_token("i", "a", 1, attempt) for attempt in (1, 1, 2, 3)}
    assert len(tokens) == 3
    assert bootstrap.launch_token("i", "a", 1, 1) != bootstrap.launch_token("other", "a", 1, 1)


@pytest.mark.parametrize(
    ("urls", "told"),
    [
        ("nats://here:4222", "nats://here:4222"),
        ("nats://user:secret@here:4222", "nats://here:4222"),
        ("tls://u:p@a:1, tls://b:2", "tls://a:1,tls://b:2"),
    ],
)
def test_no_password_travels_to_a_machine(urls: str, told: str) -> None:
    assert bootstrap.without_password(urls) == told


def two(strategy: str = "priority") -> list[str]:
    text = "strategy: " + strategy + ", zones: [eu-a, eu-b, us-a]"
    config = settings(text).pools[POOL]
    choices = (
        ProviderChoice(name="other", priority=2),
        ProviderChoice(name="cloud", priority=1, regions=("eu", "us")),
    )
    return [o.name for o in placement.offers(structs.replace(config, providers=choices), [node("a").record])]


def test_offers_come_by_priority_then_region_then_zone() -> None:
    assert two()[:3] == ["cloud/eu/eu-a", "cloud/eu/eu-b", "cloud/us/us-a"]
    assert two()[3].startswith("other")


def test_round_robin_prefers_who_has_fewer_machines() -> None:
    assert two("round-robin")[0].startswith("other")


def test_cost_learns_an_unknown_price_first() -> None:
    assert two("cost")[0].startswith("other")


OFFERS = [Offer("cloud", "h100", "eu"), Offer("cloud", "h100", "us"), Offer("other", "h100")]


@pytest.mark.parametrize(
    ("cooling", "chosen"),
    [
        ({}, "cloud/eu"),
        ({"cloud/eu": at(1)}, "cloud/us"),
        ({"cloud": at(1)}, "other"),
        ({"cloud": at(1), "other": at(1)}, None),
        ({"cloud": at(-1)}, "cloud/eu"),
    ],
)
def test_what_refused_lately_is_passed_over_for_a_while(cooling: dict[str, object], chosen: str | None) -> None:
    offer = placement.choose(OFFERS, frozenset({"cloud", "other"}), cooling, T0)  # type: ignore[arg-type]
    assert (offer.name if offer else None) == chosen


@pytest.mark.parametrize(
    ("error", "name", "seconds"),
    [
        (NoCapacity("x"), "cloud/eu", 30),
        (NoCapacity("x", ttl=timedelta(seconds=7)), "cloud/eu", 7),
        (QuotaExceeded("x"), "cloud", 300),
        (Throttled("x", retry_after_s=3), "cloud", 3),
        (Throttled("x", retry_after_s=1e9), "cloud", 3600),
    ],
)
def test_how_long_a_refusal_lasts(error: NoCapacity, name: str, seconds: float) -> None:
    assert placement.cooled_until(error, OFFERS[0], T0) == (name, at(seconds))


def test_each_failure_in_a_row_waits_longer_up_to_a_bound() -> None:
    waits = [placement.backoff(n, timedelta(seconds=5), timedelta(minutes=5)).total_seconds() for n in range(1, 10)]
    assert waits[:4] == [5, 10, 20, 40]
    assert waits[-1] == 300


def test_want_of_capacity_is_told_once_until_there_is_some_again() -> None:
    view = pool(desired=1)
    record, events = supply.failed(view, Why("no-capacity", "full"), T0)
    assert [event.KIND for event in events] == ["pool.exhausted"]
    again, more = supply.failed(replace(view, supply=record), Why("no-capacity", "full"), at(5))
    assert more == ()
    assert again.launch_failures == 2
    cleared = supply.delivered(replace(view, supply=again), at(6))
    assert cleared is not None
    assert cleared.exhausted_since is None
    assert cleared.launch_failures == 2, "only a node that became active proves that launches work"


def refused() -> Outcome:
    record = node("a", Phase.LAUNCHING).record
    assert record.launch is not None
    return Outcome("launch", "a", record.launch.request.token, error=NoCapacity("full"))


def test_an_answer_about_an_earlier_attempt_says_nothing_of_this_one() -> None:
    view = pool(node("a", Phase.LAUNCHING))
    outcome = Outcome("launch", "a", "0" * 32, error=NoCapacity("full"))
    assert outcomes.settle(view, view.nodes["a"], outcome, at(1)) is None


def test_the_only_offer_refusing_is_a_failed_launch() -> None:
    view = pool(node("a", Phase.LAUNCHING), cooling={"cloud": at(30)})
    step = outcomes.settle(view, view.nodes["a"], refused(), at(1))
    assert step is not None
    assert [event.KIND for event in step.emit] == ["node.launch-failed", "pool.exhausted"]


@pytest.mark.parametrize("call", ["launch", "lookup"])
def test_a_launch_whose_machine_is_gone_already_has_failed_since_its_token_is_used_up(call: Any) -> None:
    view = pool(node("a", Phase.LAUNCH_UNKNOWN))
    launch = view.nodes["a"].record.launch
    assert launch is not None
    outcome = Outcome(call, "a", launch.request.token, certain=True, ended=True)
    step = outcomes.settle(view, view.nodes["a"], outcome, at(1))
    assert step is not None
    assert [event.KIND for event in step.emit] == ["node.launch-failed"]


def beat(*processes: int | None, generation: int = 1, seconds: float = 0.0) -> Beat:
    samples = tuple(GpuSample(index=index, process_count=count) for index, count in enumerate(processes))
    heartbeat = Heartbeat(
        node="a", generation=generation, boot_id="b", sequence=1, at=T0, pool=POOL, interval_s=5.0, gpus=samples
    )
    return Beat("a", POOL, at(seconds), at(seconds + 15), encode(heartbeat))


def test_a_heartbeat_that_was_late_says_what_was_when_it_was_sent() -> None:
    """One that waited in a process that stood still proved a node idle that work had come to since. Found by the simulator
    (seed 5144)."""
    lateness, record = heard.Lateness(), node("a").record

    def sent_and_heard(sent_s: float, heard_s: float, boot: str = "boot-1") -> datetime | None:
        heartbeat = Heartbeat(
            node="a", pool=POOL, generation=1, boot_id=boot, sequence=1, at=at(sent_s - 3600), interval_s=10
        )  # its clock is an hour behind
        beat = Beat("a", POOL, at(heard_s), at(heard_s + 30), encode(heartbeat))
        return heard.work_of(beat, record, lateness).at

    assert sent_and_heard(0, 1) == at(1)
    assert sent_and_heard(10, 11) == at(11)
    assert sent_and_heard(20, 28) == at(21)
    sent_and_heard(86400 * 365 * 7000, 30)
    assert sent_and_heard(40, 41) == at(41 - 3600), "a clock that was in another millennium"
    assert sent_and_heard(0, 28, "boot-2") == at(28), "nothing is known of another boot's clock"


@pytest.mark.parametrize(
    ("heard_beat", "idle"),
    [
        (beat(0, 0), True),
        (beat(0, 1), False),
        (beat(0, None), None),
        (beat(), None),
        (beat(0, generation=2), None),
        (None, None),
        (Beat("a", POOL, T0, T0, b"garbage"), None),
    ],
    ids=["none has a process", "one has", "one cannot be read", "no gpus", "another machine", "never heard", "garbage"],
)
def test_only_a_process_count_of_zero_everywhere_is_idle(heard_beat: Beat | None, idle: bool | None) -> None:
    assert heard.work_of(heard_beat, node("a").record, heard.Lateness()).idle is idle


def test_idleness_counts_from_the_first_idle_heartbeat_without_a_break() -> None:
    watch, fresh = heard.IdleWatch(), timedelta(seconds=15)

    def look(seconds: float, *, idle: bool | None) -> object:
        return watch.since("a", Work(idle=idle, at=at(seconds)), at(seconds), fresh)

    assert look(0, idle=True) == T0
    assert look(10, idle=True) == T0
    assert look(20, idle=False) is None
    assert look(30, idle=True) == at(30)
    assert look(40, idle=None) is None
    assert look(50, idle=True) == at(50)
    assert look(100, idle=True) == at(100), "nobody saw what was there in between"


def test_nodes_too_many_are_looked_at_before_their_idleness_could_begin_anew() -> None:
    def look(*since: float | None, desired: int = 1) -> object:
        works = [busy(9) if start is None else idle(9, start) for start in since]
        nodes = [node(f"n{index}", work=work) for index, work in enumerate(works)]
        view = pool(*nodes, desired=desired, extra="scale_down: {idle_after: 20s}")
        assert view.settings.heartbeat_timeout == timedelta(seconds=15)
        return sizing.idle_look(view, at(10))

    assert look(0, 5) == at(20), "the first one is proven idle"
    assert look(None, None) == at(25), "both are busy, and may not be tomorrow"
    assert look(None, 8) == at(25), "it must not be out of sight for longer than a heartbeat may be"
    assert look(-100, -50) == at(25), "proven long ago, and something else keeps them"
    assert look(0, 5, desired=2) is None, "none is too many"


def test_answers_are_bounded_and_the_newest_stay() -> None:
    answers: dict[str, object] = {}
    for index in range(ANSWERS_MAX + 10):
        answers = answer(answers, f"w{index}", "done", WHY, at(index))  # type: ignore[arg-type,assignment]
    assert len(answers) == ANSWERS_MAX
    assert f"w{ANSWERS_MAX + 9}" in answers


def machine(name: str, token: str, *, installation: str = "installation", id_: str = "") -> Machine:
    tags = Tags("test", installation, POOL, name, 1, token)
    return Machine(id_ or f"i-{name}", "", tags, ProviderState.RUNNING, "h100-8x", "", "", "", 2.0, T0)


@pytest.mark.parametrize(
    ("made_s", "found_s", "until_s"), [(0, 1, 600), (200, 200, 800), (200, 500, 800), (900, 500, 1100)]
)
def test_a_machines_time_to_register_begins_when_it_was_made(made_s: float, found_s: float, until_s: float) -> None:
    """Found by the simulator (seed 15569). A provider's clock that is ahead gives no more than from when it is found."""
    view = pool(node("a", Phase.LAUNCHING))
    launch = lifecycle.require_launch(view.nodes["a"].record)
    made = replace(machine("a", launch.request.token), launched_at=at(made_s))
    step = outcomes.settle(
        view, view.nodes["a"], Outcome("launch", "a", launch.request.token, machine=made), at(found_s)
    )
    assert step is not None
    record = step.put[NODE.key("a")]
    assert isinstance(record, NodeRecord)
    assert lifecycle.require_launch(record).deadline == at(until_s)


def test_a_list_is_held_against_the_records() -> None:
    waiting = node("b", Phase.LAUNCH_UNKNOWN)
    assert waiting.record.launch is not None
    view = pool(node("a"), waiting, node("c"), node("old", Phase.TERMINATED))
    listed = [
        machine("a", "t"),
        machine("b", waiting.record.launch.request.token),
        machine("nobody", "x"),
        machine("old", "y"),
        machine("a", "z", installation="theirs", id_="i-theirs"),
    ]
    found = adoption.compare(view, "cloud", listed, at(600))
    assert [one.node for one, _ in found.found] == ["b"]
    assert [one.node for one in found.unlisted] == ["c"]
    assert [one.tags.node for one in found.strays] == ["nobody", "old"]


def test_what_was_made_a_moment_ago_need_not_be_listed_yet() -> None:
    view = pool(node("a", instance=instance("a", launched_at=at(0))))
    assert adoption.compare(view, "cloud", [], at(59)).unlisted == ()
    assert len(adoption.compare(view, "cloud", [], at(59)).newborn) == 1
    assert len(adoption.compare(view, "cloud", [], at(60)).unlisted) == 1


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (None, ProviderState.UNKNOWN),
        (ProviderState.GONE, ProviderState.GONE),
        (ProviderState.RUNNING, ProviderState.RUNNING),
    ],
    ids=["not found", "gone", "running"],
)
def test_a_provider_that_does_not_find_what_it_has_just_made_proves_nothing_one_that_says_it_is_gone_does(
    said: ProviderState | None, state: ProviderState
) -> None:
    newborn = node("a", Phase.BOOTING, instance=instance("a", launched_at=at(0), state=ProviderState.PENDING))
    answer = replace(machine("a", "t"), state=said) if said else None
    outcome = Outcome("ask", "a", machine=answer, certain=said in (None, ProviderState.GONE))
    step = outcomes.settle(pool(newborn), newborn, outcome, at(59))
    assert step is not None
    [record] = step.put.values()
    assert isinstance(record, NodeRecord)
    assert record.instance is not None
    assert record.instance.state is state


def test_a_stray_is_leaked_at_the_second_sighting_after_the_grace() -> None:
    grace, stray = timedelta(minutes=5), [machine("nobody", "x")]
    first = adoption.sight({}, "cloud", stray, T0)
    assert adoption.leaked(first, grace, at(600)) == []
    second = adoption.sight(first, "cloud", stray, at(299))
    assert adoption.leaked(second, grace, at(299)) == []
    third = adoption.sight(second, "cloud", stray, at(300))
    assert len(adoption.leaked(third, grace, at(300))) == 1
    assert adoption.sight(third, "cloud", [], at(330)) == {}


def test_only_a_record_that_has_ended_makes_a_stray_fit_to_be_collected() -> None:
    view = pool(node("old", Phase.TERMINATED), node("a"))

    def one(name: str, id_: str = "") -> adoption.Sighting:
        return adoption.Sighting(machine(name, "x", id_=id_), "cloud", T0)

    assert adoption.may_collect(view, one("old")) is not None
    assert adoption.may_collect(view, one("nobody")) is None
    assert adoption.may_collect(view, one("a")) is None
    assert adoption.may_collect(view, one("a", "i-double")) is not None
