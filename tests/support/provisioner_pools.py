"""Pools as the provisioner's decisions see them, built in a line or two, for tests that need no shell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import structs

from navarch_common.config.load import load_text
from navarch_common.model.cluster import MetaRecord
from navarch_common.model.gpu import Gpu
from navarch_common.model.health import HealthRecord, HealthStatus
from navarch_common.model.node import Drain, Instance, Phase, ProviderState, Registration
from navarch_common.model.pool import PoolRecord, SupplyRecord
from navarch_common.model.wish import NodeWishes, Wish
from navarch_provisioner import bootstrap, commands, lifecycle
from navarch_provisioner.news import Why
from navarch_provisioner.placement import Offer
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.view import NodeView, PoolView, Work, guard_names

T0 = datetime(2026, 1, 1, tzinfo=UTC)
POOL = "training"
WITH_MACHINE = frozenset(Phase) - {Phase.PLANNED, Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN, Phase.LAUNCH_FAILED}
WITH_AGENT = frozenset({Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING, Phase.TERMINATING, Phase.TERMINATED})


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def settings(extra: str = "", *, server: str = "") -> ProvisionerSettings:
    """`extra` are more keys of the pool, in YAML's flow style: `surge: {enabled: false}`."""
    more = f", {extra}" if extra else ""
    text = f"""
providers: {{cloud: {{type: fake}}, other: {{type: fake}}}}
server: {{{server}}}
pools:
  {POOL}: {{provider: cloud, instance_type: h100-8x, min_nodes: 1, max_nodes: 20{more}}}
"""
    return ProvisionerSettings.of(load_text(text, "navarch.yaml", {}).config, nats_url="nats://here")


def registration(boot: str = "boot-1") -> Registration:
    return Registration(
        at=T0, boot_id=boot, generation=1, driver="570.1", driver_state="ok", gpus=(Gpu(index=0, uuid="GPU-0"),)
    )


def instance(name: str, **fields: Any) -> Instance:
    values: dict[str, Any] = {
        "provider": "cloud", "instance_id": f"i-{name}", "provider_id": f"navarch://test/{name}",
        "state": ProviderState.RUNNING, "state_at": T0, "launched_at": T0, "price_per_hour": 2.0,
    }  # fmt: skip
    return Instance(**{**values, **fields})


def node(name: str, phase: Phase = Phase.ACTIVE, *, born: float = 0.0, **fields: Any) -> NodeView:
    """A node in a phase, with what a node in that phase has. Keys that a `NodeView` has go to it, others to the record."""
    of_view = {key: fields.pop(key) for key in ("work", "inbox", "inbox_revision") if key in fields}
    wish = fields.pop("wish", None)
    verdict = fields.pop("health", "healthy" if phase in (Phase.ACTIVE, Phase.DRAINING) else None)
    empty = PoolView(POOL, "test", "installation", settings(), settings().pools[POOL])
    request = bootstrap.launch_request(empty, name, Offer("cloud", "h100-8x"))
    record = lifecycle.planned(request, Why("test", "the test wants it"), at(born), timedelta(minutes=10)).record
    values: dict[str, Any] = {"phase": phase, "phase_since": at(born)}
    if phase in WITH_MACHINE:
        values["instance"] = instance(name)
    if phase in WITH_AGENT:
        values["registration"] = registration()
    if phase is Phase.DRAINING:
        values["drain"] = Drain(cause="fault", actor="health", since=at(born), deadline=at(born + 900))
    record = structs.replace(record, **{**values, **fields})
    view = NodeView(record, revision=1, **of_view)
    if verdict is not None:
        view = replace(view, health=judged(name, verdict), health_revision=1)
    if wish is not None:
        view = replace(view, wish_record=NodeWishes(node=name, pool=POOL, wishes=(wish,)), wish_revision=1)
    return view


def judged(name: str, status: str | HealthRecord, **fields: Any) -> HealthRecord:
    """`failed` is unhealthy with the action to replace; `silent` is suspect from silence; else a plain status."""
    if isinstance(status, HealthRecord):
        return status
    values: dict[str, Any] = {"node": name, "pool": POOL, "generation": 1, "since": T0}
    if status == "failed":
        values |= {
            "status": HealthStatus.UNHEALTHY, "action": "drain_and_replace", "code": "xid-79", "reason": "fell off",
            "failure_id": f"f-{name}", "failed_at": T0,
        }  # fmt: skip
    elif status == "silent":
        values |= {"status": HealthStatus.SUSPECT, "silent_since": T0, "code": "silence"}
    else:
        values |= {"status": HealthStatus(status)}
    return HealthRecord(**{**values, **fields})


def idle(seconds: float = 0.0, since: float | None = None) -> Work:
    return Work(idle=True, at=at(seconds), idle_since=at(seconds if since is None else since))


def busy(seconds: float = 0.0) -> Work:
    return Work(idle=False, at=at(seconds), text="GPU 0 has 1 process")


def wish(verb: str, *, force: bool = False, id_: str = "w1", until: float = 3600.0) -> Wish:
    return Wish(
        id=id_,
        verb=verb,
        actor="operator:ann",
        reason="because",
        at=T0,
        expires_at=at(until),
        force=force,  # type: ignore[arg-type]
    )


def pool(*nodes: NodeView, desired: int | None = None, extra: str = "", told: bool = True, **fields: Any) -> PoolView:
    """A pool with these nodes. `desired` None is as many as there are. `told`: agents know their periods already."""
    in_force = settings(extra)
    count = len(nodes) if desired is None else desired
    values: dict[str, Any] = {
        "settings": in_force,
        "config": in_force.pools[POOL],
        "nodes": {view.node: view for view in nodes},
        "desired": PoolRecord(pool=POOL, desired=count, actor="autoscaler", code="test", reason="the test wants it"),
        "desired_revision": 1,
        "supply": SupplyRecord(pool=POOL),
        "supply_revision": 1,
        "meta": MetaRecord(cluster="test", installation="installation", incarnation="1", created_at=T0),
        "meta_revision": 1,
        "guard_revisions": dict.fromkeys(guard_names(POOL), 0),
        "providers": frozenset({"cloud", "other"}),
        "fresh_ids": tuple(f"{POOL}-new{index:02d}" for index in range(30)),
    }
    view = PoolView(POOL, "test", "installation", **{**values, **fields})
    if not told:
        return view
    issued = [step for one in nodes if (step := commands.due(view, one, T0)) is not None]
    known = {key.name: record for step in issued for key, record in step.put.items()}
    return replace(view, commands=known, command_revisions=dict.fromkeys(known, 1))
