"""`type: queue`: as many nodes as the queue needs, in one step."""

from navarch_autoscaler.strategies.base import PoolInputs
from navarch_common.config.autoscaling import Autoscaling, QueueAutoscaling
from navarch_common.model.pool import Opinion
from navarch_common.words import counted


def queue(autoscaling: Autoscaling, inputs: PoolInputs) -> Opinion:
    """Target = queue depth / jobs per node, rounded up. No opinion without fresh demand or with `jobs_per_node: 0`."""
    assert isinstance(autoscaling, QueueAutoscaling)
    if autoscaling.jobs_per_node == 0:
        return Opinion(strategy="queue", code="switched-off", reason="jobs_per_node is 0: the queue is not counted")
    demand = inputs.demand
    if demand is None:
        return Opinion(
            strategy="queue",
            code="no-demand-data",
            reason="nobody has reported a queue depth lately: the size stays",
            fresh=False,
        )
    target = -(-demand.queue_depth // autoscaling.jobs_per_node)
    stale = f"; {counted(len(demand.stale), 'source')} silent: {', '.join(demand.stale[:3])}" if demand.stale else ""
    return Opinion(
        strategy="queue",
        target=target,
        code="queue-depth",
        reason=f"{demand.queue_depth} queued at {autoscaling.jobs_per_node} jobs a node need {counted(target, 'node')}{stale}",
        fresh=not demand.stale,
    )
