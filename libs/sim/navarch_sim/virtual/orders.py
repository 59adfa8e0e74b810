"""What operators have ordered, as those know it who gave the orders: freezes, holds, approvals.

The storm writes it down, checkers hold what the services do against it. An order counts once it was accepted and every
replica had the time to hear of it; one that is taken back counts no more from the moment at which that is asked for.
"""

from dataclasses import dataclass, field

EFFECTIVE_S = 2.0
"""Every replica knows of a freeze and of a hold so soon."""


@dataclass(slots=True)
class Orders:
    frozen: dict[str, tuple[float, str]] = field(default_factory=dict)
    """By pool (empty for all), from when on everyone must obey, and at what level."""
    held: dict[str, float] = field(default_factory=dict)
    """By node or pool, from when on everyone must obey."""
    approved: set[str] = field(default_factory=set)
    """Changes that an operator approved."""

    def freeze(self, pool: str, level: str, at_s: float) -> None:
        self.frozen[pool] = (at_s + EFFECTIVE_S, level)

    def hold(self, target: str, at_s: float) -> None:
        self.held[target] = at_s + EFFECTIVE_S

    def forbidden(self, act: str, pool: str, at_s: float) -> str:
        """What a freeze in force says of an act in a pool at a time; empty where it may be."""
        for name in ("", pool):
            since_s, level = self.frozen.get(name, (float("inf"), ""))
            if at_s >= since_s and level in ("all", act):
                return f"{name or 'everything'} is frozen ({level}) since {since_s:.1f} s"
        return ""

    def holds(self, node: str, pool: str, at_s: float) -> str:
        """Which hold keeps automation away from a node of a pool at a time; empty where none does."""
        for target in (node, pool):
            since_s = self.held.get(target)
            if since_s is not None and at_s >= since_s:
                return f"{target} is held since {since_s:.1f} s"
        return ""
