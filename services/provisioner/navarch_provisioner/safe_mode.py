"""When the first launch may be, and when safe mode may end: what complete lists of every provider say about it. Pure.

A first start launches nothing before every provider has told all that it has. Where machines carry our cluster's name
already, it is no first start: either the records were lost (the machines are of our installation), or another
installation works under the same name (they are not), and only an operator can tell which.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from navarch_common.model.cluster import SafeMode
from navarch_common.model.node import ENDED, NodeRecord, ProviderState
from navarch_common.store.base import Beat
from navarch_common.store.meta import heard_since
from navarch_provisioner.adoption import is_intent
from navarch_provisioner.cloud.base import Machine
from navarch_provisioner.news import Why

REPORTED_ENOUGH = 0.95
"""Of the machines that carry our tags, so many must have been heard."""
NAMED = 3
"""So many machines are named in a sentence."""

Lists = Mapping[str, Sequence[Machine]]
"""By provider, all of its machines that carry our cluster's name. Every provider gave a complete list."""


def first_look(
    lists: Lists, installation: str, nodes: Mapping[str, NodeRecord]
) -> tuple[Literal["clear", "doubt"], Why]:
    """What the first complete lists after a first start mean."""
    ours, theirs = _whose(lists, installation)
    if theirs:
        names = ", ".join(sorted({machine.tags.installation for _, machine in theirs}))
        return "doubt", Why(
            "unknown-installation",
            f"{_named(theirs)} carry our cluster's name and the unknown installation {names}: `navarch adopt` takes it "
            "over as ours, `navarch safe-mode leave` leaves it to whoever it belongs to",
        )
    strangers = [(name, machine) for name, machine in ours if machine.tags.node not in nodes]
    if strangers:
        return "doubt", Why("state-lost", f"{_named(strangers)} carry our tags, and the store is new")
    return "clear", Why(
        "no-machines", "every provider gave a complete list, and no machine that we don't know is in any"
    )


def enough(
    lists: Lists,
    installation: str,
    nodes: Mapping[str, NodeRecord],
    beats: Mapping[str, Beat],
    safe_mode: SafeMode,
    *,
    listable: bool,
    planned: Collection[str] | None,
) -> tuple[bool, Why]:
    """Whether safe mode may end, and why, or what it waits for. `beats` are the last heartbeats by node; `listable` says
    whether every machine that was made before safe mode would be listed by now. Until then an empty list proves nothing,
    nor does one that lacks a node of `planned`: those that were planned before. None where nobody can tell."""
    ours, theirs = _whose(lists, installation)
    mirror_alone = safe_mode.code == "mirror-lost"
    if not lists:
        return False, Why("no-lists", "there is no provider to ask")
    if theirs and not mirror_alone:
        return False, Why("unknown-installation", f"{_named(theirs)} carry our cluster's name and are not ours")
    if not listable and (not ours or not mirror_alone):
        if not ours or planned is None:
            return False, Why("newborn", "a machine made just before might not be listed yet")
        listed = {machine.tags.node for _, machine in ours}
        known = {name for name, record in nodes.items() if not is_intent(record)}
        if awaited := sorted(set(planned) - listed - known):
            return False, Why(
                "newborn", f"{_some(awaited)} was planned before, and its machine might not be listed yet"
            )
    if not ours:
        return True, Why("no-machines", "every provider gave a complete list, and no machine carries our tags")
    # What a record says has ended has nobody who must be heard: such a machine is a leak, and safe mode collects none.
    ours = [one for one in ours if one[1].tags.node not in nodes or nodes[one[1].tags.node].phase not in ENDED]
    if not ours:
        return True, Why("all-ended", "of every machine that carries our tags the node has ended")
    # A record that is still an intent was written before its machine was made, and the store has forgotten the rest.
    strangers = [
        (provider, machine)
        for provider, machine in ours
        if machine.tags.node not in nodes or is_intent(nodes[machine.tags.node])
    ]
    if strangers:
        return False, Why("not-recorded", f"{_named(strangers)} carry our tags and have no record")
    if mirror_alone:
        return True, Why("all-recorded", f"all {len(ours)} machines that carry our tags have their records")
    silent = [
        (provider, machine)
        for provider, machine in ours
        if not heard_since(nodes[machine.tags.node], beats.get(machine.tags.node), safe_mode.since)
    ]
    heard = len(ours) - len(silent)
    if heard >= REPORTED_ENOUGH * len(ours):
        return True, Why("all-reported", f"{heard} of {len(ours)} machines that carry our tags have reported")
    return False, Why("not-reported", f"{_named(silent)} of {len(ours)} have not reported")


def _whose(lists: Lists, installation: str) -> tuple[list[tuple[str, Machine]], list[tuple[str, Machine]]]:
    there = [
        (provider, machine)
        for provider, listed in sorted(lists.items())
        for machine in listed
        if machine.state is not ProviderState.GONE
    ]
    ours = [(provider, machine) for provider, machine in there if machine.tags.installation == installation]
    theirs = [(provider, machine) for provider, machine in there if machine.tags.installation != installation]
    return ours, theirs


def _named(machines: Sequence[tuple[str, Machine]]) -> str:
    return "machines " + _some([f"{machine.instance_id} at {provider}" for provider, machine in machines])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
