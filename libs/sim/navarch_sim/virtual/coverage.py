"""Which edges of a node's life met which faults: so that what was never tried together is known.

A fault that struck anywhere meets every edge that is walked shortly after, whoever walks it: what a crash does to a node
need not have begun with that node. It meets those that were walked right before, too, whose news is still on its way; and
a store that goes back meets every edge that it forgets. How a machine was made meets every edge that its own node walks.
Not every pair means something, though. `is_meant` leaves out those whose fault cannot bear upon the edge, by what it
breaks:

- **Servers, processes and what travels between them** bear upon every edge: each is a commit that somebody decides, and
  that others hear of. So do operators.
- **One machine's own faults** bear upon nothing before there is a machine: an intent that is launched knows none yet.
  A machine that never boots, has no driver or dies young is about its way up and its end; one that comes back from the dead, about
  ends, and about being taken for another.
- **A cloud's calls** bear upon the edges that a call's answer makes: launches, what lookups find, ends, and what a list
  says of a machine that is gone or that nobody knew. A zone without room is about launches, and about the room that a
  replacement waits for.
- **Reports that come again, or are acknowledged late or never**, bear upon what reports make of a node: it registers, is
  found healthy or not, answers what it was told.
- **Demand, and the loss of the stream that it comes by**, bear upon sizes: what is planned, dropped again, taken away and
  kept after all. A machine that was never used leaves for other reasons.
- **Outages, and a store that goes back**, let nobody's time run out: who could not hear, or must rebuild, gives nobody up
  before everyone has had time to speak again, which is longer than a fault is near.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from navarch_common.model.node import Phase

NEAR_S = 10.0
"""A fault that struck so shortly before an edge met it."""
RIGHT_BEFORE_S = 3.0
"""And so shortly after it."""
KEPT = 256
"""Edges that a fault may still meet: more are not walked in the time that any store forgets."""

_UP = {"booting>validating", "validating>active"}
_GIVEN_UP = {
    "booting>registration_timeout", "validating>registration_timeout", "registration_timeout>terminating",
    "registration_timeout>terminated", "booting>terminating", "validating>terminating", "booting>terminated",
    "validating>terminated",
}  # fmt: skip
_OUT = {"active>draining", "validating>draining", "draining>active", "active>terminating", "draining>terminating"}
_ENDS = {"terminating>terminated", "active>terminated", "draining>terminated"}
_MACHINE = _UP | _GIVEN_UP | _OUT | _ENDS
_LAUNCH = {
    "planned>launching", "launching>booting", "launching>launch_unknown", "launching>launch_failed", "launching>planned",
    "launch_unknown>booting", "launch_unknown>planned", "launch_unknown>launch_failed",
}  # fmt: skip
_FOUND = {f"none>{phase}" for phase in ("booting", "validating", "active", "draining", "terminating")} | {
    "planned>booting"
}
"""Machines that the store had forgotten, found at their cloud."""
_LISTED = _ENDS | _FOUND | {"booting>terminated", "validating>terminated", "registration_timeout>terminated"}
_SIZE = {"none>planned", "planned>launch_failed", "planned>launching", *_OUT} - {"validating>draining"}

MEANT: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("app-xid", "death", "flap", "silence", "work", "xid", "xid-burst"), frozenset(_MACHINE | _FOUND)),
    **dict.fromkeys(
        ("death-in-passing", "xid-in-passing"), frozenset(_UP | _GIVEN_UP | _ENDS | {"draining>active", "draining>terminating"})
    ),
    "never-boots": frozenset(_GIVEN_UP | {"launching>booting", "launch_unknown>booting", "none>booting"}),
    "dies-young": frozenset(_MACHINE),
    "no-driver": frozenset(_GIVEN_UP | {"booting>validating", "launching>booting", "launch_unknown>booting"}),
    "returns": frozenset(_ENDS | _FOUND),
    **dict.fromkeys(("cloud-refuses", "slow-cloud"), frozenset(_LAUNCH | _LISTED)),
    **dict.fromkeys(("launch-lost", "launch-reply-lost", "crash-at-call"), frozenset((_LAUNCH | _ENDS | _FOUND) - {"planned>launching"})),
    **dict.fromkeys(("partial-list", "stale-list"), frozenset(_LISTED)),
    "stock-out": frozenset(_LAUNCH | {"draining>terminating"}),
    **dict.fromkeys(("lost-ack", "redelivery", "stale-ack", "crash-at-report"), frozenset(_UP | _GIVEN_UP | _OUT)),
    **dict.fromkeys(("demand", "purge"), frozenset(_SIZE)),
}  # fmt: skip
"""By fault, the edges that it bears upon; every edge where it is not named. The text above says why."""


_OUT_OF_TIME = {"booting>registration_timeout", "validating>registration_timeout"}
_BEGIN_ANEW = {"bus-outage", "store-outage", "rollback", "deep-rollback", "rollback-in-passing"}


def is_meant(edge: str, fault: str) -> bool:
    """Whether it means something that this fault meets this edge."""
    return edge in MEANT.get(fault, (edge,)) and not (edge in _OUT_OF_TIME and fault in _BEGIN_ANEW)


class Coverage:
    """Of one run; `counts` of several are added up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._struck: dict[str, float] = {}
        self._in_force: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        """How often each fault struck."""
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """By edge (`booting>validating`) and fault, how often they met."""
        self._made_with: defaultdict[str, set[str]] = defaultdict(set)
        """By node, what its machines were made with."""
        self._walked: deque[tuple[float, str, set[str]]] = deque(maxlen=KEPT)
        """When, which edge, and which faults it met."""

    def made_with(self, fault: str, node: str) -> None:
        """A machine of this node has this fault, and keeps it."""
        self._made_with[node].add(fault)
        self.met(fault)

    def met(self, fault: str, *, forgotten_s: float = 0.0) -> None:
        """The fault strikes now; what was done in the last `forgotten_s` seconds is undone."""
        self.faults[fault] += 1
        now_s = self._struck[fault] = self._loop.time()
        for at_s, edge, faults in reversed(self._walked):
            if now_s - at_s > max(RIGHT_BEFORE_S, forgotten_s):
                break
            if fault not in faults:
                faults.add(fault)
                self.counts[edge][fault] += 1

    @contextmanager
    def lasting(self, fault: str) -> Iterator[None]:
        """The fault is in force as long as the context is."""
        self.met(fault)
        self._in_force[fault] += 1
        try:
            yield
        finally:
            self._in_force[fault] -= 1
            self._struck[fault] = self._loop.time()

    def edge(self, node: str, before: Phase | None, after: Phase) -> None:
        now_s = self._loop.time()
        name = f"{before.value if before else 'none'}>{after.value}"
        counter = self.counts[name]
        counter[""] += 1
        faults = {fault for fault, at_s in self._struck.items() if now_s - at_s <= NEAR_S or self._in_force[fault]}
        faults |= self._made_with.get(node, set())
        counter.update(faults)
        self._walked.append((now_s, name, faults))
