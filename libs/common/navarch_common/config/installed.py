"""What this installation can run: the adapters that its distributions bring through entry points."""

from __future__ import annotations

from importlib.metadata import entry_points

import msgspec

BUILT_IN_PROVIDERS = frozenset({"local", "fake"})
BUILT_IN_AUTOSCALERS = frozenset({"reactive", "queue"})
BUILT_IN_NOTIFIERS = frozenset({"noop"})


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """Names that a configuration may use. A known name that is missing here comes with a later release."""

    providers: frozenset[str] = BUILT_IN_PROVIDERS
    autoscalers: frozenset[str] = BUILT_IN_AUTOSCALERS
    notifiers: frozenset[str] = BUILT_IN_NOTIFIERS


def installed() -> Installed:
    """Look at the entry points of all installed distributions. What Navarch brings itself is always there."""
    return Installed(
        providers=BUILT_IN_PROVIDERS | entry_points(group="navarch.providers").names,
        autoscalers=BUILT_IN_AUTOSCALERS | entry_points(group="navarch.autoscalers").names,
        notifiers=BUILT_IN_NOTIFIERS | entry_points(group="navarch.notifiers").names,
    )
