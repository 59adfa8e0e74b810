"""Commands to agents: which one is due. Pure; `sender` sends them again and again until their result is in.

Core has one: `configure`, by which an agent takes over the periods that the configuration in force says.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache

from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import COMMAND, CommandRecord, MetaRecord
from navarch_common.model.node import Phase
from navarch_provisioner.news import Why
from navarch_provisioner.steps import Step
from navarch_provisioner.view import NodeView, PoolView

REGISTERS_BY_ITSELF = timedelta(seconds=15)
"""A machine that has been booting for this long is asked whether its agent has registered with somebody who forgot it."""
REMEMBERED = 20_000
"""Ids of commands that are computed once: every node is asked for its own at each pass."""
LISTENING = frozenset({Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING})


@lru_cache(maxsize=100)
def _periods(heartbeat: timedelta, health_check: timedelta) -> Mapping[str, str]:
    return {
        "heartbeat_interval_s": f"{heartbeat.total_seconds():g}",
        "health_check_interval_s": f"{health_check.total_seconds():g}",
    }


@lru_cache(maxsize=REMEMBERED)
def _configure_id(node: str, generation: int, boot: str, heartbeat: timedelta, health_check: timedelta) -> str:
    """The same for the same boot and the same periods, so that it is issued once."""
    args = _periods(heartbeat, health_check)
    text = "/".join((node, str(generation), boot, *(f"{key}={args[key]}" for key in sorted(args))))
    return f"configure-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def due(pool: PoolView, view: NodeView, now: datetime) -> Step | None:
    """Issues `configure` to an agent that has registered and was not told yet; older ones of the node go."""
    record = view.record
    if record.phase not in LISTENING or record.registration is None or record.powered_off:
        return None
    periods = pool.settings.heartbeat_interval, pool.settings.health_check_interval
    id_ = _configure_id(record.node, record.generation, record.registration.boot_id, *periods)
    if id_ in pool.commands:
        return None
    args = dict(_periods(*periods))
    command = CommandRecord(
        id=id_, node=view.node, pool=pool.pool, generation=record.generation, kind="configure", args=args,
        issued_at=now, expires_at=now + pool.settings.timings.command_expiry, trace=record.trace,
    )  # fmt: skip
    why = Why("configure", f"tells its agent to send heartbeats every {args['heartbeat_interval_s']} s")
    old = [known.id for known in pool.commands.values() if known.node == record.node]
    expect: dict[AnyKey, int] = {
        view.key: view.revision,
        COMMAND.key(id_): 0,
        **{COMMAND.key(command_id): pool.command_revisions[command_id] for command_id in old},
    }
    return Step(
        "configure", view.node, why, expect=expect, put={COMMAND.key(id_): command},
        delete=tuple(COMMAND.key(command_id) for command_id in old),
    )  # fmt: skip


def to_send(pool: PoolView, now: datetime) -> list[CommandRecord]:
    """Commands without a result that have not expired, for nodes whose agent listens."""
    return [
        command
        for command in pool.commands.values()
        if not command.result
        and command.expires_at > now
        and (view := pool.nodes.get(command.node)) is not None
        and view.phase in LISTENING
        and not view.record.powered_off
    ]


def to_ask_again(pool: PoolView, now: datetime) -> list[NodeView]:
    """Nodes whose agent should register anew, if there is one: the machine was adopted, or the records were rolled back
    to a time before it registered, or its registration was lost on the way, or that of an earlier boot arrived after it;
    and once after each safe mode, since what an agent has reported of faults may be forgotten, and is reported again with
    it. Agents register of themselves only when they boot, when their connection was lost, and four times an hour."""
    return [
        view
        for view in pool.living
        if not view.record.powered_off
        and (
            _has_not_registered(view, now)
            or _may_be_forgotten(view, pool.meta)
            or _beats_from_another_boot(view, pool.settings.heartbeat_timeout)
        )
    ]


def _has_not_registered(view: NodeView, now: datetime) -> bool:
    waited = view.record.launch is None or now - view.record.phase_since >= REGISTERS_BY_ITSELF
    return view.phase is Phase.BOOTING and view.record.registration is None and waited


def _beats_from_another_boot(view: NodeView, timeout: timedelta) -> bool:
    """Once it has had the time to fall silent, or to register if it is the boot that came after."""
    known, work = view.record.registration, view.work
    if known is None or work.at is None or view.phase not in LISTENING:
        return False
    return work.boot_id not in ("", known.boot_id) and work.at - known.at > timeout


def _may_be_forgotten(view: NodeView, meta: MetaRecord | None) -> bool:
    if meta is None or view.phase not in LISTENING or view.record.registration is None:
        return False
    since = meta.safe_mode.since if meta.safe_mode else meta.safe_mode_left_at
    return since is not None and view.record.registration.at < since
