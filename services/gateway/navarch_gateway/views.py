"""Records as the API shows them. Pure: both doors send what these functions return."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from navarch_api import types as t
from navarch_common.config import Config, PoolConfig
from navarch_common.guards import hold_on
from navarch_common.model import base
from navarch_common.model.cluster import Taking
from navarch_common.model.health import HealthRecord
from navarch_common.model.node import ENDED, LaunchRequest, NodeRecord
from navarch_common.model.node import Instance as NodeInstance
from navarch_common.model.pool import Guard, PoolRecord, SupplyRecord
from navarch_common.model.status import Status, count_statuses, health_of, reason_of, status_of
from navarch_common.model.wish import Answer, Wish
from navarch_common.store.base import Beat
from navarch_gateway.known import Known
from navarch_gateway.proposal import held_text
from navarch_gateway.takings import is_too_much, text_of
from navarch_gateway.wishes import Work


def node_view(node: NodeRecord, revision: int, health: HealthRecord | None, beat: Beat | None) -> t.Node:
    request = node.launch.request if node.launch else None
    instance, said = node.instance, node.registration
    return t.Node(
        node=node.node,
        pool=node.pool,
        status=status_of(node, health).value,
        health=health_of(node, health).value,
        phase=node.phase.value,
        phase_since=node.phase_since,
        cordons=tuple(
            t.Cordon(holder=holder, reason=cordon.reason, at=cordon.at)
            for holder, cordon in sorted(node.cordons.items())
        ),
        provider=_one("provider", instance, request),
        region=_one("region", instance, request),
        zone=_one("zone", instance, request),
        instance_type=_one("instance_type", instance, request),
        instance_id=instance.instance_id if instance else "",
        provider_id=instance.provider_id if instance else "",
        hostname=said.hostname if said else "",
        address=instance.address if instance else "",
        gpus=len(said.gpus) if said else None,
        replaces=node.replaces,
        replaced_by=node.replaced_by,
        reason=reason_of(node, health),
        price_per_hour=instance.price_per_hour if instance else None,
        labels=node.labels,
        generation=node.generation,
        created_at=node.created_at,
        active_at=node.active_at,
        terminated_at=node.terminated_at,
        last_heartbeat=beat.at if beat else None,
        revision=revision,
    )


def node_detail(
    node: NodeRecord,
    revision: int,
    health: HealthRecord | None,
    beat: Beat | None,
    work: Work,
    wishes: Sequence[Wish],
    as_of: datetime,
) -> t.NodeDetail:
    summary = node_view(node, revision, health, beat)
    return t.NodeDetail(
        **{name: getattr(summary, name) for name in t.Node.__struct_fields__},
        instance=instance_view(node, node.instance, summary.status) if node.instance else None,
        launch=_launch(node),
        registration=_registration(node),
        drain=_drain(node),
        health_detail=_health(health) if health and health.generation == node.generation else None,
        sample=_sample(beat, work),
        reasons=_reasons((*node.reasons, *(health.reasons if health else ()))),
        blocked=reason_view(node.blocked),
        wishes=tuple(wish_view(wish) for wish in wishes),
        answers={request: answer_view(answer) for request, answer in node.answers.items()},
        powered_off=node.powered_off,
        failure_id=node.failure_id or (health.failure_id if health else ""),
        trace=node.trace,
        config_generation=node.config_generation,
        as_of=as_of,
    )


def instance_view(node: NodeRecord, instance: NodeInstance, status: str) -> t.Instance:
    return t.Instance(
        instance_id=instance.instance_id,
        provider_id=instance.provider_id,
        provider=instance.provider,
        node=node.node,
        pool=node.pool,
        status=status,
        state=instance.state.value,
        state_at=instance.state_at,
        instance_type=instance.instance_type,
        region=instance.region,
        zone=instance.zone,
        address=instance.address,
        price_per_hour=instance.price_per_hour,
        launched_at=instance.launched_at,
    )


def pool_view(pool: str, known: Known, config: Config, now: datetime) -> t.Pool:
    stored, settings = known.pools.get(pool), config.pools.get(pool)
    record = stored.record if stored else None
    nodes = list(known.living(pool))
    counts = count_statuses((node, known.health_of(node.node)) for node in nodes)
    choice = settings.choices[0] if settings and settings.choices else None
    supply = known.supply.get(pool)
    frozen = [guard for guard in known.freezes(now) if guard.pool in (None, pool)]
    return t.Pool(
        pool=pool,
        desired=record.desired if record else None,
        active=counts[Status.ACTIVE],
        provisioning=counts[Status.PROVISIONING],
        cordoned=counts[Status.CORDONED],
        unhealthy=counts[Status.UNHEALTHY],
        draining=counts[Status.DRAINING],
        min_nodes=settings.min_nodes if settings else None,
        max_nodes=settings.max_nodes if settings else None,
        paused=bool(record and record.paused),
        retiring=settings is None,
        frozen=bool(frozen),
        held=hold_on(known.holds(now), pool, None, now) is not None,
        provider=choice.name if choice else "",
        instance_type=(choice.instance_type or "") if choice else "",
        autoscaling=_strategy(settings),
        reason=_pool_reason(record, supply.record if supply else None, frozen),
        dollars_per_hour=dollars_per_hour(nodes),
    )


def pool_status(pool: str, known: Known, config: Config, now: datetime) -> t.PoolStatus:
    summary = pool_view(pool, known, config, now)
    stored, supply = known.pools.get(pool), known.supply.get(pool)
    record = stored.record if stored else None
    return t.PoolStatus(
        **{name: getattr(summary, name) for name in t.Pool.__struct_fields__},
        actor=record.actor if record else "",
        code=record.code if record else "",
        scaled_at=record.scaled_at if record else None,
        hold_until=record.hold_until if record else None,
        pause=t.Pause(actor=record.paused.actor, reason=record.paused.reason, at=record.paused.at)
        if record and record.paused
        else None,
        opinions=tuple(
            t.Opinion(strategy=said.strategy, target=said.target, code=said.code, reason=said.reason, fresh=said.fresh)
            for said in (record.opinions if record else ())
        ),
        limited=reason_view(record.limited) if record else None,
        supply=_supply(supply.record) if supply else None,
        guards=tuple(
            guard_view(guard) for guard in (*known.freezes(now), *known.holds(now)) if guard.pool in (None, pool)
        ),
        reasons=_reasons((*(record.reasons if record else ()), *(supply.record.reasons if supply else ()))),
        wishes=tuple(wish_view(asked.wish) for asked in known.wishes_of_pool(pool)),
        answers={
            key: answer_view(answer)
            for owner in (record, supply.record if supply else None)
            for key, answer in (owner.answers if owner else {}).items()
        },
        automation=settings.automation if (settings := config.pools.get(pool)) else "",
        changes=tuple(change for change in change_views(known, config) if change.pool == pool),
        as_of=known.as_of,
    )


def change_views(known: Known, config: Config) -> tuple[t.Change, ...]:
    """What waits for an operator's word, or is only said, the oldest first. A configuration that waits is there once for
    each pool that would lose nodes, under one id."""
    found = [
        t.Change(
            id=change.id,
            pool=pool,
            node=change.node,
            act=change.act,
            text=change.text,
            since=change.since,
            automation=config.pools[pool].automation if pool in config.pools else "",
        )
        for pool, stored in known.supply.items()
        for change in stored.record.changes
    ]
    if (held := known.held_config) is not None:
        found += [
            t.Change(
                id=held.change, pool=one.pool, act="config", text=f"the configuration in {held.source}: {text_of([one])}",
                since=held.at, automation=config.pools[one.pool].automation if one.pool in config.pools else "",
            )
            for one in held.takings
        ]  # fmt: skip
    return tuple(sorted(found, key=lambda change: (change.since or known.as_of, change.id)))


def held_config_views(known: Known, pool: str = "") -> tuple[t.PlanBlocked, ...]:
    """What the configuration that waits would take, of one pool or of all (empty)."""
    held = known.held_config
    return () if held is None else tuple(
        t.PlanBlocked(pool=one.pool, code="approval", reason=held_text(held, (one,)), change=held.change)
        for one in held.takings
        if pool in ("", one.pool)
    )  # fmt: skip


def taking_view(taking: Taking) -> t.Taking:
    return t.Taking(
        pool=taking.pool, nodes=taking.nodes, of=taking.of, why=taking.why, named=taking.named,
        too_much=is_too_much(taking),
    )  # fmt: skip


def guard_view(guard: Guard) -> t.Guard:
    return t.Guard(
        name=guard.name,
        kind=guard.kind,
        node=guard.node,
        active=guard.active,
        level=guard.level,
        pool=guard.pool,
        number=guard.number,
        actor=guard.actor,
        reason=guard.reason,
        at=guard.at,
        until=guard.until,
    )


def wish_view(wish: Wish) -> t.OpenWish:
    return t.OpenWish(
        request_id=wish.id,
        verb=wish.verb,
        actor=wish.actor,
        reason=wish.reason,
        at=wish.at,
        expires_at=wish.expires_at,
        force=wish.force,
        nodes=wish.nodes,
        hold_until=wish.hold_until,
    )


def answer_view(answer: Answer) -> t.Answer:
    return t.Answer(at=answer.at, outcome=answer.outcome, code=answer.code, reason=answer.reason)


def reason_view(reason: base.Reason | None) -> t.Reason | None:
    return None if reason is None else t.Reason(at=reason.at, code=reason.code, text=reason.text, actor=reason.actor)


def dollars_per_hour(nodes: Iterable[NodeRecord]) -> float | None:
    """What the machines cost; None where a price is not known, since a sum without it would be too low."""
    prices = [node.instance.price_per_hour for node in nodes if node.instance and node.phase not in ENDED]
    known = [price for price in prices if price is not None]
    return None if len(known) < len(prices) else round(sum(known), 4)


def _reasons(reasons: Sequence[base.Reason]) -> tuple[t.Reason, ...]:
    """Newest first."""
    shown = (reason_view(reason) for reason in sorted(reasons, key=lambda reason: reason.at, reverse=True))
    return tuple(reason for reason in shown if reason is not None)


def _one(name: str, *sources: NodeInstance | LaunchRequest | None) -> str:
    """What the machine has, or else what was asked for."""
    return next((text for source in sources if source is not None and (text := str(getattr(source, name)))), "")


def _strategy(settings: PoolConfig | None) -> str:
    scaling = settings.autoscaling if settings else None
    return "" if scaling is None else str(scaling.__struct_config__.tag)


def _pool_reason(record: PoolRecord | None, supply: SupplyRecord | None, frozen: Sequence[Guard]) -> str:
    """The first thing that an operator should know."""
    if frozen:
        return f"frozen by {frozen[0].actor}: {frozen[0].reason}"
    if supply is not None and supply.breaker is not None:
        return f"the breaker is open: {supply.breaker.reason}"
    if supply is not None and supply.blocked is not None:
        return supply.blocked.text
    if record is None:
        return "the autoscaler has not looked at it yet"
    if record.paused is not None:
        return f"paused by {record.paused.actor}: {record.paused.reason}"
    return record.limited.text if record.limited else record.reason


def _supply(supply: SupplyRecord) -> t.Supply:
    return t.Supply(
        launch_failures=supply.launch_failures,
        retry_at=supply.retry_at,
        exhausted_since=supply.exhausted_since,
        swept_at=supply.swept_at,
        blocked=reason_view(supply.blocked),
        failed_starts=supply.failed_starts,
        breaker=None
        if (breaker := supply.breaker) is None
        else t.Breaker(
            since=breaker.since,
            code=breaker.code,
            reason=breaker.reason,
            canary=breaker.canary,
            tries=breaker.tries,
            retry_at=breaker.retry_at,
        ),
        limits=tuple(t.LimitReached(key=key, since=since) for key, since in sorted(supply.limits.items())),
    )


def _launch(node: NodeRecord) -> t.Launch | None:
    if (launch := node.launch) is None:
        return None
    return t.Launch(
        provider=launch.request.provider,
        instance_type=launch.request.instance_type,
        region=launch.request.region,
        zone=launch.request.zone,
        token=launch.request.token,
        attempt=launch.attempt,
        intended_at=launch.intended_at,
        called_at=launch.called_at,
        deadline=launch.deadline,
        error=launch.error,
        error_code=launch.error_code,
    )


def _registration(node: NodeRecord) -> t.Registration | None:
    if (said := node.registration) is None:
        return None
    return t.Registration(
        at=said.at,
        boot_id=said.boot_id,
        hostname=said.hostname,
        addresses=said.addresses,
        kernel=said.kernel,
        agent_version=said.agent_version,
        driver=said.driver,
        driver_state=said.driver_state,
        gpus=tuple(
            t.Gpu(
                index=gpu.index,
                uuid=gpu.uuid,
                serial=gpu.serial,
                pci=gpu.pci,
                name=gpu.name,
                memory_total_bytes=gpu.memory_total_bytes,
            )
            for gpu in said.gpus
        ),
    )


def _drain(node: NodeRecord) -> t.Drain | None:
    if (drain := node.drain) is None:
        return None
    return t.Drain(
        cause=drain.cause,
        actor=drain.actor,
        since=drain.since,
        deadline=drain.deadline,
        then_terminate=drain.then_terminate,
        drained_at=drain.drained_at,
        skipped=drain.skipped,
        blocked_by=drain.blocked_by,
    )


def _health(health: HealthRecord) -> t.HealthDetail:
    return t.HealthDetail(
        status=health.status.value,
        since=health.since,
        action=health.action,
        code=health.code,
        reason=health.reason,
        rule=health.rule,
        silent_since=health.silent_since,
        failure_id=health.failure_id,
        failed_at=health.failed_at,
        verdicts=tuple(
            t.Verdict(
                entity=entity,
                status=verdict.status.value,
                action=verdict.action,
                rule=verdict.rule,
                code=verdict.code,
                reason=verdict.reason,
                since=verdict.since,
                evidence=tuple(
                    t.Evidence(at=seen.at, source=seen.source, code=seen.code, text=seen.text)
                    for seen in verdict.evidence
                ),
            )
            for entity, verdict in sorted(health.entities.items())
        ),
        episodes=tuple(
            t.Episode(
                entity=episode.entity,
                code=episode.code,
                first_at=episode.first_at,
                last_at=episode.last_at,
                lines=episode.lines,
                count=episode.count,
            )
            for episode in health.episodes
        ),
    )


def _sample(beat: Beat | None, work: Work) -> t.Sample | None:
    if beat is None or work.sample is None:
        return None
    said = work.sample
    return t.Sample(
        at=beat.at,
        due_at=beat.due_at,
        driver_state=said.driver_state,
        idle=work.idle,
        cpu_ratio=said.cpu_ratio,
        memory_ratio=said.memory_ratio,
        gpus=tuple(
            t.GpuReading(
                index=gpu.index,
                utilization_ratio=gpu.utilization_ratio,
                memory_used_bytes=gpu.memory_used_bytes,
                temperature_c=gpu.temperature_c,
                power_w=gpu.power_w,
                process_count=gpu.process_count,
            )
            for gpu in said.gpus
        ),
    )
