"""What forbids a launch or a termination right now. Pure. Asked when a step is planned, and again right before the call.

Unknown forbids: a meta record that cannot be read is safe mode.
"""

from datetime import datetime
from typing import Literal

from navarch_common.model.cluster import MetaRecord
from navarch_common.model.pool import Guard, forbids
from navarch_provisioner.news import Why
from navarch_provisioner.view import PoolView

OUTBOX_MAX = 1000
"""Over so many events that nobody has heard of yet, nothing is launched and nobody is drained who need not be."""


def forbidden(
    guards: tuple[Guard, ...], meta: MetaRecord | None, act: Literal["launch", "terminate"], pool: str, now: datetime
) -> Why | None:
    """Freeze and safe mode, or None. The last question before every cloud call."""
    if meta is None:
        return Why("safe-mode", "it is not known whether safe mode is on: the cluster's own record cannot be read")
    if meta.safe_mode is not None:
        return Why("safe-mode", f"safe mode: {meta.safe_mode.reason}")
    guard = forbids(guards, act, pool, now)
    if guard is not None:
        until = f" until {guard.until:%Y-%m-%d %H:%M:%SZ}" if guard.until else ""
        return Why("frozen", f"{guard.actor} froze {guard.pool or 'the cluster'}{until}: {guard.reason}")
    return None


def no_call(view: PoolView, now: datetime) -> Why | None:
    """Why an intent that is on record may not be acted on, or None. A backoff delays new intents alone."""
    return forbidden(view.guards, view.meta, "launch", view.pool, now) or _out_of_hand(view) or _backlog(view)


def no_launch(view: PoolView, now: datetime) -> Why | None:
    """Why nothing may be launched by ourselves, or None."""
    return no_call(view, now) or _backing_off(view, now)


def no_termination(view: PoolView, now: datetime) -> Why | None:
    """Why nothing may be terminated, or None. Binds what is under way and what operators ask for, too."""
    return forbidden(view.guards, view.meta, "terminate", view.pool, now)


def no_disruption(view: PoolView, now: datetime) -> Why | None:
    """Why no machine may be taken out by ourselves, or None."""
    return no_termination(view, now) or _out_of_hand(view) or _backlog(view)


def _out_of_hand(view: PoolView) -> Why | None:
    if view.config is None:
        return Why(
            "retiring", f"pool {view.pool} left the configuration: nothing is launched and nothing is terminated"
        )
    if view.config.automation != "act":
        return Why(f"automation-{view.config.automation}", f"automation is set to {view.config.automation!r}")
    return None


def _backlog(view: PoolView) -> Why | None:
    if view.outbox_waiting > OUTBOX_MAX:
        return Why("outbox-full", f"more than {OUTBOX_MAX} events wait to be published: the bus is behind or away")
    return None


def _backing_off(view: PoolView, now: datetime) -> Why | None:
    supply = view.supply
    if supply is not None and supply.retry_at is not None and supply.retry_at > now:
        count = supply.launch_failures
        return Why("backoff", f"{count} launch{'es' if count != 1 else ''} failed in a row: waiting before the next")
    return None
