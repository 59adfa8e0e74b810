"""`type: reactive`: one node more above a GPU utilization, one less below another."""

from navarch_autoscaler.strategies.base import PoolInputs
from navarch_common.config.autoscaling import Autoscaling, ReactiveAutoscaling
from navarch_common.model.pool import Opinion
from navarch_common.words import counted


def reactive(autoscaling: Autoscaling, inputs: PoolInputs) -> Opinion:
    """Compares strictly: a pool that sits exactly at a threshold keeps its size. Without readings, no opinion.

    While nodes that were asked for are still coming, the load of today is no argument for more of them.
    """
    assert isinstance(autoscaling, ReactiveAutoscaling)
    utilization = inputs.utilization
    if utilization is None:
        return Opinion(
            strategy="reactive",
            code="no-utilization-data",
            reason="no usable node reports GPU utilization: the size stays",
            fresh=False,
        )
    percent = utilization.ratio * 100
    seen = f"GPU utilization is {percent:.0f} % over {counted(utilization.nodes, 'node')}"
    fresh = utilization.silent == 0
    if percent > autoscaling.scale_up_at:
        if inputs.coming and inputs.usable < inputs.desired:
            return Opinion(
                strategy="reactive",
                target=inputs.desired,
                code="waiting-for-coming",
                reason=f"{seen}, over {autoscaling.scale_up_at} %, but {counted(inputs.coming, 'node')} still coming",
                fresh=fresh,
            )
        return Opinion(
            strategy="reactive",
            target=inputs.desired + 1,
            code="utilization-high",
            reason=f"{seen}, over {autoscaling.scale_up_at} %: one node more",
            fresh=fresh,
        )
    if percent < autoscaling.scale_down_at:
        return Opinion(
            strategy="reactive",
            target=max(inputs.desired - 1, 0),
            code="utilization-low",
            reason=f"{seen}, under {autoscaling.scale_down_at} %: one node less",
            fresh=fresh,
        )
    return Opinion(
        strategy="reactive", target=inputs.desired, code="utilization-fits", reason=f"{seen}: it fits", fresh=fresh
    )
