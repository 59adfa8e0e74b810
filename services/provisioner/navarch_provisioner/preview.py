"""What the next pass would do, as `navarch plan` shows it. Pure."""

from navarch_provisioner.steps import HOUSEKEEPING, Plan, Step
from navarch_provisioner.view import PoolView


def preview(pool: PoolView, planned: Plan) -> dict[str, object]:
    """Steps and what is waited for, as JSON. What only keeps the books is left out."""
    return {
        "pool": pool.pool,
        "changes": planned.changes,
        "steps": [_step(pool, step) for step in planned.steps if step.act not in HOUSEKEEPING],
        "blocked": [
            {
                "pool": pool.pool,
                "node": block.node,
                "code": block.why.code,
                "reason": block.why.text,
                "change": block.change.id if block.change is not None else "",
            }
            for block in planned.blocked
        ],
        "desired": pool.target if pool.desired is not None else None,
        "config_generation": pool.config_generation,
    }


def _step(pool: PoolView, step: Step) -> dict[str, object]:
    # An intent's node id is minted when it is committed: until then it is nobody's.
    node = "" if step.act == "plan" else step.node
    return {
        "pool": pool.pool,
        "node": node,
        "act": step.act,
        "code": step.why.code,
        "reason": step.why.text,
        "actor": step.why.actor,
        "cost_per_hour_delta": round(_delta(pool, step), 4) + 0.0,  # never -0.0
    }


def _delta(pool: PoolView, step: Step) -> float:
    """What it changes about the hourly price: of a new machine, what its like cost here already."""
    if step.act not in ("plan", "replace"):
        return step.cost_per_hour
    prices = [
        view.record.instance.price_per_hour
        for view in pool.living
        if view.record.instance is not None and view.record.instance.price_per_hour is not None
    ]
    return max(prices, default=0.0)
