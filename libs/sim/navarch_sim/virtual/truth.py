"""What really is the matter with each machine: known to the world alone, never to the services.

The checkers hold against it what the services did. Whoever breaks something writes it down here first.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Span:
    """A time that may not be over yet."""

    begin_s: float
    end_s: float = float("inf")

    def within(self, begin_s: float, end_s: float) -> float:
        """How much of a time lies in it."""
        return max(0.0, min(self.end_s, end_s) - max(self.begin_s, begin_s))


@dataclass(slots=True)
class NodeTruth:
    """One node, and what happened to it."""

    fatal_at_s: float | None = None
    """When a fault struck that no replacement can be wrong about."""
    fatal: str = ""
    must_fail: bool = False
    """Health must say that it failed: a kernel line that condemns was printed on a machine that lived."""
    silent: list[Span] = field(default_factory=list)
    busy: list[Span] = field(default_factory=list)
    wishes: set[str] = field(default_factory=set)
    """What operators asked for it: `drain`, `replace`, `terminate`, `force`."""


class Truth:
    """By node."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeTruth] = {}

    def of(self, node: str) -> NodeTruth:
        return self.nodes.setdefault(node, NodeTruth())

    def condemn(self, node: str, why: str, at_s: float) -> None:
        truth = self.of(node)
        if truth.fatal_at_s is None:
            truth.fatal_at_s, truth.fatal = at_s, why

    def work_ends(self, node: str, at_s: float) -> None:
        """Its machine went down, and what worked there with it."""
        for span in self.of(node).busy:
            span.end_s = min(span.end_s, at_s)

    def is_silent_from(self, node: str, begin_s: float, end_s: float) -> bool:
        """Whether it could not be heard at any moment of that time. The spans may touch each other."""
        for span in sorted(self.of(node).silent, key=lambda span: span.begin_s):
            if span.begin_s <= begin_s < span.end_s:
                begin_s = span.end_s
        return begin_s >= end_s

    def longest_silence(self, node: str, until_s: float) -> float:
        """Of the spans, which may touch each other, the longest time without a break."""
        spans = sorted((span.begin_s, min(span.end_s, until_s)) for span in self.of(node).silent)
        longest, begin_s, end_s = 0.0, 0.0, -1.0
        for first_s, last_s in spans:
            if first_s > end_s:
                begin_s = first_s
            end_s = max(end_s, last_s)
            longest = max(longest, end_s - begin_s)
        return longest

    def busy_since(self, node: str, at_s: float) -> float | None:
        """Since when work has been on the node at that time, or None."""
        return next((span.begin_s for span in self.of(node).busy if span.begin_s <= at_s < span.end_s), None)
