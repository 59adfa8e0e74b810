"""Machines that no living record explains: what is said of them, and which may be ended."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from navarch_common.events.audit import Audit
from navarch_common.events.kinds import InstanceCollected, InstanceLeaked
from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import META
from navarch_common.model.leak import LeakRecord, LeakWish, leak_key
from navarch_common.model.node import NODE, Phase, ProviderState
from navarch_common.model.pool import Guard
from navarch_common.store.base import Stored
from navarch_provisioner.cloud.base import Machine, Tags
from navarch_provisioner.leaks import Decision, Known, decide, foreign
from navarch_provisioner.view import PoolView
from support.provisioner_pools import POOL, T0, at, node, pool


def machine(name: str, id_: str = "", *, installation: str = "installation", price: float = 2.0) -> Machine:
    tags = Tags("test", installation, POOL, name, 1, f"token-{name}")
    return Machine(id_ or f"i-{name}", "", tags, ProviderState.RUNNING, "h100-8x", "", "", "", price, T0)


class Books:
    """What is on record, brought forward by each decision as the store would."""

    def __init__(self, view: PoolView) -> None:
        self.view = view
        self.records: dict[AnyKey, LeakRecord] = {}
        self.wishes: tuple[LeakWish, ...] = ()
        self.events: list[Any] = []
        self.writes = 0

    def sweep(self, seconds: float, *machines: Machine) -> list[Decision]:
        leaks = {record.instance_id: Stored(key, record, 7) for key, record in self.records.items()}
        decisions = decide(self.view, "cloud", Known(leaks, self.wishes, 5), machines, at(seconds))
        for decision in decisions:
            if decision.step is not None:
                self.writes += 1
                for key in decision.step.delete:
                    self.records.pop(key)
                self.records |= {k: r for k, r in decision.step.put.items() if isinstance(r, LeakRecord)}
                self.events += decision.step.emit
        return decisions

    def of(self, id_: str) -> LeakRecord:
        return self.records[leak_key("cloud", id_)]

    def wish(self, verb: str, *names: str) -> None:
        machines = tuple(f"cloud/{name}" for name in names)
        self.wishes += (
            LeakWish(
                id=f"w{len(self.wishes)}", verb=verb, machines=machines, actor="operator:ann", at=T0,  # type: ignore[arg-type]
                expires_at=at(3600), reason="seen and judged",
            ),
        )  # fmt: skip


def collecting(view: PoolView) -> PoolView:
    return replace(view, settings=replace(view.settings, collect_leaks=True))


def test_a_machine_without_a_record_is_called_leaked_once_and_never_ended_by_ourselves() -> None:
    books = Books(collecting(pool()))
    books.sweep(0, machine("nobody"))
    assert (books.of("i-nobody").fate, books.events) == ("wait", [])
    books.sweep(30, machine("nobody"))
    writes = books.writes
    books.sweep(60, machine("nobody"))
    assert books.writes == writes, "an unchanged machine costs no write"
    for seconds in (300, 330, 360):
        assert [decision.end for decision in books.sweep(seconds, machine("nobody"))] == [None]
    assert books.of("i-nobody").fate == "report"
    [leaked] = books.events
    assert isinstance(leaked, InstanceLeaked)
    assert (leaked.instance_id, leaked.price_per_hour) == ("i-nobody", 2.0)


def test_one_sighting_is_not_enough_however_long_ago() -> None:
    books = Books(pool())
    books.sweep(0, machine("nobody"))
    books.view = collecting(pool(node("nobody", Phase.TERMINATED)))
    assert books.of("i-nobody").sightings == 1
    books.sweep(1, machine("nobody"))
    assert books.of("i-nobody").fate == "wait"


def test_a_machine_that_is_explained_by_now_is_forgotten() -> None:
    books = Books(pool())
    books.sweep(0, machine("nobody"))
    books.sweep(30)
    assert (books.records, books.events) == ({}, [])


@pytest.mark.parametrize(
    ("leaking", "kind"), [(machine("old"), "ended"), (machine("a", "i-double"), "duplicate")], ids=["ended", "double"]
)
def test_what_a_record_proves_useless_is_ended_where_the_configuration_says_so(leaking: Machine, kind: str) -> None:
    view = pool(node("a"), node("old", Phase.TERMINATED))
    books = Books(view)
    books.sweep(0, leaking)
    books.sweep(300, leaking)
    assert (books.of(leaking.instance_id).kind, books.of(leaking.instance_id).fate) == (kind, "report")
    books.view = collecting(view)
    [decision] = books.sweep(330, leaking)
    assert decision.end is not None
    assert decision.end.instance_id == leaking.instance_id
    assert decision.end.tags == leaking.tags
    assert decision.step is not None
    rests_on = {NODE.key(leaking.tags.node), META.key(), leak_key("cloud", leaking.instance_id)}
    assert rests_on <= set(decision.step.expect)
    [again] = books.sweep(360, leaking)
    assert again.end is not None, "a call that was lost is made again"
    books.sweep(390)
    assert [type(event) for event in books.events] == [InstanceLeaked, Audit, InstanceCollected]
    assert books.records == {}


def test_the_recorded_machine_of_two_is_never_called_leaked() -> None:
    books = Books(collecting(pool(node("a"))))
    for seconds in (0, 300, 330):
        for decision in books.sweep(seconds, machine("a", "i-double")):
            assert decision.end is None or decision.end.instance_id == "i-double"


def test_a_freeze_keeps_a_leaked_machine_and_its_record_says_why() -> None:
    frozen = Guard(name="freeze", active=True, level="terminate", actor="operator:ann", reason="audit", at=T0)
    books = Books(collecting(pool(node("a"), guards=(frozen,))))
    books.sweep(0, machine("a", "i-double"))
    [decision] = books.sweep(300, machine("a", "i-double"))
    assert decision.end is None
    assert (books.of("i-double").fate, "audit" in books.of("i-double").text) == ("report", True)


@pytest.mark.parametrize("name", ["hold/node/a", f"hold/pool/{POOL}"])
def test_a_hold_keeps_a_leaked_machine_from_automation_and_not_from_an_operator(name: str) -> None:
    held = "a" if name == "hold/node/a" else None
    hold = Guard(
        name=name, kind="hold", active=True, pool=POOL, node=held, actor="operator:ada", reason="counting fans", at=T0
    )
    books = Books(collecting(pool(node("a"), guards=(hold,))))
    books.sweep(0, machine("a", "i-double"))
    [decision] = books.sweep(300, machine("a", "i-double"))
    assert decision.end is None
    assert (books.of("i-double").fate, "counting fans" in books.of("i-double").text) == ("report", True)
    books.wish("gc", "i-double")
    [decision] = books.sweep(330, machine("a", "i-double"))
    assert decision.end is not None


def test_an_operator_may_have_a_machine_ended_that_nobody_remembers() -> None:
    books = Books(pool())
    books.sweep(0, machine("nobody"), machine("other"))
    books.wish("gc", "i-nobody")
    ended = [
        decision.end.instance_id for decision in books.sweep(5, machine("nobody"), machine("other")) if decision.end
    ]
    assert ended == ["i-nobody"]
    assert books.of("i-nobody").asked == "w0"
    assert books.of("i-other").fate == "wait"


def test_an_operators_wish_needs_a_second_sighting_too() -> None:
    books = Books(pool())
    books.wish("gc", "i-nobody")
    assert [decision.end for decision in books.sweep(0, machine("nobody"))] == [None]


def test_a_wish_that_has_expired_is_none() -> None:
    books = Books(pool())
    books.wish("gc", "i-nobody")
    books.wishes = tuple(replace_expiry(wish) for wish in books.wishes)
    books.sweep(0, machine("nobody"))
    assert [decision.end for decision in books.sweep(30, machine("nobody"))] == [None]


def replace_expiry(wish: LeakWish) -> LeakWish:
    return structs.replace(wish, expires_at=T0 - timedelta(seconds=1))


def test_an_operator_may_adopt_a_machine_and_it_becomes_a_node() -> None:
    books = Books(pool())
    books.sweep(0, machine("nobody"))
    books.wish("adopt", "i-nobody")
    [decision] = books.sweep(5, machine("nobody"))
    assert decision.step is not None
    record = decision.step.put[NODE.key("nobody")]
    assert (record.phase, record.reasons[0].actor) == (Phase.BOOTING, "operator:ann")  # type: ignore[attr-defined]
    assert decision.step.expect[NODE.key("nobody")] == 0
    entry = decision.step.emit[-1]
    assert isinstance(entry, Audit)
    assert (entry.action, entry.actor, entry.after["instance_id"]) == ("adopt", "operator:ann", "i-nobody")
    assert books.records == {}


def test_a_machine_whose_node_is_on_record_cannot_be_adopted_and_the_reason_is_there() -> None:
    books = Books(pool(node("a")))
    books.sweep(0, machine("a", "i-double"))
    books.wish("adopt", "i-double")
    books.sweep(5, machine("a", "i-double"))
    assert books.of("i-double").asked == "w0"
    assert "cannot be adopted" in books.of("i-double").text


def test_another_installations_machines_are_noted_once_and_forgotten_when_they_go() -> None:
    theirs = machine("x", installation="theirs")
    put, delete = foreign("cloud", [machine("a"), theirs], "installation", {}, T0)
    [(key, record)] = put.items()
    assert (record.kind, record.fate, record.installation, delete) == ("foreign", "leave", "theirs", ())
    known = {record.instance_id: Stored(key, record, 3)}
    assert foreign("cloud", [theirs], "installation", known, at(60)) == ({}, ())  # type: ignore[arg-type]
    assert foreign("cloud", [], "installation", known, at(90)) == ({}, (key,))  # type: ignore[arg-type]
    assert foreign("cloud", [theirs], "theirs", known, at(90)) == ({}, (key,))  # type: ignore[arg-type]
