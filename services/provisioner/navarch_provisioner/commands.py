"""Commands to agents: which one is due. Pure; `sender` sends them again and again until their result is in.

Core has one: `configure`, by which an agent takes over the periods that the configuration in force says.
"""

import hashlib
from datetime import datetime

from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import COMMAND, CommandRecord
from navarch_common.model.node import Phase
from navarch_provisioner.news import Why
from navarch_provisioner.steps import Step
from navarch_provisioner.view import NodeView, PoolView

LISTENING = frozenset({Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING})


def periods(pool: PoolView) -> dict[str, str]:
    settings = pool.settings
    return {
        "heartbeat_interval_s": f"{settings.heartbeat_interval.total_seconds():g}",
        "health_check_interval_s": f"{settings.health_check_interval.total_seconds():g}",
    }


def configure_id(view: NodeView, args: dict[str, str]) -> str:
    """The same for the same boot and the same periods, so that it is issued once."""
    boot = view.record.registration.boot_id if view.record.registration else ""
    text = "/".join((view.node, str(view.record.generation), boot, *(f"{key}={args[key]}" for key in sorted(args))))
    return f"configure-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def due(pool: PoolView, view: NodeView, now: datetime) -> Step | None:
    """Issues `configure` to an agent that has registered and was not told yet; older ones of the node go."""
    if view.phase not in LISTENING or view.record.registration is None or view.record.powered_off:
        return None
    args = periods(pool)
    id_ = configure_id(view, args)
    if id_ in pool.commands:
        return None
    command = CommandRecord(
        id=id_, node=view.node, pool=pool.pool, generation=view.record.generation, kind="configure", args=args,
        issued_at=now, expires_at=now + pool.settings.timings.command_expiry, trace=view.record.trace,
    )  # fmt: skip
    why = Why("configure", f"tells its agent to send heartbeats every {args['heartbeat_interval_s']} s")
    old = [command_id for command_id, record in pool.commands.items() if record.node == view.node]
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
