"""A step: one thing to do next, complete. What it rests on, what it writes, what it tells, and which call follows. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from navarch_common.events.base import Event
from navarch_common.model.base import AnyKey, Record
from navarch_common.model.pool import Change
from navarch_common.store.base import Refund, Spend
from navarch_provisioner.news import ACTOR, Why

Act = Literal[
    "activate", "answer", "ask", "breaker", "cancel", "configure", "cordon", "count", "drain", "fold", "forget", "give-up", "launch",
    "lookup", "note", "plan", "power-on", "refund", "replace", "retire", "terminate", "terminated", "uncordon",
]  # fmt: skip
"""What `navarch plan` and `navarch_decisions_total` call it."""
HOUSEKEEPING = frozenset(
    {"answer", "ask", "configure", "count", "fold", "forget", "lookup", "note", "power-on", "refund"}
)
"""Steps that change nothing that one pays for or works on."""

Call = Literal["launch", "lookup", "terminate", "ask", "power-on"]
"""A cloud call: made after the step's commit, about the node as it then stands."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step. With nothing to write it is the call alone."""

    act: Act
    node: str
    why: Why
    expect: Mapping[AnyKey, int] = field(default_factory=dict)
    put: Mapping[AnyKey, Record] = field(default_factory=dict)
    delete: tuple[AnyKey, ...] = ()
    emit: tuple[Event, ...] = ()
    spend: tuple[Spend, ...] = ()
    refund: tuple[Refund, ...] = ()
    call: Call | None = None
    trace: str = ""
    """The trace of what caused it; the shell opens the step's own span below it."""
    cost_per_hour: float = 0.0
    """What it changes about the hourly price, as far as that is known."""

    @property
    def writes(self) -> bool:
        return bool(self.put or self.delete or self.emit or self.spend or self.refund)


@dataclass(frozen=True, slots=True)
class Blocked:
    """What the next step for a node, or for the pool (`node` empty), waits for."""

    node: str
    why: Why
    change: Change | None = None
    """What would be done if an operator approved it, or if automation did more than observe."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The next steps of a pool, at most one for each node, and what is waited for."""

    steps: tuple[Step, ...] = ()
    blocked: tuple[Blocked, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything that one pays for or works on would change."""
        return any(step.act not in HOUSEKEEPING for step in self.steps)


def wait(code: str, text: str, actor: str = ACTOR) -> Why:
    """Why something does not happen yet."""
    return Why(code, text, actor)
