"""When a first start may launch, when safe mode may end, and whose time counts from its end."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from navarch_common.model.cluster import SafeMode
from navarch_common.model.node import NodeRecord, Phase, ProviderState
from navarch_common.store.base import Beat
from navarch_provisioner import lifecycle, safe_mode
from navarch_provisioner.cloud.base import Machine, Tags
from support.provisioner_pools import POOL, T0, at, node, registration


def machine(name: str, *, theirs: str = "", state: ProviderState = ProviderState.RUNNING) -> Machine:
    tags = Tags("test", theirs or "mine", POOL, name, 1, f"token-{name}")
    return Machine(f"i-{name}", "", tags, state, "h100-8x", "", "", "", 2.0, T0)


def records(*names: str, **fields: Any) -> dict[str, Any]:
    return {name: node(name, Phase.BOOTING, **{"registration": None, **fields}).record for name in names}


def beat(name: str, seconds: float) -> Beat:
    return Beat(node=name, pool=POOL, at=at(seconds), due_at=at(seconds + 15), sample=b"{}")


def since(code: str = "store-lost") -> SafeMode:
    return SafeMode(since=at(0), code=code, reason="why")


def test_a_first_start_with_no_machine_may_launch() -> None:
    assert safe_mode.first_look({"cloud": []}, "mine", {})[0] == "clear"
    gone = machine("a", state=ProviderState.GONE)
    assert safe_mode.first_look({"cloud": [gone]}, "mine", {})[0] == "clear"


def test_a_first_start_that_has_launched_itself_knows_its_own() -> None:
    assert safe_mode.first_look({"cloud": [machine("a")]}, "mine", records("a"))[0] == "clear"


@pytest.mark.parametrize(
    ("found", "code"),
    [(machine("a"), "state-lost"), (machine("a", theirs="other"), "unknown-installation")],
    ids=["ours", "theirs"],
)
def test_a_first_start_that_finds_machines_is_none(found: Machine, code: str) -> None:
    verdict, why = safe_mode.first_look({"cloud": [], "other": [found]}, "mine", {})
    assert (verdict, why.code) == ("doubt", code)
    assert "i-a at other" in why.text


def judged(
    listed: safe_mode.Lists,
    nodes: Mapping[str, NodeRecord],
    beats: Mapping[str, Beat] | None = None,
    *,
    began: str = "store-lost",
    installation: str = "mine",
    listable: bool = True,
    planned: Collection[str] = (),
) -> tuple[bool, str]:
    """Whether safe mode ends, and the code of the reason."""
    ends, why = safe_mode.enough(
        listed, installation, nodes, beats or {}, since(began), listable=listable, planned=planned
    )
    return ends, why.code


def test_safe_mode_ends_where_no_machine_is_left() -> None:
    assert judged({"cloud": []}, {}) == (True, "no-machines")


def test_an_empty_list_that_may_be_older_than_our_machines_proves_nothing() -> None:
    assert judged({"cloud": []}, {}, listable=False) == (False, "newborn")


def test_a_list_that_lacks_what_was_planned_just_before_proves_nothing() -> None:
    listed = {"cloud": [machine("a")]}
    heard = {"a": beat("a", 1)}
    for planned, nodes, because in (
        ({"a", "b"}, records("a"), "newborn"),
        (None, records("a"), "newborn"),
        ({"a", "b"}, records("a", "b"), "all-reported"),
        ({"a"}, records("a"), "all-reported"),
    ):
        _, why = safe_mode.enough(listed, "mine", nodes, heard, since(), listable=False, planned=planned)
        assert why.code == because
    assert judged(listed, records("a"), heard, planned={"a", "b"}) == (True, "all-reported")


def test_a_record_that_is_still_an_intent_knows_nothing_of_its_machine() -> None:
    """The store was rolled back to before the launch. Found by the simulator (seed 1810)."""
    intent = {"a": node("a", Phase.PLANNED).record}
    heard = {"a": beat("a", 1)}
    assert judged({"cloud": [machine("a")]}, intent, heard) == (False, "not-recorded")
    _, why = safe_mode.enough({"cloud": [machine("b")]}, "mine", {**intent, **records("b")}, {"b": beat("b", 1)}, since(),
                              listable=False, planned={"a", "b"})  # fmt: skip
    assert why.code == "newborn"


def test_without_a_provider_nothing_is_known_and_safe_mode_stays() -> None:
    assert judged({}, {}) == (False, "no-lists")


def test_safe_mode_stays_while_a_machine_has_no_record() -> None:
    listed = {"cloud": [machine("a"), machine("b")]}
    heard = {"a": beat("a", 1), "b": beat("b", 1)}
    assert judged(listed, records("a"), heard) == (False, "not-recorded")
    assert judged(listed, records("a", "b"), heard) == (True, "all-reported")


@pytest.mark.parametrize(("heard", "ends"), [(19, True), (18, False)])
def test_safe_mode_ends_when_95_percent_have_reported(heard: int, ends: bool) -> None:
    names = [f"n{number}" for number in range(20)]
    listed = {"cloud": [machine(name) for name in names]}
    beats = {name: beat(name, 1) for name in names[:heard]}
    assert judged(listed, records(*names), beats) == (ends, "all-reported" if ends else "not-reported")


def test_what_was_heard_before_safe_mode_began_does_not_count() -> None:
    listed = {"cloud": [machine("a")]}
    before = records("a", registration=replace_at(-60))
    assert judged(listed, before, {"a": beat("a", -1)}) == (False, "not-reported")
    after = records("a", registration=replace_at(1))
    assert judged(listed, after) == (True, "all-reported")


def replace_at(seconds: float) -> Any:
    return structs.replace(registration(), at=at(seconds))


def test_where_the_mirror_alone_was_missing_the_records_are_proof_enough() -> None:
    listed = {"cloud": [machine("a"), machine("x", theirs="other")]}
    assert judged(listed, records("a"), began="mirror-lost") == (True, "all-recorded")
    assert judged(listed, {}, began="mirror-lost") == (False, "not-recorded")


def test_an_unknown_installation_keeps_safe_mode_until_an_operator_speaks() -> None:
    listed = {"cloud": [machine("x", theirs="other")]}
    assert judged(listed, {}, began="unknown-installation") == (False, "unknown-installation")
    heard = {"x": beat("x", 1)}
    assert judged(listed, records("x"), heard, began="unknown-installation", installation="other")[0]


def test_a_node_has_its_whole_time_to_register_from_the_end_of_safe_mode() -> None:
    view = node("a", Phase.BOOTING, registration=None)
    assert view.record.launch is not None
    late = view.record.launch.deadline + timedelta(seconds=1)
    timeout = timedelta(minutes=10)
    assert lifecycle.overdue(view.record, late, timeout) is not None
    assert lifecycle.overdue(view.record, late, timeout, rebuilt_at=late - timedelta(minutes=9)) is None
    assert lifecycle.overdue(view.record, late, timeout, rebuilt_at=late - timeout) is not None


def test_a_machine_whose_node_has_ended_need_not_be_heard() -> None:
    """It is a leak, which nothing collects before safe mode is over."""
    listed = {"cloud": [machine("a"), machine("b")]}
    nodes = {**records("a"), "b": node("b", Phase.LAUNCH_FAILED).record}
    assert judged(listed, nodes) == (False, "not-reported")
    assert judged(listed, nodes, {"a": beat("a", 1)}) == (True, "all-reported")
    assert judged({"cloud": [machine("b")]}, nodes) == (True, "all-ended")
